"""Fit a scikit-learn classifier on pixels or on features of a backbone, and predict with it."""

import time
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline

from tasks.modeling import backbones, classical, features, saved
from tasks.modeling import out_of_distribution as ood
from tasks.modeling.checkpoints import Row
from tasks.modeling.images import Images, Sets
from tasks.modeling.training import Fitted, Job
from tasks.params.architectures import Classical


def fit_classical(job: Job[Classical]) -> Fitted:
    """Fit the classifier. Its history is one row, as of a network that is trained for one epoch."""
    structure, params = job.structure, job.params
    start = time.perf_counter()
    job.watch.on_phase("features" if structure.features else "", 0, 1)
    network = None
    if structure.features is not None:
        network = backbones.build_features(structure.features, structure.pooling, params.form.shape)
        backbones.load_weights(network, structure.features, params.image_size)
    inputs, _ = compute_inputs(network, structure, job.sets.every)
    feature_seconds = time.perf_counter() - start
    start = time.perf_counter()
    training = job.sets.training
    examples = classical.Examples(
        inputs[training.rows], training.targets, training.weights, job.groups
    )
    model = classical.fit(structure, examples, params.seed, params.threads)
    row = _score(model, inputs, job)
    row["seconds"] = time.perf_counter() - start
    job.watch.on_epoch(row, 1)
    return Fitted(model, [row], classical.count_parameters(model), feature_seconds, network)


def predict_classical(
    folder: Path, structure: Classical, images: Images
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return probabilities by the saved model, and the statistics of the network's last map."""
    network = saved.load_keras(folder / "features.keras") if structure.features else None
    inputs, statistics = compute_inputs(network, structure, images)
    return classical.predict(classical.load(folder / "model.skops"), inputs), statistics


def compute_inputs(
    network: keras.Model | None, structure: Classical, images: Images
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the inputs of the classifier, shape (images, d), and the statistics of the last map.

    Without a `network` the inputs are the pixels, and there are no statistics.
    """
    if network is None or structure.features is None:
        return classical.flatten(images.pixels), None
    # One pass computes both, and the prediction finds them in the cache.
    both = features.compute(ood.append_statistics(network), structure.features, images)
    return both[:, : network.output.shape[1]], both[:, network.output.shape[1] :]


def _score(model: Pipeline, inputs: NDArray[np.float32], job: Job[Classical]) -> Row:
    row: Row = {"epoch": 1}
    sets: Sets = job.sets
    for prefix, images in (("", sets.training), ("val_", sets.validation)):
        probabilities = classical.predict(model, inputs[images.rows])
        row[f"{prefix}loss"] = log_loss(
            images.targets, probabilities.astype(float), labels=range(probabilities.shape[1])
        )
        accuracy = (probabilities.argmax(axis=1) == images.targets).mean()
        row[f"{prefix}accuracy"] = float(accuracy)
    if job.watch.measure is not None:
        row |= job.watch.measure(sets.validation.targets, probabilities)
    return row
