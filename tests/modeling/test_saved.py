"""A loaded folder predicts as the trained model did, for each kind, also through MLflow."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.errors import UserError
from tasks.modeling import classical, saved, temperature
from tasks.modeling import out_of_distribution as ood
from tasks.modeling.classical import Examples
from tasks.modeling.images import Images
from tasks.modeling.layers import build_model
from tasks.modeling.training import predict as training_predict
from tasks.params.architectures import Classical, Cnn
from tasks.params.model_input import Form
from tasks.registry import versions
from tasks.tracking.hashes import file_sha256, folder_sha256
from tests.support import ROOT

pytestmark = pytest.mark.slow

SIZE, CHANNELS, CLASSES = (6, 5), 3, ["zebra", "NA", "tumeur née"]
FORM = Form(SIZE, CHANNELS)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (70, *SIZE, CHANNELS), dtype=np.uint8)  # more than one batch
TARGETS = RNG.integers(0, len(CLASSES), len(PIXELS))
ONES = np.ones(len(PIXELS), np.float32)


def write_keras(folder: Path) -> np.ndarray:
    """Write a model and return its probabilities of PIXELS, as the training has them."""
    keras.utils.set_random_seed(1)  # some random networks are next to undecided
    model = build_model(Cnn(filters=(4,), dense=(8,)), (*SIZE, CHANNELS), len(CLASSES))
    model.save(folder / "model.keras")
    return training_predict(model, Images(PIXELS, np.arange(len(PIXELS)), TARGETS, ONES))


def write_forest(folder: Path) -> np.ndarray:
    features = PIXELS.reshape(len(PIXELS), -1).astype(np.float32) / 255
    structure = Classical(classifier="random_forest", trees=5)
    estimator = classical.fit(structure, Examples(features, TARGETS, ONES), 0, 1)
    classical.save(estimator, folder / "model.skops")
    return classical.predict(estimator, features)


def write_features(folder: Path) -> np.ndarray:
    inputs = keras.Input((*SIZE, CHANNELS), dtype="uint8")
    outputs = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Conv2D(7, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    )
    extractor = keras.Model(inputs, outputs)
    extractor.save(folder / "features.keras")
    features = extractor.predict(PIXELS, verbose=0)
    structure = Classical(classifier="logistic_regression")
    estimator = classical.fit(structure, Examples(features, TARGETS, ONES), 0, 1)
    classical.save(estimator, folder / "model.skops")
    return classical.predict(estimator, features)


WIDTHS = {
    write_keras: 8,
    write_forest: 0,
    write_features: 14,
}  # statistics of the last feature map: twice its channels


@dataclass(frozen=True)
class Kind:
    """A model's folder, only for reading, and what the model said of PIXELS when it was written."""

    folder: Path
    expected: np.ndarray

    def copy(self, tmp_path: Path, fitted: float = 1.0) -> Path:
        """Return a folder of one's own, to which another temperature belongs."""
        shutil.copytree(self.folder, tmp_path / "model")
        saved.complete(tmp_path / "model", fitted, np.load(self.folder / "familiar.npz")["usual"])
        return tmp_path / "model"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable, Kind]:
    """Write one model of each kind. Its centroid is 0, so a distance is a length."""
    found, cells = {}, 2 * 4 * 4 * CHANNELS + 1
    for writer, width in WIDTHS.items():
        folder = tmp_path_factory.mktemp("model")
        saved.describe(folder, CLASSES, FORM)
        saved.complete(folder, 1.0, np.zeros((1, width + cells), np.float32))
        found[writer] = Kind(folder, writer(folder))
    return found


@pytest.fixture
def forest(kinds: dict[Callable, Kind], tmp_path: Path) -> Path:
    """Return the folder of a model that loads quickly, to be damaged."""
    return kinds[write_forest].copy(tmp_path)


