"""Fit one architecture: `data/models/<architecture>`, and its history and predictions in `data/results/<architecture>`.

Training images train, validation images choose the epoch, test images are predicted once, at the end, by the saved
model. Killed, it resumes at the epoch; finished, it gives the same bytes again. Fails when the loss diverges.
Run by hand: `dvc repro --single-item train@cnn_a`.
"""

import hashlib
import json
import logging
import re
import zipfile
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd

from tasks import tracking
from tasks.command import run
from tasks.imaging.arrays import load_pixels
from tasks.modeling import saved
from tasks.modeling.layers import build_model
from tasks.modeling.training import Images, fit, predict, use_threads
from tasks.params import Architecture, load_params
from tasks.tables import read_table, write_table

CHECKPOINTS = Path(".cache/checkpoints")

log = logging.getLogger(__name__)


def main(architecture: str, clean: Path, splits_csv: Path, weights_json: Path, models: Path, results: Path) -> None:
    """Train `architecture` and write its model, history, predictions and timing."""
    params = load_params()
    section = params.architectures[architecture]
    splits = read_table(splits_csv).query("split != 'withheld'").reset_index(drop=True)
    weights = json.loads(weights_json.read_text())
    images = load_images(clean, splits, weights, section)
    checkpoint = CHECKPOINTS / f"{architecture}.npz"
    key = checkpoint_key(section, splits_csv, weights_json)
    use_threads(section.train.threads)
    with start_run(architecture, section, splits_csv, key):
        model, history = train(section, images, splits, checkpoint, key)
        save(model, list(weights), models)
        predictions = predict_all(models / "model.keras", images, splits, list(weights))
        write_results(history, predictions, model.count_params(), results)
        mlflow.set_tag(tracking.PREDICTIONS, tracking.file_sha256(results / "predictions.csv"))
        mlflow.log_artifact(str(models / "summary.txt"))
    checkpoint.unlink(missing_ok=True)


def load_images(clean: Path, splits: pd.DataFrame, weights: dict[str, float], section: Architecture) -> Images:
    """Return all images of `splits`, decoded once for every architecture of this size."""
    pixels = load_pixels(clean, splits.path, splits.sha256, section.train.image_size, section.train.channels)
    classes = list(weights)
    return Images(
        pixels=pixels,
        rows=np.arange(len(splits)),
        targets=splits.label.map(classes.index).to_numpy(np.int32),
        weights=splits.label.map(weights).to_numpy(np.float32),
    )


def train(
    section: Architecture, images: Images, splits: pd.DataFrame, checkpoint: Path, key: str
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Return the plain model at its best epoch, and the history."""
    settings = section.train
    keras.utils.set_random_seed(settings.seed)
    classes = splits.label.nunique()
    model = build_model(section.structure, settings.image_size, settings.channels, classes, fused=True)
    training, validation = (select(images, splits.split == part) for part in ("training", "validation"))
    log.info(
        "%s parameters, %d training and %d validation images", f"{model.count_params():,}", len(training.rows), len(validation.rows)
    )
    history = fit(model, training, validation, settings, checkpoint, key, lambda row: tell(row, settings.epochs))
    plain = build_model(section.structure, settings.image_size, settings.channels, classes)
    plain.set_weights(model.get_weights())
    return plain, history


def select(images: Images, chosen: pd.Series) -> Images:
    """Return the chosen rows of `images`."""
    rows = np.flatnonzero(chosen)
    return Images(images.pixels, rows, images.targets[rows], images.weights[rows])


def tell(row: dict[str, float], epochs: int) -> None:
    """Log one epoch to the terminal and to MLflow."""
    left = (epochs - row["epoch"]) * row["seconds"]
    log.info(
        "epoch %2d/%d  loss %.4f  accuracy %.3f  val_loss %.4f  val_accuracy %.3f  rate %.2g  %.1f s, at most %s left",
        row["epoch"], epochs, row["loss"], row["accuracy"], row["val_loss"], row["val_accuracy"], row["learning_rate"],
        row["seconds"], f"{left / 60:.1f} min" if left >= 60 else f"{left:.0f} s",
    )  # fmt: skip
    metrics = {name: value for name, value in row.items() if name != "epoch"}
    tracking.attempt(lambda: mlflow.log_metrics(metrics, step=int(row["epoch"])))


def save(model: keras.Model, classes: list[str], models: Path) -> None:
    """Write the model, its description, and its summary; the same model gives the same bytes."""
    models.mkdir(parents=True, exist_ok=True)
    model.save(models / "model.keras")
    normalise_archive(models / "model.keras")
    saved.describe(models, classes, model.input_shape[1:3], model.input_shape[3])
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append)
    (models / "summary.txt").write_text("\n".join(lines) + "\n")


def normalise_archive(path: Path) -> None:
    """Rewrite a `.keras` file so that equal models are equal files: no date, no times, objects numbered in order."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(part, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"date_saved": ""}).encode()
            elif name == "config.json":
                content = number_objects(content.decode()).encode()
            target.writestr(zipfile.ZipInfo(name), content)
    part.replace(path)


def number_objects(config: str) -> str:
    """Replace the ids of shared objects, which are addresses in memory, by 1, 2, 3 in order of appearance."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'("shared_object_id": )(\d+)', lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers) + 1)}", config
    )


def predict_all(model_file: Path, images: Images, splits: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return path, label, split, predicted and a probability per class, by the model as it was saved."""
    model = keras.saving.load_model(model_file, safe_mode=True, compile=False)
    probabilities = predict(model, images)
    predicted = [classes[index] for index in probabilities.argmax(axis=1)]
    columns = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in classes])
    return pd.concat([splits[["path", "label", "split"]], pd.Series(predicted, name="predicted"), columns], axis=1)


def write_results(history: list[dict[str, float]], predictions: pd.DataFrame, parameters: int, results: Path) -> None:
    """Write what is equal from run to run, and apart from it the times, which are not."""
    rows = pd.DataFrame(history)
    write_table(rows.drop(columns="seconds"), results / "history.csv")
    write_table(predictions, results / "predictions.csv")
    seconds = [round(second, 2) for second in rows.seconds]
    timing = {"parameters": parameters, "train_seconds": round(sum(seconds), 2), "epoch_seconds": seconds}
    (results / "timing.json").write_text(json.dumps(timing, indent=2) + "\n")


def start_run(architecture: str, section: Architecture, splits_csv: Path, key: str) -> mlflow.ActiveRun:
    """Open the MLflow run, with everything that decides the result; a training that was killed goes on in its own."""
    experiment_id = tracking.open_store()
    unfinished = tracking.find_unfinished_run(experiment_id, key)
    if unfinished is not None:
        return mlflow.start_run(run_id=unfinished.info.run_id)
    started = mlflow.start_run(experiment_id=experiment_id, run_name=architecture, tags={tracking.TRAINING: key})
    mlflow.set_tags({"git_revision": tracking.git_revision(), "data_sha256": tracking.file_sha256(splits_csv)})
    mlflow.log_params({"architecture": architecture, **flatten(section.model_dump())})
    return started


def flatten(section: dict, prefix: str = "") -> dict[str, object]:
    """Return nested keys joined by dots."""
    flat: dict[str, object] = {}
    for name, value in section.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def checkpoint_key(section: Architecture, splits_csv: Path, weights_json: Path) -> str:
    """Return what a checkpoint must agree on to be resumed."""
    parts = [section.model_dump_json(), tracking.file_sha256(splits_csv), tracking.file_sha256(weights_json), keras.__version__]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    run(main)
