"""Fit one architecture: `data/models/<architecture>`, and its history and predictions in `data/results/<architecture>`.

Training images train, validation images choose the epoch, unless params keep the last, and the temperature of the
probabilities; test images are predicted once, at the end, by the saved model. Each image's distance from the training images
stands with it. Killed, it resumes at the epoch; finished, it gives the same bytes again. Fails when the loss diverges.
Run by hand: `dvc repro --single-item train@cnn_a`.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from PIL import Image

from tasks.errors import UserError
from tasks.imaging import samples
from tasks.imaging.bit_depth import read_bit_depth
from tasks.modeling import classical, features, saved, temperature, transfer
from tasks.modeling import out_of_distribution as ood
from tasks.modeling import test_time_augmentation as tta
from tasks.modeling.fitting import CHECKPOINTS, Fitted, classical_inputs, load_images, train
from tasks.modeling.training import Images, predict, use_threads
from tasks.params.architectures import Architecture, Classical, Cnn, Transfer, read_architecture
from tasks.results import HISTORY_CSV, PREDICTIONS_CSV, SIZE_JSON, write_timing
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.hashes import file_sha256, git_revision
from tasks.tracking.store import check_writable

log = logging.getLogger(__name__)


def main(
    architecture: str,
    clean: Path,
    splits_csv: Path,
    class_weights: Path,
    decoding_json: Path,
    models: Path,
    results: Path,
) -> None:
    """Train `architecture` and write its model, history, predictions, size, and beside DVC its times."""
    section = read_architecture(architecture)
    splits = read_table(splits_csv).query("split != 'withheld'").reset_index(drop=True)
    weights = json.loads(class_weights.read_text())
    classes = list(weights)
    splits = splits.assign(label=splits.label.map(section.question.answers(splits.label)))
    bits = read_bit_depth(decoding_json)
    form = replace(section.train.form, bits=bits)
    images = load_images(clean, splits, weights, form)
    key = checkpoint_key(section, splits_csv, class_weights, bits)
    use_threads(section.train.threads)
    with runs.record_run(lambda: start_run(architecture, section, splits_csv, key)):
        try:
            fitted = train(section, images, splits, CHECKPOINTS / f"{architecture}.npz", key)
        except UserError as error:
            raise UserError(f"{architecture}: {error}") from error
        summary = saved.save(
            fitted.model, fitted.features, classes, form, section.train.test_views, models
        )
        (models / "summary.txt").write_text(summary + "\n")
        predictions = predict_all(models, section, images, splits, classes)
        write_results(fitted, predictions, results)
        keep_times(fitted, seconds_per_answer(models, images.pixels), results)
        runs.record(
            lambda: mlflow.set_tag(runs.PREDICTIONS, file_sha256(results / PREDICTIONS_CSV)),
            live=True,
        )
        runs.record(lambda: mlflow.log_artifact(str(models / "summary.txt")), live=True)
        draw_samples(section, images, splits).save(results / "samples.jpg", quality=samples.QUALITY)
        log_layers(fitted)
    for file in CHECKPOINTS.glob(f"{architecture}.*"):
        file.unlink()


def predict_all(
    models: Path, section: Architecture, images: Images, splits: pd.DataFrame, classes: list[str]
) -> pd.DataFrame:
    """Return path, label, split, predicted, distance and a probability per class, by the model as it was saved.

    Completes the saved model by its temperature, from validation images, and by what is usual of training images.
    """
    raw, statistics = tta.averaged(
        lambda pixels: answers(models, section.structure, replace(images, pixels=pixels)),
        images.pixels,
        section.train.test_views,
    )
    training, validation = (
        np.flatnonzero(splits.split == part) for part in ("training", "validation")
    )
    degrees = temperature.fit(raw[validation], images.targets[validation])
    log.info(
        "temperature %.3g: %s",
        degrees,
        "the model was too sure" if degrees > 1 else "the model was too modest",
    )
    descriptions = ood.describe(images.pixels, statistics)
    usual = ood.centres(descriptions[training], images.targets[training])
    saved.complete(models, degrees, usual)
    predicted = [classes[index] for index in raw.argmax(axis=1)]
    told = splits[["path", "label", "split"]].assign(
        predicted=predicted, distance=ood.distances(descriptions, usual)
    )
    columns = pd.DataFrame(
        temperature.apply(raw, degrees), columns=[f"p_{label}" for label in classes]
    )
    return pd.concat([told, columns], axis=1)


def answers(
    models: Path, structure: Cnn | Transfer | Classical, images: Images
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return probabilities (images, classes) by the saved model alone, and the statistics of its last feature map, if any.

    Features that are cached are not computed again; the cache is keyed by the weights in the file, so these are the file's
    own answers. Where a cut lies above the last feature map, its statistics cost one more pass, once for each backbone.
    """
    if isinstance(structure, Classical):
        network = saved.load_keras(models / "features.keras") if structure.features else None
        inputs, statistics = classical_inputs(network, structure, images)
        return classical.probabilities(classical.load(models / "model.skops"), inputs), statistics
    model = saved.load_keras(models / "model.keras")
    parts = transfer.cut_where_cached(model, structure) if isinstance(structure, Transfer) else None
    if parts is None:
        return predict(ood.answering(model), images)
    below, above = parts
    inputs = replace(images, pixels=features.plain(below, structure, images))
    if ood.last_map(model) in above.layers:
        return predict(ood.answering(model, below.output), inputs)
    return predict(above, inputs), features.plain(ood.reading(model), structure, images)


