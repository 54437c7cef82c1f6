"""Are a classifier's probabilities right, and how often is it right where it is sure? Arrays in, numbers and tables out.

`labels` are class indices of shape (images,), `probabilities` have shape (images, classes).
"""

import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss

from tasks.scoring.metrics import normalise

STEPS = 100  # rows of a coverage curve, at most


def before_scaling(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Undo temperature scaling: p^T, each row summing to one (Guo et al. 2017, arXiv:1706.04599)."""
    return normalise((probabilities / probabilities.max(axis=1, keepdims=True)) ** temperature)


def calibration(
    labels: np.ndarray, probabilities: np.ndarray, bins: int
) -> tuple[float, pd.DataFrame]:
    """Return the expected calibration error of the top class, and its bins: confidence, accuracy, count.

    Equal-width bins of the confidence; the error is the mean gap, weighted by count (Guo et al. 2017, arXiv:1706.04599).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    table = pd.DataFrame(
        {"bin": bin_of, "confidence": confidence, "accuracy": right.astype(float)}
    ).groupby("bin")
    rows = table.mean().assign(count=table.size()).reset_index(drop=True)
    error = float((rows["count"] * (rows.confidence - rows.accuracy).abs()).sum() / len(labels))
    return error, rows


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the squared distance of the probabilities from the truth, 0 to 2, for two classes too (Brier 1950)."""
    classes = range(probabilities.shape[1])
    shares = normalise(probabilities)
    columns = shares[:, 1] if len(classes) == 2 else shares
    return float(brier_score_loss(labels, columns, labels=classes, scale_by_half=False))


def coverage(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return how accurate a model is on the images it is surest of: coverage, images, confidence, accuracy.

    A row is the share of images whose top probability is at least `confidence`, and how many of them are right. Images of
    equal confidence come together. The last row is all images (El-Yaniv and Wiener 2010).
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum((probabilities.argmax(axis=1) == labels)[order])
    ends = np.flatnonzero(
        np.diff(-confidence[order], append=np.inf)
    )  # the last image of each confidence
    wanted = np.ceil(np.arange(1, STEPS + 1) / STEPS * len(labels)).astype(int)
    ends = np.unique(ends[np.searchsorted(ends + 1, wanted)])
    images = ends + 1
    return pd.DataFrame(
        {
            "coverage": images / len(labels),
            "images": images,
            "confidence": confidence[order][ends],
            "accuracy": right[ends] / images,
        }
    )
