"""The images of a training: pixels, targets and weights, and the rows that train or validate."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.imaging.arrays import load_pixels
from tasks.params.model_input import Form


@dataclass(frozen=True)
class Images:
    """Some rows of an array of `uint8` pixels or of features, with a target and a weight for each.

    `targets` and `weights` have the shape (rows,). With `cached_views`, epoch n trains on view
    n modulo their number. A view contains only `rows`, in their order.
    """

    pixels: NDArray[Any]
    rows: NDArray[np.intp]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    cached_views: tuple[NDArray[Any], ...] = ()


@dataclass(frozen=True)
class Sets:
    """All images, the training images among them, and the validation images."""

    every: Images
    training: Images
    validation: Images


def load_images(clean: Path, splits: pd.DataFrame, weights: dict[str, float], form: Form) -> Images:
    """Load all images of `splits`. They are decoded once for all architectures of this form."""
    classes = list(weights)
    return Images(
        pixels=load_pixels(clean, splits.path, splits.sha256, form),
        rows=np.arange(len(splits)),
        targets=splits.label.map(classes.index).to_numpy(np.int32),
        weights=splits.label.map(weights).to_numpy(np.float32),
    )


def split_images(images: Images, splits: pd.Series) -> Sets:
    """Select the rows that train and the rows that validate."""
    training, validation = (
        _select(images, np.flatnonzero(splits == split)) for split in ("training", "validation")
    )
    return Sets(images, training, validation)


def _select(images: Images, rows: NDArray[np.intp]) -> Images:
    return replace(images, rows=rows, targets=images.targets[rows], weights=images.weights[rows])