def seconds_per_answer(models: Path, pixels: np.ndarray) -> float:
    """Return how long the saved model takes for one image that comes alone: the median of ten, after one to warm up."""
    predict_one = saved.load(models).predict
    seconds = []
    for row in range(min(len(pixels), 11)):
        start = time.perf_counter()
        predict_one(pixels[row : row + 1])
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def write_results(fitted: Fitted, predictions: pd.DataFrame, results: Path) -> None:
    """Write what is equal from run to run."""
    write_table(pd.DataFrame(fitted.history).drop(columns="seconds"), results / HISTORY_CSV)
    write_table(predictions, results / PREDICTIONS_CSV)
    (results / SIZE_JSON).write_text(json.dumps({"parameters": fitted.parameters}, indent=2) + "\n")


def keep_times(fitted: Fitted, answer_seconds: float, results: Path) -> None:
    """Keep how long this training took, beside DVC and in MLflow."""
    seconds = [round(row["seconds"], 2) for row in fitted.history]
    timing = {
        "train_seconds": round(sum(seconds) + fitted.feature_seconds, 2),
        "feature_seconds": round(
            fitted.feature_seconds, 2
        ),  # next to nothing where they were cached
        "epoch_seconds": seconds,
        "predict_seconds_per_image": float(f"{answer_seconds:.3g}"),
    }
    write_timing(timing, results)
    del timing["epoch_seconds"]  # each epoch told its own
    runs.record(lambda: mlflow.log_metrics(timing), live=True)


def draw_samples(section: Architecture, images: Images, splits: pd.DataFrame) -> Image.Image:
    """Draw sixteen training images as the model gets to see them. What may be shown of it, the report decides."""
    changes = None if isinstance(section.structure, Classical) else section.train.augmentation
    first = np.flatnonzero(splits.split == "training")[: samples.COUNT]
    return samples.draw_samples(images.pixels[first], changes, section.train.seed)


def log_layers(fitted: Fitted) -> None:
    """Log a picture of the network's layers where Graphviz is there to draw it."""
    network = fitted.model if isinstance(fitted.model, keras.Model) else fitted.features
    if network is None:
        return
    if shutil.which("dot") is None:
        log.info(
            "the picture of the layers is left out: it needs Graphviz (apt install graphviz, brew install graphviz)"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "layers.png")
        keras.utils.plot_model(network, picture, show_shapes=True)
        runs.record(lambda: mlflow.log_artifact(str(picture)), live=True)


def start_run(
    architecture: str, section: Architecture, splits_csv: Path, key: str
) -> mlflow.ActiveRun:
    """Open the MLflow run, with everything that decides the result; a training that was killed goes on in its own."""
    experiment_id = runs.open_store()
    check_writable(mlflow.get_tracking_uri(), mlflow.get_experiment(experiment_id).artifact_location)
    unfinished = runs.find_unfinished_run(experiment_id, key)
    if unfinished is not None:
        return mlflow.start_run(run_id=unfinished.info.run_id)
    started = mlflow.start_run(
        experiment_id=experiment_id, run_name=architecture, tags={runs.TRAINING: key}
    )
    mlflow.set_tags({"git_revision": git_revision(), "data_sha256": file_sha256(splits_csv)})
    for file in section.weights_files:
        mlflow.set_tag("weights_sha256", file_sha256(file))
    mlflow.log_params({"architecture": architecture, **runs.flatten(section.model_dump())})
    return started


def checkpoint_key(
    section: Architecture, splits_csv: Path, class_weights: Path, bits: int | None = None
) -> str:
    """Return what a checkpoint must agree on to be resumed."""
    files = [splits_csv, class_weights, *section.weights_files]
    parts = [
        section.model_dump_json(),
        *map(file_sha256, files),
        keras.__version__,
        *([] if bits is None else [f"{bits} bits"]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    run(main)
