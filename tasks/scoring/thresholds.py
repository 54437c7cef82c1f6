"""Choose the confidence below which a model abstains, and the distance of unfamiliar images.

Validation images choose both thresholds. The result holds their effect on validation images and on
test images, which choose nothing. Tables in the columns of `predictions.csv` in.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from tasks.params.evaluate import Evaluate
from tasks.scoring.predictions import to_arrays

LEAST = 10  # a confidence needs this many answered validation images, or chance would choose it
NEVER = 1.0  # a model with this threshold practically always abstains


def choose_thresholds(predictions: pd.DataFrame, wanted: Evaluate) -> dict[str, Any]:
    """Return the thresholds `confidence` and `distance`, and their effects.

    A model abstains if its top probability is below `confidence`. An image is unfamiliar if its
    distance is above `distance`. The effects are `abstain` and `unfamiliar`. A threshold that is
    switched off is None, and so is its effect.
    """
    parts = {part: predictions[predictions.split == part] for part in ("validation", "test")}
    chosen: dict[str, Any] = dict.fromkeys(("confidence", "distance", "abstain", "unfamiliar"))
    if wanted.abstain is not None:
        accuracy = wanted.abstain.accuracy
        confidence, reached = find_confidence(*rate_confidence(parts["validation"]), accuracy)
        effects = {
            part: measure_abstention(*rate_confidence(rows), confidence)
            for part, rows in parts.items()
        }
        chosen["confidence"] = confidence
        chosen["abstain"] = {"accuracy": accuracy, "reached": reached, **effects}
    if wanted.unfamiliar is not None:
        rate = wanted.unfamiliar.false_alarms
        distance, reached = find_distance(parts["validation"].distance.to_numpy(), rate)
        effects = {
            part: count_alarms(rows.distance.to_numpy(), distance) for part, rows in parts.items()
        }
        chosen["distance"] = distance
        chosen["unfamiliar"] = {"false_alarms": rate, "reached": reached, **effects}
    return chosen


def describe_thresholds(chosen: dict[str, Any]) -> list[str]:
    """Return the effect of the thresholds on the test images as log lines, with warnings."""
    lines, abstain, unfamiliar = [], chosen["abstain"], chosen["unfamiliar"]
    if abstain:
        test = abstain["test"]
        right = "" if test["accuracy"] is None else f", {test['accuracy']:.1%} of them correctly"
        lines.append(f"answers {test['answered']} of {test['images']} test images{right}")
    if abstain and not abstain["reached"]:
        lines.append(
            f"warn: no confidence reaches an accuracy of {abstain['accuracy']:.1%} on at least "
            f"{LEAST} validation images, so the model always abstains"
        )
    if unfamiliar:
        test = unfamiliar["test"]
        lines.append(f"calls {test['alarms']} of {test['images']} test images unfamiliar")
    if unfamiliar and not unfamiliar["reached"]:
        lines.append(
            f"warn: {unfamiliar['validation']['images']} validation images are too few to choose a "
            f"distance with {unfamiliar['false_alarms']:.1%} false alarms; the largest of their "
            "distances is the threshold"
        )
    return lines


def rate_confidence(predictions: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the top probability of each image, and whether that class is correct."""
    labels, probabilities = to_arrays(predictions)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def find_confidence(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], accuracy: float
) -> tuple[float, bool]:
    """Return the lowest confidence that reaches this accuracy, and whether there is one.

    - If all images together reach the accuracy, it is 0.
    - If the `LEAST` or more most confident images reach it, it is half way to the next confidence.
    - Otherwise it is `NEVER`: the model should not answer.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, answered = confidence[order], np.arange(1, len(order) + 1)
    last_of_equals = np.append(sure[:-1] > sure[1:], True)[: len(sure)]
    enough = last_of_equals & (answered >= LEAST) & (right[order].cumsum() >= accuracy * answered)
    if not enough.any():
        return NEVER, False
    last = int(np.flatnonzero(enough)[-1])
    return (0.0 if last + 1 == len(sure) else _halve(sure[last + 1], sure[last])), True


def find_distance(distances: NDArray[np.float64], false_alarms: float) -> tuple[float | None, bool]:
    """Return the distance that only this share of new images exceeds, and whether it is reached.

    The mean share of false alarms is guaranteed for new images like the validation images: among
    n + 1 images in random order, each rank of the new one is equally likely (Vovk et al. 2005).
    Fewer than 1 / false_alarms images are too few: the largest distance is returned, or None if
    there are no images.
    """
    ordered = np.sort(distances)
    rank = math.ceil((1 - false_alarms) * (len(ordered) + 1) - 1e-9)
    if len(ordered) == 0:
        return None, False
    if rank >= len(ordered):
        return float(ordered[-1]), rank == len(ordered)
    return _halve(ordered[rank - 1], ordered[rank]), True


def measure_abstention(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], threshold: float
) -> dict[str, float | None]:
    """Return the answered images, their share, and their accuracy with its 95 % Wilson interval."""
    answered = confidence >= threshold
    count, hits = int(answered.sum()), int(right[answered].sum())
    interval = binomtest(hits, count).proportion_ci(0.95, "wilson") if count else None
    return {
        "images": len(confidence),
        "answered": count,
        "coverage": _round(count / len(confidence)) if len(confidence) else None,
        "accuracy": _round(hits / count) if count else None,
        "accuracy_low": _round(interval.low) if interval else None,
        "accuracy_high": _round(interval.high) if interval else None,
    }


def count_alarms(
    distances: NDArray[np.float64], threshold: float | None
) -> dict[str, float | None]:
    """Return how many images are called unfamiliar, and their share."""
    count = 0 if threshold is None else int((distances > threshold).sum())
    return {
        "images": len(distances),
        "alarms": count,
        "false_alarms": _round(count / len(distances)) if len(distances) else None,
    }


def _halve(lower: float, upper: float) -> float:
    """Return the middle of two numbers, so that rounding either does not move it across."""
    return float(f"{(lower + upper) / 2:.9g}")


def _round(value: float) -> float:
    return float(f"{value:.7g}")
