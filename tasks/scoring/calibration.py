"""Measure how far a model's probabilities can be trusted. Arrays in, numbers and tables out."""

import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss

from tasks.scoring.metrics import normalise
from tasks.scoring.predictions import Labels, Probabilities

CALIBRATION_COLUMNS = {
    "when": "`before` or `after` temperature scaling.",
    "confidence": "Mean top probability of the test images in this bin.",
    "accuracy": "Share of the images in this bin that are predicted correctly.",
    "count": "Number of images in this bin.",
}
COVERAGE_COLUMNS = {
    "split": "`validation` or `test`.",
    "coverage": "Share of the images whose top probability is at least `confidence`.",
    "images": "Number of these images.",
    "confidence": "Lowest top probability among them.",
    "accuracy": "Share of them that are predicted correctly.",
}
STEPS = 100  # a coverage curve has at most this many rows


def undo_scaling(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Undo temperature scaling: p^T, normalised (Guo et al. 2017, arXiv:1706.04599)."""
    return normalise((probabilities / probabilities.max(axis=1, keepdims=True)) ** temperature)


def measure_calibration(
    labels: Labels, probabilities: Probabilities, bins: int
) -> tuple[float, pd.DataFrame]:
    """Return the expected calibration error of the top class, and the table of its bins.

    The bins divide the confidence into equal widths. The error is the mean gap between confidence
    and accuracy, weighted by the images of each bin (Guo et al. 2017, arXiv:1706.04599).
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


def measure_brier(labels: Labels, probabilities: Probabilities) -> float:
    """Return the Brier score, from 0 to 2. Two classes use the same scale (Brier 1950)."""
    classes = range(probabilities.shape[1])
    shares = normalise(probabilities)
    columns = shares[:, 1] if len(classes) == 2 else shares
    return float(brier_score_loss(labels, columns, labels=classes, scale_by_half=False))


def measure_coverage(labels: Labels, probabilities: Probabilities) -> pd.DataFrame:
    """Return the accuracy on the most confident images, for growing shares of the images.

    Images of equal confidence enter together. The last row covers all images (El-Yaniv and Wiener
    2010).
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum((probabilities.argmax(axis=1) == labels)[order])
    last_of_equals = np.flatnonzero(np.diff(-confidence[order], append=np.inf))
    wanted = np.ceil(np.arange(1, STEPS + 1) / STEPS * len(labels)).astype(int)
    ends = np.unique(last_of_equals[np.searchsorted(last_of_equals + 1, wanted)])
    images = ends + 1
    return pd.DataFrame(
        {
            "coverage": images / len(labels),
            "images": images,
            "confidence": confidence[order][ends],
            "accuracy": right[ends] / images,
        }
    )
