"""A model's folder answers as the model that was trained, whatever its kind, by itself and as MLflow loads it."""

import io
import json
import sys
from collections.abc import Callable
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
from tasks.modeling.layers import build_model
from tasks.modeling.training import Images
from tasks.modeling.training import predict as training_predict
from tasks.params.architectures import Classical, Cnn
from tasks.params.model_input import Form
from tasks.registry import versions
from tasks.tracking.hashes import folder_sha256
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
    model = build_model(Cnn(filters=(4,), dense=(8,)), SIZE, CHANNELS, len(CLASSES))
    model.save(folder / "model.keras")
    return training_predict(model, Images(PIXELS, np.arange(len(PIXELS)), TARGETS, ONES))


def write_forest(folder: Path) -> np.ndarray:
    features = PIXELS.reshape(len(PIXELS), -1).astype(np.float32) / 255
    estimator = classical.fit(Classical(classifier="random_forest", trees=5), features, TARGETS, ONES, 0, 1)
    classical.save(estimator, folder / "model.skops")
    return classical.probabilities(estimator, features)


def write_features(folder: Path) -> np.ndarray:
    inputs = keras.Input((*SIZE, CHANNELS), dtype="uint8")
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(7, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    extractor = keras.Model(inputs, outputs)
    extractor.save(folder / "features.keras")
    features = extractor.predict(PIXELS, verbose=0)
    estimator = classical.fit(Classical(classifier="logistic_regression"), features, TARGETS, ONES, 0, 1)
    classical.save(estimator, folder / "model.skops")
    return classical.probabilities(estimator, features)


WRITERS = [write_keras, write_forest, write_features]
WIDTHS = {write_keras: 8, write_forest: 0, write_features: 14}  # statistics of the last feature map: twice its channels


def write(folder: Path, writer: Callable[[Path], np.ndarray], classes: list[str] = CLASSES, degrees: float = 1.0) -> np.ndarray:
    """Write a model to which the zero description is usual, so that the distance is the length of the description."""
    folder.mkdir()
    saved.describe(folder, classes, FORM)
    cells = 2 * 4 * 4 * CHANNELS + 1
    saved.complete(folder, degrees, np.zeros((1, WIDTHS[writer] + cells), np.float32))
    return writer(folder)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_predicts_as_its_model_did(writer: Callable, tmp_path: Path) -> None:
    expected = write(tmp_path / "model", writer)
    model = saved.load(tmp_path / "model")
    assert (model.classes, model.forms) == (CLASSES, (FORM,))
    probabilities = model.predict(PIXELS)
    assert probabilities.shape == (len(PIXELS), len(CLASSES)) and probabilities.dtype == np.float32
    assert np.abs(probabilities - expected).max() < 1e-5
    assert np.abs(model.predict(PIXELS[3:4]) - expected[3:4]).max() < 1e-5


@pytest.mark.parametrize("writer", WRITERS)
def test_the_temperature_and_what_is_usual_are_applied(writer: Callable, tmp_path: Path) -> None:
    raw = write(tmp_path / "model", writer, degrees=3.0)
    probabilities, distances = saved.load(tmp_path / "model").answer(PIXELS)
    assert np.abs(probabilities - temperature.apply(raw, 3.0)).max() < 1e-5
    assert probabilities.max(axis=1).mean() < raw.max(axis=1).mean() - 0.01
    parts = 1 if writer is write_forest else 2
    assert distances.shape == (len(PIXELS),) and distances.dtype == np.float32
    assert distances == pytest.approx(np.sqrt(parts), abs=1e-5)


@pytest.mark.parametrize("writer", WRITERS)
def test_views_are_averaged_before_the_temperature(writer: Callable, tmp_path: Path) -> None:
    write(tmp_path / "model", writer, degrees=1.0)
    plain = saved.load(tmp_path / "model")
    saved.describe(tmp_path / "model", CLASSES, FORM, ["mirrored"])
    saved.complete(tmp_path / "model", 3.0, np.load(tmp_path / "model/familiar.npz")["usual"])
    probabilities, distances = saved.load(tmp_path / "model").answer(PIXELS)
    mean = (plain.predict(PIXELS) + plain.predict(PIXELS[:, :, ::-1])) / 2
    assert np.abs(probabilities - temperature.apply(mean, 3.0)).max() < 1e-5
    assert np.abs(distances - plain.answer(PIXELS)[1]).max() < 1e-6


@pytest.mark.parametrize(
    ("form", "message"),
    [({"test_views": ["upside"]}, "unknown views"), ({"dark_border": "none"}, "expected image_size"), ({}, None)],
)
def test_a_form_without_views_is_read_and_a_wrong_one_refused(form: dict, message: str | None, tmp_path: Path) -> None:
    write(tmp_path / "model", write_forest)
    (tmp_path / "model/input.json").write_text(json.dumps({"image_size": SIZE, "channels": CHANNELS} | form))
    if message is None:
        assert saved.load(tmp_path / "model").forms == (FORM,)
    else:
        with pytest.raises(UserError, match=r"input\.json: expected image_size"):
            saved.load(tmp_path / "model")


def test_the_distance_is_that_of_the_description(tmp_path: Path) -> None:
    """Usual is the first image: it is no distance away, in whatever company, and all others are."""
    write(tmp_path / "model", write_keras)
    model = keras.saving.load_model(tmp_path / "model/model.keras")
    places = keras.Model(model.input, ood.last_map(model).output).predict(PIXELS, verbose=0)
    assert places.shape[1:] == (3, 2, 4)  # below the pooling, before it is flattened
    statistics = np.concatenate([places.mean(axis=(1, 2)), places.std(axis=(1, 2))], axis=1)
    descriptions = ood.describe(PIXELS, statistics)
    saved.complete(tmp_path / "model", 1.0, descriptions[:1])
    answer = saved.load(tmp_path / "model").answer
    distances = answer(PIXELS)[1]
    assert distances[0] < 1e-3 < 0.05 < distances[1:].min()
    assert np.abs(answer(PIXELS[:5])[1] - distances[:5]).max() < 1e-3
    assert distances[1:] == pytest.approx(np.linalg.norm(descriptions[1:] - descriptions[0], axis=1), abs=1e-4)


@pytest.mark.parametrize("writer", WRITERS)
def test_mlflow_loads_it_from_code(writer: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image files in, as they are registered; PNG keeps the pixels, and the size is the model's."""
    expected = write(tmp_path / "model", writer)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    mlflow.pyfunc.save_model(
        path=tmp_path / "pyfunc",
        python_model=str(ROOT / "tasks/registry/pyfunc.py"),
        artifacts={"model": str(tmp_path / "model")},
        code_paths=[str(ROOT / "serving"), str(ROOT / "tasks")],
        model_config={versions.SHA256: folder_sha256(tmp_path / "model")},
        pip_requirements=[],
    )
    answers = mlflow.pyfunc.load_model(str(tmp_path / "pyfunc")).predict(pd.DataFrame({"image": [png(p) for p in PIXELS]}))
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
def test_a_missing_description_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path / "model", write_forest)
    (tmp_path / "model" / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing.*train it again"):
        saved.load(tmp_path / "model")


def test_equal_knowledge_gives_equal_files_and_damage_is_named(tmp_path: Path) -> None:
    write(tmp_path / "model", write_forest)
    file = tmp_path / "model/familiar.npz"
    before = file.read_bytes()
    saved.complete(tmp_path / "model", 1.0, np.zeros((1, 97), np.float32))
    assert file.read_bytes() == before
    file.write_bytes(before[:100])
    with pytest.raises(UserError, match=r"familiar\.npz is damaged .*train it again"):
        saved.load(tmp_path / "model")


def test_a_folder_without_a_model_says_what_is_expected(tmp_path: Path) -> None:
    saved.describe(tmp_path, CLASSES, FORM)
    with pytest.raises(UserError, match=r"holds no model: expected model\.keras or model\.skops"):
        saved.load(tmp_path)


@pytest.mark.parametrize("writer", WRITERS)
def test_classes_that_are_not_the_models_are_refused(writer: Callable, tmp_path: Path) -> None:
    write(tmp_path / "model", writer, classes=[*CLASSES, "one more"])
    with pytest.raises(UserError, match=r"the model has 3 outputs, classes\.json has 4 classes"):
        saved.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (write_keras, r"takes pixels of shape \(6, 5, 3\), input\.json says \(6, 6, 3\)"),
        (write_forest, "takes 90 features, received 108"),
        (write_features, r"takes pixels of shape \(6, 5, 3\), input\.json says \(6, 6, 3\)"),
    ],
)
def test_another_size_than_the_models_is_refused(writer: Callable, message: str, tmp_path: Path) -> None:
    write(tmp_path / "model", writer)
    saved.describe(tmp_path / "model", CLASSES, Form((6, 6), 3))
    with pytest.raises(UserError, match=message):
        saved.load(tmp_path / "model")


def test_pixels_of_another_shape_or_type_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "model", write_forest)
    model = saved.load(tmp_path / "model")
    for pixels in (PIXELS[:, :, :4], PIXELS.astype(np.float32) / 255):
        with pytest.raises(UserError, match=r"expected uint8 pixels of shape \(images, 6, 5, 3\), received"):
            model.predict(pixels)
