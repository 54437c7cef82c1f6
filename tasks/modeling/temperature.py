"""One number that makes a model's probabilities honest: its logits divided by a temperature (Guo et al. 2017, arXiv:1706.04599).

Above 1 the model was too sure, below 1 too modest. What it predicts stays. Needs no TensorFlow.
"""

import numpy as np
from scipy.optimize import minimize_scalar

BOUNDS = (0.05, 20.0)
FLOOR = 1e-7  # what a probability of 0 counts as: a float32 sigmoid rounds such to 0, and a forest counts trees


def fit(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature of the least log loss of probabilities (images, classes) for class indices (images,), to six digits.

    One image more counts as wrong: its share goes to the other classes (as Platt 1999 smooths targets), else a model that
    errs nowhere on a few images would be made infinitely sure.
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


def apply(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return float32 probabilities (images, classes) at this temperature; the inverse of the temperature undoes it.

    The class that was most likely stays so: where rounding would tie it with another, it is raised by the last bit.
    """
    logits = _logits(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    rows, top = np.arange(len(scaled)), probabilities.argmax(axis=1)
    tied = scaled.argmax(axis=1) != top
    scaled[rows[tied], top[tied]] = np.nextafter(scaled[tied].max(axis=1), np.float32(1))
    return scaled


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 logits; a 0 never counts as more than the other probabilities of its row."""
    least = np.where(probabilities > 0, probabilities, 1).min(axis=1, keepdims=True)
    return np.log(
        np.where(probabilities > 0, probabilities, np.minimum(least, FLOOR)).astype(float)
    )
