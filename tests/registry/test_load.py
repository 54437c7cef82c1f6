"""A model is found by each of its names, predicts the same from everywhere, or is refused."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks import register
from tasks.errors import UserError
from tasks.inference.predictor import Predictor, Thresholds
from tasks.registry import load
from tasks.tables import read_table
from tasks.tracking import runs
from tasks.tracking.hashes import folder_sha256
from tests.support.pipeline import CLASSES, enter

pytestmark = pytest.mark.slow


@pytest.fixture
def project(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the pipeline as the current folder, to be read only.

    Its winner is version 1 of `tiny`, champion and challenger.
    """
    enter(pipeline, monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    return pipeline


@pytest.fixture
def client(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return the registry of a copy of the pipeline, which a test may change."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    runs.open_store()
    return MlflowClient()


def winner() -> str:
    return json.loads(Path("data/comparison.json").read_text())["winner"]


def answers(predictor: Predictor) -> np.ndarray:
    files = [
        Path("data/clean") / path
        for path in read_table(Path("data/results") / winner() / "predictions.csv").path
    ]
    return np.array([list(answer.probabilities.values()) for answer in predictor.predict(files)])


@pytest.fixture
def folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the winner's folder that a test may spoil, in its own current folder."""
    shutil.copytree(project / "data/models" / winner(), tmp_path / "copy/models/copy")
    monkeypatch.chdir(tmp_path)
    return Path("copy/models/copy")


def test_every_way_loads_the_same_answers(project: Path) -> None:
    predictions = read_table(Path("data/results") / winner() / "predictions.csv")
    expected = predictions[[column for column in predictions if column.startswith("p_")]].to_numpy()
    champion, folder = load.load_predictor(), load.load_predictor(f"data/models/{winner()}")
    for predictor in (champion, folder):
        assert np.abs(answers(predictor) - expected).max() < 1e-5
    assert (champion.name, champion.facts["architecture"], champion.sha256) == (
        "tiny version 1",
        winner(),
        folder.sha256,
    )
    assert {
        load.find_version(model, name).version
        for model, name in (("challenger", None), ("1", None), ("champion", "tiny"))
    } == {1}


def test_a_folder_has_the_thresholds_of_its_results(folder: Path) -> None:
    (Path("copy/results/copy")).mkdir(parents=True)
    Path("copy/results/copy/thresholds.json").write_text('{"confidence": 0.25, "distance": null}')
    assert load.load_predictor(str(folder)).thresholds == Thresholds(0.25, None)


def test_without_a_champion_the_message_lists_the_versions(client: MlflowClient) -> None:
    client.delete_registered_model_alias("tiny", "champion")
    with pytest.raises(
        UserError,
        match=rf"(?s)no champion.*1  {winner()}, challenger, promoted: .*flows.promote --version N",
    ):
        load.load_predictor()


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("7", None, "tiny has no version 7\\n  its versions:\\n    1  "),
        ("tiny", None, "To use the folder, give its path: --model data/models/tiny"),
        (
            "champion",
            "heads",
            "there is no registered model heads; the registered models are: tiny",
        ),
        ("data/models/none", None, "data/models/none is not a folder: expected one that"),
    ],
)
def test_the_message_for_an_unknown_model_lists_the_known_ones(
    project: Path, model: str, name: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load.load_predictor(model, name)


def test_a_missing_registry_is_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(
        UserError, match="sqlite:///mlflow.db is missing, so there is no registry here"
    ):
        load.load_predictor("champion", "tiny")
    assert not list(tmp_path.iterdir())


def test_a_registered_model_that_cannot_be_trusted_is_refused(client: MlflowClient) -> None:
    """Version 2 is spoilt after its registration; version 3 has a Lambda layer."""
    spoilt, lambdas = Path("second/model"), Path("third/model")
    for folder in (spoilt, lambdas):
        shutil.copytree(Path("data/models") / winner(), folder)
    (spoilt / "summary.txt").write_text("other files than those of version 1\n")
    with_lambda(lambdas)
    register_again(spoilt)
    register_again(lambdas)
    (file,) = Path(mlflow.artifacts.download_artifacts("models:/tiny/2")).rglob("model.keras")
    assert load.load_predictor("2").classes == CLASSES
    spoil(file)
    digest = "[0-9a-f]{64}"
    expected = rf"changed since .* registered: expected the SHA-256 {digest}.*received {digest}"
    with pytest.raises(UserError, match=f"the files of version 2 of tiny have {expected}"):
        load.load_predictor("2")
    with pytest.raises(UserError, match=f"the files in .* have {expected}"):
        mlflow.pyfunc.load_model("models:/tiny/2")
    with pytest.raises(
        UserError, match="tiny version 3: .*Lambda layer, which runs code of its own"
    ):
        load.load_predictor("3")
    with pytest.raises(UserError, match="Lambda layer, which runs code of its own"):
        mlflow.pyfunc.load_model("models:/tiny/3")


def register_again(folder: Path) -> None:
    """Register a folder as another version, as the stage does."""
    seen = pd.DataFrame({"sha256": [], "hash": []})
    results, sha256 = Path("data/results") / winner(), folder_sha256(folder)
    register.create_version("tiny", register.Winner(winner(), folder, results, seen, sha256))


def spoil(file: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def pickled(folder: Path) -> None:
    (folder / "model.keras").write_bytes(pickle.dumps({"weights": [1, 2]}))


def with_lambda(folder: Path) -> None:
    inputs = keras.Input((16, 20, 1), dtype="uint8")
    outputs = keras.layers.Dense(4, activation="softmax")(
        keras.layers.Lambda(lambda pixels: pixels / 255)(keras.layers.Flatten()(inputs))
    )
    keras.Model(inputs, outputs).save(folder / "model.keras")


def with_foreign_layer(folder: Path) -> None:
    @keras.saving.register_keras_serializable("tests")
    class Foreign(keras.layers.Layer):
        def call(self, inputs: object) -> object:
            return inputs

    inputs = keras.Input((16, 20, 1), dtype="uint8")
    keras.Model(inputs, keras.layers.Dense(4)(Foreign()(keras.layers.Flatten()(inputs)))).save(
        folder / "model.keras"
    )
    keras.saving.get_custom_objects().pop("tests>Foreign")


def pickled_scikit(folder: Path) -> None:
    (folder / "model.keras").unlink()
    (folder / "model.skops").write_bytes(pickle.dumps({"weights": [1, 2]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: spoil(folder / "model.keras"),
            "model.keras is refused: .*received one that Keras cannot load .*Bad CRC-32",
        ),
        (
            pickled,
            r"model.keras is refused: .*received \d+ bytes that are not an archive and begin with "
            r"b'\\x80.*; train it again",
        ),
        (
            with_lambda,
            "model.keras is refused: .*received one with a Lambda layer, which runs code",
        ),
        (with_foreign_layer, "model.keras is refused: .*Could not locate class 'Foreign'"),
        (pickled_scikit, "model.skops is not a complete skops file"),
        (
            lambda folder: (folder / "classes.json").write_text('["a", "b"]'),
            "the model has 4 outputs, classes.json has 2 classes",
        ),
        (
            lambda folder: (folder / "classes.json").write_text('["a"'),
            "classes.json is damaged: expected JSON",
        ),
        (
            lambda folder: (folder / "input.json").write_text("{}"),
            "input.json: expected image_size and channels",
        ),
        (
            lambda folder: (folder / "calibration.json").write_text("{}"),
            'calibration.json: expected {"temperature": T}',
        ),
        (lambda folder: (folder / "familiar.npz").write_bytes(b"PK"), "familiar.npz is damaged"),
        (
            lambda folder: (folder / "model.keras").unlink(),
            "contains no model: expected model.keras or model.skops",
        ),
    ],
)
def test_a_folder_that_is_not_what_training_wrote_is_refused(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(UserError, match=rf"(?s)copy/models/copy.*{message}"):
        load.load_predictor(str(folder))


def test_without_feature_maps_there_are_no_heat_maps(folder: Path) -> None:
    inputs = keras.Input((16, 20, 1), dtype="uint8")
    keras.Model(
        inputs, keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(inputs))
    ).save(folder / "model.keras")
    with pytest.raises(UserError, match="a network without convolutions has none"):
        load.load_predictor(str(folder), explain=True)
