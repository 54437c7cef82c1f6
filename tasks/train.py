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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline

from tasks import tracking
from tasks.command import run
from tasks.imaging import samples
from tasks.imaging.arrays import load_pixels
from tasks.modeling import backbones, classical, familiar, features, saved, temperature, transfer, views
from tasks.modeling.architectures import Classical, Cnn, Transfer
from tasks.modeling.layers import build_model
from tasks.modeling.training import Images, Measure, fit, predict, use_threads
from tasks.params import load_params
from tasks.sections import Architecture
from tasks.tables import read_table, write_table

CHECKPOINTS = Path(".cache/checkpoints")
Row = dict[str, float]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """What sees each epoch: its row and the number of all epochs, and what is measured besides for the row."""

    on_epoch: Callable[[Row, int], None]
    measure: Measure | None = None


@dataclass(frozen=True)
class Fitted:
    """A model at its best, and what a classical one takes its features from."""

    model: keras.Model | Pipeline
    history: list[Row]
    parameters: int
    feature_seconds: float = 0.0
    features: keras.Model | None = None


def main(architecture: str, clean: Path, splits_csv: Path, weights_json: Path, models: Path, results: Path) -> None:
    """Train `architecture` and write its model, history, predictions and timing."""
    params = load_params()
    section = params.architectures[architecture]
    splits = read_table(splits_csv).query("split != 'withheld'").reset_index(drop=True)
    weights = json.loads(weights_json.read_text())
    classes = list(weights)
    splits = splits.assign(label=splits.label.map(section.question.answers(splits.label)))
    images = load_images(clean, splits, weights, section)
    key = checkpoint_key(section, splits_csv, weights_json)
    use_threads(section.train.threads)
    with start_run(architecture, section, splits_csv, key):
        try:
            fitted = train(section, images, splits, CHECKPOINTS / f"{architecture}.npz", key)
        except ValueError as error:
            raise ValueError(f"{architecture}: {error}") from error
        summary = saved.save(fitted.model, fitted.features, classes, section.train.form, section.train.test_views, models)
        (models / "summary.txt").write_text(summary + "\n")
        predictions = predict_all(models, section, images, splits, classes)
        write_results(fitted, predictions, seconds_per_answer(models, images.pixels), results)
        mlflow.set_tag(tracking.PREDICTIONS, tracking.file_sha256(results / "predictions.csv"))
        mlflow.log_artifact(str(models / "summary.txt"))
        draw_samples(section, images, splits).save(results / "samples.jpg", quality=samples.QUALITY)
        log_layers(fitted)
    for file in CHECKPOINTS.glob(f"{architecture}.*"):
        file.unlink()


def load_images(clean: Path, splits: pd.DataFrame, weights: dict[str, float], section: Architecture) -> Images:
    """Return all images of `splits`, decoded once for every architecture of this size."""
    pixels = load_pixels(clean, splits.path, splits.sha256, section.train.form)
    classes = list(weights)
    return Images(
        pixels=pixels,
        rows=np.arange(len(splits)),
        targets=splits.label.map(classes.index).to_numpy(np.int32),
        weights=splits.label.map(weights).to_numpy(np.float32),
    )


def train(
    section: Architecture, images: Images, splits: pd.DataFrame, checkpoint: Path, key: str, watch: Watch | None = None
) -> Fitted:
    """Fit the architecture by the way of its kind; `watch` sees each epoch, in place of terminal and MLflow."""
    watch = watch or Watch(tell)
    keras.utils.set_random_seed(section.train.seed)
    sets = transfer.Sets(images, *(select(images, splits.split == part) for part in ("training", "validation")))
    log.info("%d training and %d validation images", len(sets.training.rows), len(sets.validation.rows))
    if isinstance(section.structure, Classical):
        return fit_classical(section, sets, splits, watch)
    way = fit_cnn if isinstance(section.structure, Cnn) else fit_transfer
    return way(section, sets, (splits.label.nunique(), section.question.positive is not None), checkpoint, key, watch)


