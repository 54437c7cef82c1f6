"""Fit one architecture: `data/models/<architecture>` and `data/results/<architecture>`.

The training images fit the model. The validation images choose the epoch, unless params keep the
last one, and the temperature that calibrates the probabilities. The test images are predicted once,
at the end, by the saved model. The predictions include the distance of each image from the training
images.

A training that was killed resumes after its last epoch. A training that runs again writes the same
bytes. It fails if the loss diverges. Run by hand: `dvc repro --single-item train@cnn_a`.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from tasks.errors import UserError
from tasks.imaging import samples
from tasks.imaging.bit_depth import read_bit_depth
from tasks.modeling import checkpoints, kinds, saved, temperature
from tasks.modeling import out_of_distribution as ood
from tasks.modeling import test_time_augmentation as tta
from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.epoch_log import EpochLog
from tasks.modeling.images import Images, load_images
from tasks.modeling.training import Fitted, use_threads
from tasks.params.architectures import Architecture
from tasks.params.model_input import Form
from tasks.params.read_architectures import read_architecture
from tasks.progress import find_stage
from tasks.results import HISTORY_CSV, PREDICTIONS_CSV, SIZE_JSON, write_timing
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.hashes import file_sha256, git_revision
from tasks.tracking.store import check_writable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The architecture to train, the files to read, and the folders to write."""

    architecture: str
    clean: Path
    splits_csv: Path
    class_weights: Path
    decoding_json: Path
    models: Path
    results: Path


@dataclass(frozen=True)
class Data:
    """The images of a training, with their rows of splits.csv and their classes."""

    images: Images
    splits: pd.DataFrame
    classes: list[str]
    form: Form


def main(options: Options) -> None:
    """Train `architecture` and write its model, history, predictions, size and times."""
    name, models, results = options.architecture, options.models, options.results
    section = read_architecture(name)
    data = load_data(section, options)
    key = checkpoint_key(section, options.splits_csv, options.class_weights, data.form.bits)
    use_threads(section.train.threads)
    with runs.record_run(lambda: start_run(name, section, options.splits_csv, key)):
        checkpoint = Checkpoint(checkpoints.FOLDER / f"{name}.npz", key)
        epochs = EpochLog(find_stage(f"train@{name}"))
        try:
            fitted = kinds.train(section, data.images, data.splits, checkpoint, epochs.watch())
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        epochs.write_phase("predicting", len(fitted.history), len(fitted.history))
        saved.describe(models, data.classes, data.form, section.train.test_views)
        summary = saved.save(fitted.model, fitted.features, models)
        (models / "summary.txt").write_text(summary + "\n")
        predictions = predict_all(models, section, data)
        write_results(fitted, predictions, results)
        keep_times(fitted, time_prediction(models, data.images.pixels), results)
        draw_samples(section, data).save(results / "samples.jpg", quality=samples.QUALITY)
        log_files(fitted, models, results)
    for file in checkpoints.FOLDER.glob(f"{name}.*"):
        file.unlink()


def load_data(section: Architecture, options: Options) -> Data:
    """Load the images that are not withheld, with the classes of the architecture's question."""
    splits = read_table(options.splits_csv).query("split != 'withheld'").reset_index(drop=True)
    splits = splits.assign(label=splits.label.map(section.question.map_folders(splits.label)))
    weights = json.loads(options.class_weights.read_text())
    form = replace(section.train.form, bits=read_bit_depth(options.decoding_json))
    return Data(load_images(options.clean, splits, weights, form), splits, list(weights), form)


