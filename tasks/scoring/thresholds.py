"""When a model should say that it does not know: below which confidence, beyond which distance. Validation images choose both.

Tables in, numbers out: `predictions` is `predictions.csv`. What the thresholds give stands with them, on the validation
images, which chose them, and on the test images, which did not.
"""

import math

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tasks.scoring.predictions import arrays

LEAST = 10  # answered validation images that a confidence is chosen by: with fewer, chance would
NEVER = 1.0  # the confidence that (nearly) no answer has


def choose(
    predictions: pd.DataFrame, accuracy: float | None, false_alarms: float | None
) -> dict[str, object]:
    """Return `confidence` and `distance`, the thresholds, and `abstain` and `unfamiliar`, what they give.

    A model abstains where its top probability is below `confidence`; an image is unfamiliar where its distance is larger
    than `distance`. None switches either off, its threshold is None then.
    """
    parts = {part: predictions[predictions.split == part] for part in ("validation", "test")}
    chosen: dict[str, object] = {
        "confidence": None,
        "distance": None,
        "abstain": None,
        "unfamiliar": None,
    }
    if accuracy is not None:
        confidence, reached = lowest_confidence(*certainty(parts["validation"]), accuracy)
        given = {part: abstaining(*certainty(rows), confidence) for part, rows in parts.items()}
        chosen |= {
            "confidence": confidence,
            "abstain": {"accuracy": accuracy, "reached": reached, **given},
        }
    if false_alarms is not None:
        distance, reached = largest_distance(parts["validation"].distance.to_numpy(), false_alarms)
        given = {part: alarms(rows.distance.to_numpy(), distance) for part, rows in parts.items()}
        chosen |= {
            "distance": distance,
            "unfamiliar": {"false_alarms": false_alarms, "reached": reached, **given},
        }
    return chosen


def in_words(chosen: dict) -> list[str]:
    """Say what the thresholds give on the test images, and which of them validation could not fulfil."""
    lines, abstain, unfamiliar = [], chosen["abstain"], chosen["unfamiliar"]
    if abstain:
        test = abstain["test"]
        right = "" if test["accuracy"] is None else f", {test['accuracy']:.1%} of them rightly"
        lines.append(f"answers {test['answered']} of {test['images']} test images{right}")
    if abstain and not abstain["reached"]:
        lines.append(
            f"warn: the surest validation images, {LEAST} or more, are never right to {abstain['accuracy']:.1%}: it always abstains"
        )
    if unfamiliar:
        lines.append(
            f"calls {unfamiliar['test']['alarms']} of {unfamiliar['test']['images']} test images unfamiliar"
        )
    if unfamiliar and not unfamiliar["reached"]:
        lines.append(
            f"warn: {unfamiliar['validation']['images']} validation images cannot tell what {unfamiliar['false_alarms']:.1%} false "
            "alarms are: what is farther than all of them is unfamiliar"
        )
    return lines


def certainty(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the top probability of each image, and whether that class is right, both of shape (images,)."""
    labels, probabilities = arrays(predictions)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def lowest_confidence(
    confidence: np.ndarray, right: np.ndarray, accuracy: float
) -> tuple[float, bool]:
    """Return the lowest confidence from which on answers are right at least that often, and whether there is one.

    It is 0 where all answers together are right often enough, half way between two images' confidences elsewhere, and
    `NEVER` where no `LEAST` answers are: a model that cannot be as good as asked had better not answer.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, answered = confidence[order], np.arange(1, len(order) + 1)
    last_of_equals = np.append(sure[:-1] > sure[1:], True)[: len(sure)]
    enough = last_of_equals & (answered >= LEAST) & (right[order].cumsum() >= accuracy * answered)
    if not enough.any():
        return NEVER, False
    last = int(np.flatnonzero(enough)[-1])
    return (0.0 if last + 1 == len(sure) else _between(sure[last + 1], sure[last])), True


def largest_distance(distances: np.ndarray, false_alarms: float) -> tuple[float | None, bool]:
    """Return the distance that new images of the same kind exceed at most that often, and whether so few images can tell.

    The mean share of false alarms is guaranteed for images drawn as the validation images were (Vovk et al. 2005: of n + 1
    images in random order the new one has any rank). Fewer than 1 / false_alarms images cannot tell; the largest
    distance is returned then, and None without images.
    """
    ordered = np.sort(distances)
    rank = math.ceil((1 - false_alarms) * (len(ordered) + 1) - 1e-9)
    if rank > len(ordered):
        return (float(ordered[-1]) if len(ordered) else None), False
    return (
        float(ordered[-1]) if rank == len(ordered) else _between(ordered[rank - 1], ordered[rank])
    ), True


def abstaining(
    confidence: np.ndarray, right: np.ndarray, threshold: float
) -> dict[str, float | None]:
    """Return images, answered, coverage, and the accuracy of the answers with its 95 % Wilson interval."""
    answered = confidence >= threshold
    count, hits = int(answered.sum()), int(right[answered].sum())
    interval = binomtest(hits, count).proportion_ci(0.95, "wilson") if count else None
    return {
        "images": len(confidence),
        "answered": count,
        "coverage": _digits(count / len(confidence)) if len(confidence) else None,
        "accuracy": _digits(hits / count) if count else None,
        "accuracy_low": _digits(interval.low) if interval else None,
        "accuracy_high": _digits(interval.high) if interval else None,
    }


def alarms(distances: np.ndarray, threshold: float | None) -> dict[str, float | None]:
    """Return images, how many of them are called unfamiliar, and their share."""
    count = 0 if threshold is None else int((distances > threshold).sum())
    return {
        "images": len(distances),
        "alarms": count,
        "false_alarms": _digits(count / len(distances)) if len(distances) else None,
    }


def _between(lower: float, upper: float) -> float:
    """Half way, so that rounding of an image's own number does not change what happens to it."""
    return float(f"{(lower + upper) / 2:.9g}")


def _digits(value: float) -> float:
    return float(f"{value:.7g}")
