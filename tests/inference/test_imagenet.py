"""Pretrained classifiers have their own preprocessing and class names."""

import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from PIL import Image

from tasks.errors import UserError
from tasks.inference import imagenet
from tasks.inference.predictor import Predictor
from tasks.params.model_input import DEFAULT_LIMITS
from tests.imaging.test_decode import encode, picture

pytestmark = pytest.mark.slow

NAMES = {
    str(number): [f"n{number:08}", "crane" if number in (134, 517) else f"thing_{number}"]
    for number in range(1000)
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras's folder of downloads, empty, and no network: addresses are answered by nobody."""
    return isolate(tmp_path, monkeypatch)


def isolate(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(home))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return home / "models"


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Predictor, keras.Model]]:
    """Load MobileNet with random weights, put where Keras looks for its own."""
    model = keras.applications.MobileNet(weights=None)
    last, rng = model.get_layer("conv_preds"), np.random.default_rng(0)
    last.set_weights(
        [rng.normal(0, 10, array.shape) for array in last.get_weights()]
    )  # else all classes are about equal
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = isolate(tmp_path_factory.mktemp("keras"), monkeypatch)
        folder.mkdir()
        with h5py.File(folder / "mobilenet_1_0_224_tf.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)  # as Keras's own are kept
        monkeypatch.setattr("keras.src.applications.imagenet_utils.CLASS_INDEX", NAMES)
        yield imagenet.load("MobileNet", DEFAULT_LIMITS), model


def test_the_best_three_of_a_thousand_classes(mobilenet: tuple[Predictor, keras.Model]) -> None:
    predictor, model = mobilenet
    image = encode(picture(3, 300, 200), "PNG")
    (answer,) = predictor.predict([image])
    resized = Image.open(io.BytesIO(image)).resize((224, 224), Image.Resampling.BILINEAR)
    prepared = keras.applications.mobilenet.preprocess_input(np.asarray(resized, np.float32))
    probabilities = model(prepared[np.newaxis], training=False).numpy()
    (expected,) = keras.applications.imagenet_utils.decode_predictions(probabilities, top=3)
    record = predictor.record(answer)
    assert [record["predicted"], record["second"], record["third"]] == [
        name for _, name, _ in expected
    ]
    assert [record["confidence"], record["p_second"], record["p_third"]] == pytest.approx(
        [float(score) for *_, score in expected]
    )
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_equal_names_are_told_apart(mobilenet: tuple[Predictor, keras.Model]) -> None:
    predictor, _ = mobilenet
    assert len(set(predictor.classes)) == 1000
    assert (
        predictor.classes[133:135] == ["thing_133", "crane (n00000134)"]
        and predictor.classes[517] == "crane (n00000517)"
    )


def test_without_a_network_it_says_what_to_fetch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "keras.src.applications.imagenet_utils.CLASS_INDEX", None
    )  # Keras remembers what it read
    with pytest.raises(UserError) as caught:
        imagenet.load("MobileNet", DEFAULT_LIMITS)
    told = str(caught.value)
    assert told.startswith(
        "imagenet:MobileNet could not be downloaded. On a machine with a network fetch"
    )
    assert "/imagenet_class_index.json\n" in told and "/mobilenet_1_0_224_tf.h5\n" in told
    assert told.endswith(f"put it into {cache}")


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(UserError, match="no such classifier; did you mean ResNet50 or"):
        imagenet.load("resnet50", DEFAULT_LIMITS)
    with pytest.raises(UserError, match="no such classifier; known are ConvNeXtBase, .*VGG16"):
        imagenet.load("zzz", DEFAULT_LIMITS)


def test_a_classifier_without_a_dense_layer_is_not_explained(
    mobilenet: tuple[Predictor, keras.Model],
) -> None:
    with pytest.raises(UserError, match="imagenet:MobileNet does not end in a dense layer"):
        imagenet.load("MobileNet", DEFAULT_LIMITS, explain=True)