def predict_all(models: Path, section: Architecture, data: Data) -> pd.DataFrame:
    """Predict all images with the saved model, and add temperature and centroids to the model.

    Returns path, label, split, predicted, distance and a probability for each class. The validation
    images give the temperature, the training images the class centroids; both are saved.
    """
    images, split = data.images, data.splits.split
    raw, statistics = tta.average(
        lambda pixels: kinds.predict(models, section.structure, replace(images, pixels=pixels)),
        images.pixels,
        section.train.test_views,
    )
    training, validation = np.flatnonzero(split == "training"), split == "validation"
    fitted = temperature.fit(raw[validation], images.targets[validation])
    tendency = "confident" if fitted > 1 else "cautious"
    log.info("temperature %.3g: the model was too %s", fitted, tendency)
    descriptions = ood.describe(images.pixels, statistics)
    centroids = ood.find_centroids(descriptions[training], images.targets[training])
    saved.complete(models, fitted, centroids)
    table = data.splits[["path", "label", "split"]].assign(
        predicted=[data.classes[index] for index in raw.argmax(axis=1)],
        distance=ood.measure_distances(descriptions, centroids),
    )
    columns = [f"p_{label}" for label in data.classes]
    probabilities = pd.DataFrame(temperature.apply(raw, fitted), columns=columns)
    return pd.concat([table, probabilities], axis=1)


def time_prediction(models: Path, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds that the saved model takes for a single image.

    This is the median of ten predictions, after one to warm up.
    """
    predict_one = saved.load(models).predict
    seconds = []
    for row in range(min(len(pixels), 11)):
        start = time.perf_counter()
        predict_one(pixels[row : row + 1])
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def write_results(fitted: Fitted, predictions: pd.DataFrame, results: Path) -> None:
    """Write the results that are equal in every run."""
    write_table(pd.DataFrame(fitted.history).drop(columns="seconds"), results / HISTORY_CSV)
    write_table(predictions, results / PREDICTIONS_CSV)
    (results / SIZE_JSON).write_text(json.dumps({"parameters": fitted.parameters}, indent=2) + "\n")


def keep_times(fitted: Fitted, predict_seconds: float, results: Path) -> None:
    """Write the times of this training beside DVC's outputs, and log them to MLflow."""
    seconds = [round(row["seconds"], 2) for row in fitted.history]
    times = {
        "train_seconds": round(sum(seconds) + fitted.feature_seconds, 2),
        "feature_seconds": round(fitted.feature_seconds, 2),  # almost 0 if they were cached
        "predict_seconds_per_image": float(f"{predict_seconds:.3g}"),
    }
    write_timing({**times, "epoch_seconds": seconds}, results)
    runs.record(lambda: mlflow.log_metrics(times), live=True)


def draw_samples(section: Architecture, data: Data) -> Image.Image:
    """Draw sixteen training images as the model sees them. The report may leave them out."""
    augmentation = section.train.augmentation if section.structure.in_epochs else None
    first = np.flatnonzero(data.splits.split == "training")[: samples.COUNT]
    return samples.draw_samples(data.images.pixels[first], augmentation, section.train.seed)


def log_files(fitted: Fitted, models: Path, results: Path) -> None:
    """Log the hash of the predictions, the summary and a drawing of the layers to MLflow."""
    sha256 = file_sha256(results / PREDICTIONS_CSV)
    runs.record(lambda: mlflow.set_tag(runs.PREDICTIONS, sha256), live=True)
    runs.record(lambda: mlflow.log_artifact(str(models / "summary.txt")), live=True)
    network = fitted.model if isinstance(fitted.model, keras.Model) else fitted.features
    if network is None:
        return
    if shutil.which("dot") is None:
        log.info(
            "the drawing of the layers is left out because it needs Graphviz "
            "(apt install graphviz, brew install graphviz)"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        drawing = Path(folder, "layers.png")
        keras.utils.plot_model(network, drawing, show_shapes=True)
        runs.record(lambda: mlflow.log_artifact(str(drawing)), live=True)


def start_run(
    architecture: str, section: Architecture, splits_csv: Path, key: str
) -> mlflow.ActiveRun:
    """Open the MLflow run and log everything that decides the result.

    A training that was killed continues in its own run.
    """
    experiment_id = runs.open_store()
    artifacts = mlflow.get_experiment(experiment_id).artifact_location
    check_writable(mlflow.get_tracking_uri(), artifacts)
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
    """Return a hash of everything that decides the result, so only equal trainings share it."""
    files = [splits_csv, class_weights, *section.weights_files]
    parts = [section.model_dump_json(), *map(file_sha256, files), keras.__version__]
    if bits is not None:
        parts.append(f"{bits} bits")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    run(main)
