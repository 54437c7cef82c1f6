"""The kinds of models: how each of them is fitted, and how its saved model predicts.

A new kind needs a row here, a module that fits it, and a schema in `tasks/params/architectures.py`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.classical_training import fit_classical, predict_classical
from tasks.modeling.cnn import fit_cnn, predict_cnn
from tasks.modeling.images import Images, split_images
from tasks.modeling.training import Fitted, Job, Watch
from tasks.modeling.transfer import fit_transfer, predict_transfer
from tasks.params.architectures import Architecture, Classical, Cnn, Structure, Transfer

# Probabilities (images, classes), and the statistics of the last feature map if there is one.
Prediction = tuple[NDArray[np.float32], NDArray[np.float32] | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """How one kind of model is fitted, and how the model saved in a folder predicts."""

    fit: Callable[[Job[Any]], Fitted]
    predict: Callable[[Path, Any, Images], Prediction]


KINDS: dict[type[Structure], Kind] = {
    Cnn: Kind(fit_cnn, predict_cnn),
    Transfer: Kind(fit_transfer, predict_transfer),
    Classical: Kind(fit_classical, predict_classical),
}


def train(
    section: Architecture,
    images: Images,
    splits: pd.DataFrame,
    checkpoint: Checkpoint,
    watch: Watch,
) -> Fitted:
    """Fit an architecture, or resume it at its checkpoint. `watch` follows each epoch."""
    keras.utils.set_random_seed(section.train.seed)
    sets = split_images(images, splits.split)
    training, validation = len(sets.training.rows), len(sets.validation.rows)
    log.info("%d training and %d validation images", training, validation)
    job = Job(
        structure=section.structure,
        params=section.train,
        sets=sets,
        classes=splits.label.nunique(),
        checkpoint=checkpoint,
        watch=watch,
        binary=section.question.positive is not None,
        groups=splits.group.to_numpy()[sets.training.rows],
    )
    return KINDS[type(section.structure)].fit(job)


def predict(folder: Path, structure: Structure, images: Images) -> Prediction:
    """Predict all rows of `images` by the model that is saved in `folder`, without calibration."""
    return KINDS[type(structure)].predict(folder, structure, images)
