"""Fit a CNN on images, and predict with its saved model."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.modeling import out_of_distribution as ood
from tasks.modeling import saved
from tasks.modeling.images import Images
from tasks.modeling.layers import build_model
from tasks.modeling.training import Fitted, Job, Session, fit, predict
from tasks.params.architectures import Cnn

log = logging.getLogger(__name__)


def fit_cnn(job: Job[Cnn]) -> Fitted:
    """Train with fused batch normalisation; return the plain model with the same weights."""
    arguments = (job.structure, job.params.form.shape, job.classes, job.binary)
    model = build_model(*arguments, fused=True)
    log.info("%s parameters", f"{model.count_params():,}")
    job.watch.on_phase("", 0, job.params.epochs)
    history = fit(model, job.sets, Session(job.params, job.checkpoint, job.watch))
    plain = build_model(*arguments)
    plain.set_weights(model.get_weights())
    return Fitted(plain, history, plain.count_params())


def predict_cnn(
    folder: Path, structure: Cnn, images: Images
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return probabilities and the statistics of the last feature map, by the saved model."""
    model = saved.load_keras(folder / "model.keras")
    probabilities, statistics = predict(ood.add_statistics(model), images)
    return probabilities, statistics
