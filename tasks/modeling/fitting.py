"""Fit one architecture by the way of its kind: a network on images, a head on cached features, a classifier on features.

A training that was killed goes on at its checkpoint. The stage `train` and the search call this alike.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline

from tasks.imaging.arrays import load_pixels
from tasks.modeling import backbones, classical, features, transfer
from tasks.modeling import out_of_distribution as ood
from tasks.modeling.layers import build_model
from tasks.modeling.training import Images, Measure, Row, fit
from tasks.params.architectures import Architecture, Classical, Cnn
from tasks.params.model_input import Form
from tasks.tracking import runs

CHECKPOINTS = Path(".cache/checkpoints")

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


def load_images(clean: Path, splits: pd.DataFrame, weights: dict[str, float], form: Form) -> Images:
    """Return all images of `splits`, decoded once for every architecture of this form."""
    pixels = load_pixels(clean, splits.path, splits.sha256, form)
    classes = list(weights)
    return Images(
        pixels=pixels,
        rows=np.arange(len(splits)),
        targets=splits.label.map(classes.index).to_numpy(np.int32),
        weights=splits.label.map(weights).to_numpy(np.float32),
    )


def train(
    section: Architecture,
    images: Images,
    splits: pd.DataFrame,
    checkpoint: Path,
    key: str,
    watch: Watch | None = None,
) -> Fitted:
    """Fit the architecture by the way of its kind; `watch` sees each epoch, in place of terminal and MLflow."""
    watch = watch or Watch(tell)
    keras.utils.set_random_seed(section.train.seed)
    sets = transfer.Sets(
        images, *(select(images, splits.split == part) for part in ("training", "validation"))
    )
    log.info(
        "%d training and %d validation images", len(sets.training.rows), len(sets.validation.rows)
    )
    if isinstance(section.structure, Classical):
        return fit_classical(section, sets, splits, watch)
    way = fit_cnn if isinstance(section.structure, Cnn) else fit_transfer
    return way(
        section,
        sets,
        (splits.label.nunique(), section.question.positive is not None),
        checkpoint,
        key,
        watch,
    )


def fit_cnn(
    section: Architecture,
    sets: transfer.Sets,
    answers: tuple[int, bool],
    checkpoint: Path,
    key: str,
    watch: Watch,
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
    section: Architecture,
    sets: transfer.Sets,
    answers: tuple[int, bool],
    checkpoint: Path,
    key: str,
    watch: Watch,
) -> Fitted:
    """Train head and backbone on cached features and on images."""
    model, rows, seconds = transfer.fit_transfer(
        section.structure,
        section.train,
        sets,
        answers,
        checkpoint,
        key,
        watch.on_epoch,
        watch.measure,
    )
    return Fitted(model, rows, model.count_params(), seconds)


def fit_classical(
    section: Architecture, sets: transfer.Sets, splits: pd.DataFrame, watch: Watch
) -> Fitted:
    """Fit a scikit-learn classifier on pixels or features; its history is one row."""
    structure, settings = section.structure, section.train
    start = time.perf_counter()
    network = None
    if structure.features is not None:
        network = backbones.build_features(
            structure.features, structure.pooling, settings.image_size, settings.channels
        )
        backbones.load_weights(network, structure.features, settings.image_size)
    inputs, _ = classical_inputs(network, structure, sets.every)
    feature_seconds = time.perf_counter() - start
    start = time.perf_counter()
    training, validation = sets.training, sets.validation
    groups = splits.group.to_numpy()[training.rows]
    model = classical.fit(
        structure,
        inputs[training.rows],
        training.targets,
        training.weights,
        settings.seed,
        settings.threads,
        groups,
    )
    row: Row = {"epoch": 1}
    for prefix, part in (("", training), ("val_", validation)):
        probabilities = classical.probabilities(model, inputs[part.rows])
        row[f"{prefix}loss"] = log_loss(
            part.targets, probabilities.astype(float), labels=range(probabilities.shape[1])
        )
        row[f"{prefix}accuracy"] = float((probabilities.argmax(axis=1) == part.targets).mean())
    if watch.measure is not None:
        row |= watch.measure(validation.targets, probabilities)
    row["seconds"] = time.perf_counter() - start
    watch.on_epoch(row, 1)
    return Fitted(model, [row], classical.parameters(model), feature_seconds, network)


def classical_inputs(
    network: keras.Model | None, structure: Classical, images: Images
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what a classical model sees of the images, shape (images, d), and the statistics of the network's last feature map."""
    if network is None:
        return classical.flatten(images.pixels), None
    both = features.plain(
        ood.joined(network), structure.features, images
    )  # one pass for both, kept for the answers
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
    runs.record(lambda: mlflow.log_metrics(metrics, step=int(row["epoch"])), live=True)