@pytest.mark.parametrize("writer", WIDTHS)
def test_a_folder_answers_as_its_model_did(
    writer: Callable, kinds: dict[Callable, Kind], tmp_path: Path
) -> None:
    """Check single images and batches, with the temperature and the centroids."""
    raw = kinds[writer].expected
    model = saved.load(kinds[writer].folder)
    assert (model.classes, model.forms) == (CLASSES, (FORM,))
    probabilities = model.predict(PIXELS)
    assert probabilities.shape == (len(PIXELS), len(CLASSES)) and probabilities.dtype == np.float32
    assert np.abs(probabilities - raw).max() < 1e-5
    assert np.abs(model.predict(PIXELS[3:4]) - raw[3:4]).max() < 1e-5
    calibrated, distances = saved.load(kinds[writer].copy(tmp_path, fitted=3.0)).answer(PIXELS)
    assert np.abs(calibrated - temperature.apply(raw, 3.0)).max() < 1e-5
    assert calibrated.max(axis=1).mean() < raw.max(axis=1).mean() - 0.01
    parts = 1 if writer is write_forest else 2
    assert distances.shape == (len(PIXELS),) and distances.dtype == np.float32
    assert distances == pytest.approx(np.sqrt(parts), abs=1e-5)


def test_views_are_averaged_before_the_temperature(
    kinds: dict[Callable, Kind], tmp_path: Path
) -> None:
    plain, folder = (
        saved.load(kinds[write_features].folder),
        kinds[write_features].copy(tmp_path, fitted=3.0),
    )
    saved.describe(folder, CLASSES, FORM, ["mirrored"])
    probabilities, distances = saved.load(folder).answer(PIXELS)
    mean = (plain.predict(PIXELS) + plain.predict(PIXELS[:, :, ::-1])) / 2
    assert np.abs(probabilities - temperature.apply(mean, 3.0)).max() < 1e-5
    assert np.abs(distances - plain.answer(PIXELS)[1]).max() < 1e-6


@pytest.mark.parametrize(
    "form",
    [{"test_views": ["upside"]}, {"dark_border": "none"}, {}],
    ids=["views", "border", "older"],
)
def test_a_form_without_views_is_read_and_a_wrong_one_refused(form: dict, forest: Path) -> None:
    (forest / "input.json").write_text(
        json.dumps({"image_size": SIZE, "channels": CHANNELS} | form)
    )
    if not form:
        assert saved.load(forest).forms == (FORM,)
    else:
        with pytest.raises(
            UserError, match=r"input\.json: expected image_size and channels, .* train it again"
        ):
            saved.load(forest)


def test_the_distance_is_that_of_the_description(
    kinds: dict[Callable, Kind], tmp_path: Path
) -> None:
    """The first image is the centroid: its distance is 0 in any batch, and others are away."""
    folder = kinds[write_keras].copy(tmp_path)
    model = keras.saving.load_model(folder / "model.keras")
    places = np.array(
        keras.Model(model.input, ood.find_last_map(model).output)(PIXELS, training=False)
    )
    assert places.shape[1:] == (3, 2, 4)  # below the pooling, before it is flattened
    statistics = np.concatenate([places.mean(axis=(1, 2)), places.std(axis=(1, 2))], axis=1)
    descriptions = ood.describe(PIXELS, statistics)
    saved.complete(folder, 1.0, descriptions[:1])
    answer = saved.load(folder).answer
    distances = answer(PIXELS)[1]
    assert distances[0] < 1e-3 < 0.05 < distances[1:].min()
    assert np.abs(answer(PIXELS[:5])[1] - distances[:5]).max() < 1e-3
    assert distances[1:] == pytest.approx(
        np.linalg.norm(descriptions[1:] - descriptions[0], axis=1), abs=1e-4
    )


