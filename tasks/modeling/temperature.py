"""Calibrate probabilities by one number: the logits of a model divided by a temperature.

A temperature above 1 means that the model was too confident, below 1 too cautious. The predicted
class stays the same (Guo et al. 2017, arXiv:1706.04599). Needs no TensorFlow.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

BOUNDS = (0.05, 20.0)
# Replaces a probability of 0: a float32 sigmoid rounds to 0, and a forest counts trees.
FLOOR = 1e-7


def fit(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the temperature with the least log loss, to six digits.

    `probabilities` are (images, classes), `targets` class indices (images,). One additional image
    counts as wrong: its share goes to the other classes, as Platt 1999 smooths targets. Otherwise a
    model without an error on a few images would become infinitely confident.
    """
    images, classes = probabilities.shape
    logits = _logits(probabilities)
    doubt = 1 / (images + 2)
    shares = np.full((images, classes), doubt / (classes - 1))
    shares[np.arange(images), targets] = 1 - doubt

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((np.logaddexp.reduce(scaled, axis=1) - (shares * scaled).sum(axis=1)).mean())

    found = minimize_scalar(
        loss, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": 1e-8}
    )
    return float(f"{np.exp(found.x):.6g}")


def apply(probabilities: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """Return calibrated probabilities (images, classes). The inverse temperature undoes this.

    The predicted class never changes: if rounding makes it tie with another class, its probability
    rises by the last bit.
    """
    logits = _logits(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    rows, top = np.arange(len(scaled)), probabilities.argmax(axis=1)
    tied = scaled.argmax(axis=1) != top
    scaled[rows[tied], top[tied]] = np.nextafter(scaled[tied].max(axis=1), np.float32(1))
    return scaled


def _logits(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Return logits. A 0 becomes `FLOOR`, or the least other value of its row if lower."""
    least = np.where(probabilities > 0, probabilities, 1).min(axis=1, keepdims=True)
    return np.log(
        np.where(probabilities > 0, probabilities, np.minimum(least, FLOOR)).astype(float)
    )