def fit_cnn(
    section: Architecture, sets: transfer.Sets, answers: tuple[int, bool], checkpoint: Path, key: str, watch: Watch
) -> Fitted:
    """Train on images, with fused batch normalisation; return the plain model at the epoch that was kept."""
    settings = section.train
    classes, binary = answers
    arguments = (section.structure, settings.image_size, settings.channels, classes)
    model = build_model(*arguments, fused=True, binary=binary)
    log.info("%s parameters", f"{model.count_params():,}")
    rows = fit(
        model, sets.training, sets.validation, settings, checkpoint, key,
        lambda row: watch.on_epoch(row, settings.epochs), measure=watch.measure,
    )  # fmt: skip
    plain = build_model(*arguments, binary=binary)
    plain.set_weights(model.get_weights())
    return Fitted(plain, rows, plain.count_params())


def fit_transfer(
    section: Architecture, sets: transfer.Sets, answers: tuple[int, bool], checkpoint: Path, key: str, watch: Watch
) -> Fitted:
    """Train head and backbone on cached features and on images."""
    model, rows, seconds = transfer.fit_transfer(
        section.structure, section.train, sets, answers, checkpoint, key, watch.on_epoch, watch.measure
    )
    return Fitted(model, rows, model.count_params(), seconds)


def fit_classical(section: Architecture, sets: transfer.Sets, splits: pd.DataFrame, watch: Watch) -> Fitted:
    """Fit a scikit-learn classifier on pixels or features; its history is one row."""
    structure, settings = section.structure, section.train
    start = time.perf_counter()
    network = None
    if structure.features is not None:
        network = backbones.build_features(structure.features, structure.pooling, settings.image_size, settings.channels)
        backbones.load_weights(network, structure.features, settings.image_size)
    inputs, _ = classical_inputs(network, structure, sets.every)
    feature_seconds = time.perf_counter() - start
    start = time.perf_counter()
    training, validation = sets.training, sets.validation
    groups = splits.group.to_numpy()[training.rows]
    model = classical.fit(
        structure, inputs[training.rows], training.targets, training.weights, settings.seed, settings.threads, groups
    )
    row: Row = {"epoch": 1}
    for prefix, part in (("", training), ("val_", validation)):
        probabilities = classical.probabilities(model, inputs[part.rows])
        row[f"{prefix}loss"] = log_loss(part.targets, probabilities.astype(float), labels=range(probabilities.shape[1]))
        row[f"{prefix}accuracy"] = float((probabilities.argmax(axis=1) == part.targets).mean())
    if watch.measure is not None:
        row |= watch.measure(validation.targets, probabilities)
    row["seconds"] = time.perf_counter() - start
    watch.on_epoch(row, 1)
    return Fitted(model, [row], classical.parameters(model), feature_seconds, network)


def classical_inputs(network: keras.Model | None, structure: Classical, images: Images) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what a classical model sees of the images, shape (images, d), and the statistics of the network's last feature map."""
    if network is None:
        return classical.flatten(images.pixels), None
    both = features.plain(familiar.joined(network), structure.features, images)  # one pass for both, kept for the answers
    return both[:, : network.output.shape[1]], both[:, network.output.shape[1] :]


def select(images: Images, chosen: pd.Series) -> Images:
    """Return the chosen rows of `images`."""
    rows = np.flatnonzero(chosen)
    return Images(images.pixels, rows, images.targets[rows], images.weights[rows])


def tell(row: dict[str, float], epochs: int) -> None:
    """Log one epoch to the terminal and to MLflow."""
    left = (epochs - row["epoch"]) * row["seconds"]
    rate = f"  rate {row['learning_rate']:.2g}" if "learning_rate" in row else ""
    log.info(
        "epoch %2d/%d  loss %.4f  accuracy %.3f  val_loss %.4f  val_accuracy %.3f%s  %.1f s, at most %s left",
        row["epoch"], epochs, row["loss"], row["accuracy"], row["val_loss"], row["val_accuracy"], rate, row["seconds"],
        f"{left / 60:.1f} min" if left >= 60 else f"{left:.0f} s",
    )  # fmt: skip
    metrics = {name: value for name, value in row.items() if name != "epoch"}
    tracking.attempt(lambda: mlflow.log_metrics(metrics, step=int(row["epoch"])))