def test_mlflow_loads_it_from_code(
    kinds: dict[Callable, Kind], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predict PNG files, which keep the pixels, by a registered classifier on features."""
    folder, expected = kinds[write_features].folder, kinds[write_features].expected
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    mlflow.pyfunc.save_model(
        path=tmp_path / "pyfunc",
        python_model=str(ROOT / "tasks/registry/pyfunc.py"),
        artifacts={"model": str(folder)},
        code_paths=[str(ROOT / "tasks")],
        model_config={versions.SHA256: folder_sha256(folder)},
        pip_requirements=[],
    )
    answers = mlflow.pyfunc.load_model(str(tmp_path / "pyfunc")).predict(
        pd.DataFrame({"image": [png(p) for p in PIXELS]})
    )
    columns = [f"p_{label}" for label in CLASSES]
    assert np.abs(answers[columns].to_numpy(float) - expected).max() < 1e-5
    assert answers.predicted.tolist() == [CLASSES[index] for index in expected.argmax(axis=1)]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_description_gives_the_same_bytes(tmp_path: Path) -> None:
    saved.describe(tmp_path, CLASSES, FORM)
    assert json.loads((tmp_path / "classes.json").read_text()) == CLASSES
    assert json.loads((tmp_path / "input.json").read_text()) == {
        "image_size": [6, 5], "channels": 3, "dark_border": None, "detail": None, "test_views": [],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["classes.json", "input.json", "calibration.json", "familiar.npz"])
def test_a_missing_description_is_named(name: str, forest: Path) -> None:
    (forest / name).unlink()
    with pytest.raises(
        UserError, match=rf"{name}.*(is missing|no file).*train (it|the model) again"
    ):
        saved.load(forest)


def test_equal_knowledge_gives_equal_files_and_damage_is_named(forest: Path) -> None:
    file = forest / "familiar.npz"
    before = file.read_bytes()
    saved.complete(forest, 1.0, np.load(file)["usual"])
    assert file.read_bytes() == before
    file.write_bytes(before[:100])
    with pytest.raises(UserError, match=r"familiar\.npz is damaged .*train it again"):
        saved.load(forest)


def test_a_folder_without_a_model_says_what_is_expected(tmp_path: Path) -> None:
    saved.describe(tmp_path, CLASSES, FORM)
    with pytest.raises(
        UserError, match=r"contains no model: expected model\.keras or model\.skops"
    ):
        saved.load(tmp_path)


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (write_keras, r"takes pixels of shape \(6, 5, 3\), input\.json says \(6, 6, 3\)"),
        (write_forest, "takes 90 features, received 108"),
        (write_features, r"takes pixels of shape \(6, 5, 3\), input\.json says \(6, 6, 3\)"),
    ],
)
def test_classes_or_a_size_that_are_not_the_models_are_refused(
    writer: Callable, message: str, kinds: dict[Callable, Kind], tmp_path: Path
) -> None:
    folder = kinds[writer].copy(tmp_path)
    saved.describe(folder, [*CLASSES, "one more"], FORM)
    with pytest.raises(UserError, match=r"the model has 3 outputs, classes\.json has 4 classes"):
        saved.load(folder)
    saved.describe(folder, CLASSES, Form((6, 6), 3))
    with pytest.raises(UserError, match=message):
        saved.load(folder)


def test_pixels_of_another_shape_or_type_are_refused(forest: Path) -> None:
    model = saved.load(forest)
    for pixels in (PIXELS[:, :, :4], PIXELS.astype(np.float32) / 255):
        with pytest.raises(
            UserError, match=r"expected uint8 pixels of shape \(images, 6, 5, 3\), received"
        ):
            model.predict(pixels)


def test_the_bytes_of_arrays_are_those_of_each_python(tmp_path: Path) -> None:
    saved.write_npz(tmp_path / "a.npz", usual=np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.load(tmp_path / "a.npz")["usual"].tolist() == [[0, 1, 2], [3, 4, 5]]
    # Python 3.11.2 and 3.11.7 both gave this hash.
    expected = "f679ada889e368ce3a253a403d3872cf817ea1bc6a38ef92aef30552917e8bc4"
    assert file_sha256(tmp_path / "a.npz") == expected
