"""The stage writes the same bytes each time, also after a kill, and predicts by the saved model."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks import train as stage
from tasks.imaging.decode import decode
from tasks.modeling import backbones, classical, epoch_log, saved, temperature
from tasks.modeling.classical_training import compute_inputs
from tasks.modeling.images import Images
from tasks.modeling.layers import build_model
from tasks.params.architectures import Architecture, Backbone, Classical, Cnn, Phase, Transfer
from tasks.params.train import Train
from tasks.params.whole import load_params
from tasks.tables import read_table
from tasks.tracking.hashes import file_sha256
from tasks.tracking.runs import PREDICTIONS
from tests.support import toy_backbone
from tests.support.pipeline import CLASSES, run_stage

pytestmark = pytest.mark.slow

MODEL_FILES = (
    "model.keras",
    "classes.json",
    "input.json",
    "calibration.json",
    "familiar.npz",
    "summary.txt",
)
OUTPUTS = [
    *(f"models/tiny/{name}" for name in MODEL_FILES),
    "results/tiny/history.csv",
    "results/tiny/predictions.csv",
]


class Killed(BaseException):
    """What ends a training at once, as a signal does."""


def contents(root: Path) -> dict[str, bytes]:
    return {name: (root / "data" / name).read_bytes() for name in OUTPUTS}


def runs(root: Path) -> list:
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("image-classification")
    return client.search_runs([experiment.experiment_id], "params.architecture = 'tiny'")


def test_a_killed_stage_resumes_with_the_same_bytes_in_the_same_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, told = contents(workspace), []
    for name in OUTPUTS:
        (workspace / "data" / name).unlink()

    def tell(row: dict[str, float], epochs: int) -> None:
        told.append(row["epoch"])
        if told == [1]:
            raise Killed

    monkeypatch.setattr(epoch_log, "log_epoch", tell)
    with pytest.raises(Killed):
        run_stage("train@tiny")
    assert (workspace / ".cache/checkpoints/tiny.npz").exists()
    run_stage("train@tiny")
    assert told == [1, 2, 3]
    assert contents(workspace) == before
    assert not (workspace / ".cache/checkpoints/tiny.npz").exists()
    found = json.loads((workspace / ".cache/progress/train@tiny.json").read_text())
    assert (found["epoch"], found["epochs"], found["phase"]) == (3, 3, "predicting")
    assert (
        len(runs(workspace)) == 2
    )  # the one of the pipeline, and one for both parts of this training


def test_a_store_that_is_away_costs_no_training(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(workspace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run_stage("train@tiny")
    assert contents(workspace) == before


def test_predictions_are_those_of_the_saved_model(pipeline: Path) -> None:
    predictions = read_table(pipeline / "data/results/tiny/predictions.csv")
    classes = json.loads((pipeline / "data/models/tiny/classes.json").read_text())
    assert predictions.columns.tolist() == [
        "path",
        "label",
        "split",
        "predicted",
        "distance",
        *[f"p_{label}" for label in classes],
    ]
    pixels = np.stack(
        [decode(pipeline / "data/clean" / path, 1, (16, 20)) for path in predictions.path]
    )
    probabilities, distances = saved.load(pipeline / "data/models/tiny").answer(pixels)
    assert classes == CLASSES
    assert (
        np.abs(predictions[[f"p_{label}" for label in classes]].to_numpy() - probabilities).max()
        < 1e-5
    )
    assert np.abs(predictions.distance - distances).max() < 1e-5
    assert predictions.predicted.tolist() == [
        classes[index] for index in probabilities.argmax(axis=1)
    ]


def test_the_temperature_is_the_best_for_validation_and_changes_no_prediction(
    pipeline: Path,
) -> None:
    """Compare the table with the probabilities of the plain Keras model at that temperature."""
    predictions = read_table(pipeline / "data/results/tiny/predictions.csv")
    model = keras.saving.load_model(
        pipeline / "data/models/tiny/model.keras", safe_mode=True, compile=False
    )
    pixels = np.stack(
        [decode(pipeline / "data/clean" / path, 1, (16, 20)) for path in predictions.path]
    )
    raw = model.predict(pixels, verbose=0)
    fitted = json.loads((pipeline / "data/models/tiny/calibration.json").read_text())["temperature"]
    validation = (predictions.split == "validation").to_numpy()
    targets = predictions.label.map(CLASSES.index).to_numpy(int)
    assert fitted == pytest.approx(temperature.fit(raw[validation], targets[validation]), rel=1e-3)
    expected = temperature.apply(raw, fitted)
    assert (
        np.abs(predictions[[f"p_{label}" for label in CLASSES]].to_numpy() - expected).max() < 1e-5
    )
    assert predictions.predicted.tolist() == [CLASSES[index] for index in raw.argmax(axis=1)]


FROZEN = Transfer(backbone="MobileNet", options={"alpha": 0.5}, weights=None)
PHASE = Phase(trainable_from="conv_4", epochs=1, learning_rate=0.1, views=1)
FOREST = Classical(classifier="random_forest", trees=5)
STRUCTURES = {
    "perceptron": Cnn(filters=()),
    "frozen": FROZEN,
    "cut_below_the_map": FROZEN.model_copy(update={"phases": (PHASE,)}),
    "pixels": FOREST,
    "features": FOREST.model_copy(
        update={"features": Backbone(backbone="MobileNet", options={"alpha": 0.5}, weights=None)}
    ),
}


@pytest.fixture
def toy() -> Iterator[None]:
    """MobileNet is a small backbone here."""
    with toy_backbone.in_place_of_mobilenet():
        yield


@pytest.mark.parametrize("kind", STRUCTURES)
def test_what_is_written_of_a_model_is_what_its_folder_answers(
    kind: str,
    toy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cached features, cut networks and classifiers on features give the same predictions."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    structure, size, classes = STRUCTURES[kind], (32, 32), ["a", "b", "c"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (70, *size, 1), dtype=np.uint8) // rng.integers(
        1, 9, (70, 1, 1, 1), dtype=np.uint8
    )
    images = Images(
        pixels, np.arange(70), np.arange(70, dtype=np.int32) % 3, np.ones(70, np.float32)
    )
    splits = pd.DataFrame(
        {
            "path": "x",
            "label": "a",
            "split": ["training", "training", "validation", "test"] * 17 + ["test"] * 2,
        }
    )
    model, network = untrained(structure, size, images)
    section = Architecture(
        structure=structure, train=Train(image_size=size, channels=1, test_views=("mirrored",))
    )
    form = section.train.form
    saved.describe(Path("model"), classes, form, section.train.test_views)
    saved.save(model, network, Path("model"))
    data = stage.Data(images, splits, classes, form)
    for _ in range(2):
        table = stage.predict_all(Path("model"), section, data)
    assert (
        "is damaged" not in caplog.text
    )  # pooled features and statistics of one network lie apart in the cache
    probabilities, distances = saved.load(Path("model")).answer(pixels)
    assert (
        np.abs(table[[f"p_{label}" for label in classes]].to_numpy() - probabilities).max() < 1e-5
    )
    assert np.abs(table.distance - distances).max() < 1e-5 and table.distance.std() > 1e-3
    assert table.predicted.tolist() == [classes[index] for index in probabilities.argmax(axis=1)]


def untrained(
    structure: Cnn | Transfer | Classical, size: tuple[int, int], images: Images
) -> tuple:
    """Return an untrained network, or a fitted classifier with its network of features."""
    keras.utils.set_random_seed(0)
    if isinstance(structure, Cnn):
        return build_model(structure, (*size, 1), 3), None
    if isinstance(structure, Transfer):
        return backbones.build_transfer(structure, (*size, 1), 3), None
    network = (
        backbones.build_features(structure.features, structure.pooling, (*size, 1))
        if structure.features
        else None
    )
    inputs = compute_inputs(network, structure, images)[0]
    examples = classical.Examples(inputs, images.targets, images.weights)
    return classical.fit(structure, examples, 0, 1), network


def test_every_image_that_is_used_is_predicted_once(pipeline: Path) -> None:
    splits = read_table(pipeline / "data/splits.csv").query("split != 'withheld'")
    predictions = read_table(pipeline / "data/results/plain/predictions.csv")
    assert (
        predictions[["path", "label", "split"]].values.tolist()
        == splits[["path", "label", "split"]].values.tolist()
    )


def test_history_and_timing(pipeline: Path) -> None:
    history = read_table(pipeline / "data/results/tiny/history.csv")
    assert history.columns.tolist() == [
        "epoch",
        "accuracy",
        "loss",
        "val_accuracy",
        "val_loss",
        "learning_rate",
    ]
    assert history.epoch.tolist() == ["1", "2", "3"]
    (kept,) = (pipeline / "data/timing").glob("tiny_*.json")
    timing, size = (
        json.loads(kept.read_text()),
        json.loads((pipeline / "data/results/tiny/size.json").read_text()),
    )
    model = keras.saving.load_model(pipeline / "data/models/tiny/model.keras", compile=False)
    assert size == {"parameters": model.count_params()}
    assert len(timing["epoch_seconds"]) == 3
    assert timing["train_seconds"] == pytest.approx(sum(timing["epoch_seconds"]), abs=0.01)
    assert f"{model.count_params():,}" in (pipeline / "data/models/tiny/summary.txt").read_text()


def test_the_run_says_what_decided_the_result(pipeline: Path) -> None:
    (run,) = runs(pipeline)
    assert (
        run.data.params["train.epochs"] == "3" and run.data.params["structure.filters"] == "(4, 8)"
    )
    assert run.data.params["train.augmentation.rotation"] == "5.0"
    assert run.data.tags["data_sha256"] == file_sha256(pipeline / "data/splits.csv")
    assert run.data.tags[PREDICTIONS] == file_sha256(pipeline / "data/results/tiny/predictions.csv")
    client = MlflowClient(f"sqlite:///{pipeline}/mlflow.db")
    points = client.get_metric_history(run.info.run_id, "epoch/val_loss")
    assert [point.step for point in points] == [1, 2, 3]
    assert (
        run.data.metrics["train_seconds"] > 0 and run.data.metrics["predict_seconds_per_image"] > 0
    )


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """Saved at two times by two objects; without the dates and addresses in them they are one."""
    files = []
    for name in ("a", "b"):
        keras.utils.set_random_seed(1)
        keras.backend.clear_session()
        layer = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
        inputs = keras.Input((2,))
        model = keras.Model(inputs, layer(inputs))
        model.save(tmp_path / f"{name}.keras")
        saved.normalise_archive(tmp_path / f"{name}.keras")
        files.append((tmp_path / f"{name}.keras").read_bytes())
    assert files[0] == files[1]
    assert zipfile.ZipFile(tmp_path / "a.keras").testzip() is None
    loaded = keras.saving.load_model(tmp_path / "a.keras", safe_mode=True)
    assert all(
        np.array_equal(one, other)
        for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True)
    )


def test_a_checkpoint_is_keyed_by_all_that_decides_the_result(workspace: Path) -> None:
    splits, weights = Path("data/splits.csv"), Path("data/class_weights/tiny.json")

    def key(name: str) -> str:
        return stage.checkpoint_key(load_params().architectures[name], splits, weights)

    keys = [key("tiny"), key("plain")]
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("rotation: 5", "rotation: 6"))
    keys.append(key("tiny"))
    Path("params.yaml").write_text(params)
    assert key("tiny") == keys[0]
    for file in (splits, weights):
        file.write_text(file.read_text() + " ")
        keys.append(key("tiny"))
    assert len(set(keys)) == 5