def predict_all(models: Path, section: Architecture, images: Images, splits: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return path, label, split, predicted, distance and a probability per class, by the model as it was saved.

    Completes the saved model by its temperature, from validation images, and by what is usual of training images.
    """
    raw, statistics = views.averaged(
        lambda pixels: answers(models, section.structure, replace(images, pixels=pixels)), images.pixels, section.train.test_views
    )
    training, validation = (np.flatnonzero(splits.split == part) for part in ("training", "validation"))
    degrees = temperature.fit(raw[validation], images.targets[validation])
    log.info("temperature %.3g: %s", degrees, "the model was too sure" if degrees > 1 else "the model was too modest")
    descriptions = familiar.describe(images.pixels, statistics)
    usual = familiar.centres(descriptions[training], images.targets[training])
    saved.complete(models, degrees, usual)
    predicted = [classes[index] for index in raw.argmax(axis=1)]
    told = splits[["path", "label", "split"]].assign(predicted=predicted, distance=familiar.distances(descriptions, usual))
    columns = pd.DataFrame(temperature.apply(raw, degrees), columns=[f"p_{label}" for label in classes])
    return pd.concat([told, columns], axis=1)


def answers(models: Path, structure: Cnn | Transfer | Classical, images: Images) -> tuple[np.ndarray, np.ndarray | None]:
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
        return predict(familiar.answering(model), images)
    below, above = parts
    inputs = replace(images, pixels=features.plain(below, structure, images))
    if familiar.last_map(model) in above.layers:
        return predict(familiar.answering(model, below.output), inputs)
    return predict(above, inputs), features.plain(familiar.reading(model), structure, images)


def seconds_per_answer(models: Path, pixels: np.ndarray) -> float:
    """Return how long the saved model takes for one image that comes alone: the median of ten, after one to warm up."""
    predict_one = saved.load(models).predict
    seconds = []
    for row in range(min(len(pixels), 11)):
        start = time.perf_counter()
        predict_one(pixels[row : row + 1])
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def write_results(fitted: Fitted, predictions: pd.DataFrame, answer_seconds: float, results: Path) -> None:
    """Write what is equal from run to run, and apart from it the times, which are not."""
    rows = pd.DataFrame(fitted.history)
    write_table(rows.drop(columns="seconds"), results / "history.csv")
    write_table(predictions, results / "predictions.csv")
    seconds = [round(second, 2) for second in rows.seconds]
    timing = {
        "parameters": fitted.parameters,
        "train_seconds": round(sum(seconds) + fitted.feature_seconds, 2),
        "feature_seconds": round(fitted.feature_seconds, 2),  # next to nothing where they were cached
        "epoch_seconds": seconds,
        "predict_seconds_per_image": float(f"{answer_seconds:.3g}"),
    }
    (results / "timing.json").write_text(json.dumps(timing, indent=2) + "\n")


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
        log.info("the picture of the layers is left out: it needs Graphviz (apt install graphviz, brew install graphviz)")
        return
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "layers.png")
        keras.utils.plot_model(network, picture, show_shapes=True)
        mlflow.log_artifact(str(picture))


def start_run(architecture: str, section: Architecture, splits_csv: Path, key: str) -> mlflow.ActiveRun:
    """Open the MLflow run, with everything that decides the result; a training that was killed goes on in its own."""
    experiment_id = tracking.open_store()
    unfinished = tracking.find_unfinished_run(experiment_id, key)
    if unfinished is not None:
        return mlflow.start_run(run_id=unfinished.info.run_id)
    started = mlflow.start_run(experiment_id=experiment_id, run_name=architecture, tags={tracking.TRAINING: key})
    mlflow.set_tags({"git_revision": tracking.git_revision(), "data_sha256": tracking.file_sha256(splits_csv)})
    if pretrained_files(section):
        mlflow.set_tag("weights_sha256", tracking.file_sha256(pretrained_files(section)[0]))
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
    files = [splits_csv, weights_json, *pretrained_files(section)]
    parts = [section.model_dump_json(), *map(tracking.file_sha256, files), keras.__version__]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def pretrained_files(section: Architecture) -> list[Path]:
    """Return the file of pretrained weights that params name, if it is there; that of Keras is checked by Keras."""
    structure = section.structure.features if isinstance(section.structure, Classical) else section.structure
    file = Path(getattr(structure, "weights", None) or "").expanduser()
    return [file] if file.is_file() else []


if __name__ == "__main__":
    run(main)
