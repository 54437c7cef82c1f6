"""Which model is meant, that it answers alike wherever it is loaded from, and that what is not to be trusted is refused."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from tasks.errors import UserError
from tasks.inference.predictor import Predictor, Thresholds
from tasks.registry import load, versions
from tasks.tables import read_table
from tasks.tracking import runs
from tasks.tracking.hashes import folder_sha256
from tests.support.pipeline import CLASSES, run_stage


@pytest.fixture
def client(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The registry of `workspace`, in which the winner of the pipeline is version 1, champion and challenger."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    runs.open_store()
    return MlflowClient()


def winner() -> str:
    return json.loads(Path("data/comparison.json").read_text())["winner"]


def answers(predictor: Predictor) -> np.ndarray:
    files = [Path("data/clean") / path for path in read_table(Path("data/results") / winner() / "predictions.csv").path]
    return np.array([list(answer.probabilities.values()) for answer in predictor.predict(files)])


@pytest.fixture
def folder(workspace: Path) -> Path:
    """A copy of the winner's folder, to be spoilt."""
    return Path(shutil.copytree(Path("data/models") / winner(), "copy/models/copy"))


def test_every_way_loads_the_same_answers(client: MlflowClient) -> None:
    predictions = read_table(Path("data/results") / winner() / "predictions.csv")
    expected = predictions[[column for column in predictions if column.startswith("p_")]].to_numpy()
    for model in ("champion", "challenger", "1", f"data/models/{winner()}"):
        assert np.abs(answers(load.load_predictor(model)) - expected).max() < 1e-5
    assert load.load_predictor().name == "tiny version 1" and load.load_predictor().facts["architecture"] == winner()
    assert load.load_predictor("champion", "tiny").sha256 == load.load_predictor(f"data/models/{winner()}").sha256


def test_a_folder_has_the_thresholds_of_its_results(folder: Path) -> None:
    (Path("copy/results/copy")).mkdir(parents=True)
    Path("copy/results/copy/thresholds.json").write_text('{"confidence": 0.25, "distance": null}')
    assert load.load_predictor(str(folder)).thresholds == Thresholds(0.25, None)


def test_no_champion_tells_the_versions(client: MlflowClient) -> None:
    client.delete_registered_model_alias("tiny", "champion")
    with pytest.raises(
        ValueError, match=rf"(?s)tiny has no champion.*1  {winner()}, challenger, promoted: .*flows.promote --version N"
    ):
        load.load_predictor()


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("7", None, "tiny has no version 7\\n  its versions:\\n    1  "),
        ("tiny", None, "A folder is named by its path: --model data/models/tiny"),
        ("best", None, "tiny has no best\\n  its versions:\\n    1  "),
        ("champion", "heads", "there is no registered model heads; known are: tiny"),
        ("data/models/none", None, "data/models/none is no folder: expected what training wrote"),
    ],
)
def test_an_unknown_model_tells_the_known_ones(client: MlflowClient, model: str, name: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load.load_predictor(model, name)


def test_a_missing_registry_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(UserError, match="sqlite:///mlflow.db is missing, so there is no registry here"):
        load.load_predictor("champion", "tiny")
    assert not list(tmp_path.iterdir())


def test_a_version_of_which_one_byte_changed_is_refused(client: MlflowClient) -> None:
    (Path("data/models") / winner() / "summary.txt").write_text("another version, since the files of the first are not ours alone")
    run_stage("register")
    (file,) = Path(mlflow.artifacts.download_artifacts("models:/tiny/2")).rglob("model.keras")
    assert load.load_predictor("2").classes == CLASSES
    spoil(file)
    digest, told = "[0-9a-f]{64}", "is not what was registered"
    with pytest.raises(UserError, match=rf"version 2 of tiny {told}: .*SHA-256 {digest}, its tag .* says {digest}"):
        load.load_predictor("2")
    with pytest.raises(UserError, match=rf"{told}: expected files of the SHA-256 {digest}, received {digest}"):
        mlflow.pyfunc.load_model("models:/tiny/2")


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
    keras.Model(inputs, keras.layers.Dense(4)(Foreign()(keras.layers.Flatten()(inputs)))).save(folder / "model.keras")
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
            r"model.keras is refused: .*received \d+ bytes that begin with b'\\x80.* and are no such archive; train it again",
        ),
        (with_lambda, "model.keras is refused: .*received one with a Lambda layer, which runs code of its own"),
        (with_foreign_layer, "model.keras is refused: .*Could not locate class 'Foreign'"),
        (pickled_scikit, "model.skops is no whole skops file"),
        (lambda folder: (folder / "classes.json").write_text('["a", "b"]'), "the model has 4 outputs, classes.json has 2 classes"),
        (lambda folder: (folder / "classes.json").write_text('["a"'), "classes.json is damaged: expected JSON"),
        (lambda folder: (folder / "input.json").write_text("{}"), "input.json: expected image_size and channels"),
        (lambda folder: (folder / "calibration.json").write_text("{}"), "calibration.json: expected a temperature"),
        (lambda folder: (folder / "familiar.npz").write_bytes(b"PK"), "familiar.npz is damaged"),
        (lambda folder: (folder / "model.keras").unlink(), "holds no model: expected model.keras or model.skops"),
    ],
)
def test_a_folder_that_is_not_what_training_wrote_is_refused(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=rf"(?s)copy/models/copy.*{message}"):
        load.load_predictor(str(folder))


def test_a_registered_model_with_a_lambda_is_refused(client: MlflowClient, folder: Path, tmp_path: Path) -> None:
    """Its hash is right: it was registered so."""
    with_lambda(folder)
    with mlflow.start_run(experiment_id=runs.open_store()):
        logged = mlflow.pyfunc.log_model(
            name="model", python_model="tasks/registry/pyfunc.py", artifacts={"model": str(folder)}, pip_requirements=["mlflow"],
            code_paths=["serving", "tasks"], model_config={versions.SHA256: folder_sha256(folder)},
        )  # fmt: skip
    mlflow.register_model(logged.model_uri, "tiny", tags={versions.SHA256: folder_sha256(folder)})
    with pytest.raises(UserError, match="tiny version 2: .*Lambda layer, which runs code of its own"):
        load.load_predictor("2")
    with pytest.raises(UserError, match="Lambda layer, which runs code of its own"):
        mlflow.pyfunc.load_model("models:/tiny/2")


def test_where_there_are_no_feature_maps_nothing_is_explained(folder: Path) -> None:
    inputs = keras.Input((16, 20, 1), dtype="uint8")
    keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(inputs))).save(folder / "model.keras")
    with pytest.raises(UserError, match="a network without convolutions has none"):
        load.load_predictor(str(folder), explain=True)
