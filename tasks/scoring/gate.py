"""Check a challenger for promotion: its own scores, then the champion on the same images.

The gate has a stated error rate. A challenger that is no better passes McNemar's exact test at
`confidence` in at most (1 - confidence) / 2 of the evaluations: 2.5 % by default, for any number of
images. The challenger must also pass two other criteria: the interval of the macro F1 difference
lies above 0, and no class loses `recall_margin`. So the rate of the whole gate is lower.
`python -m bench.gate` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from tasks.params.register import Gate
from tasks.scoring.statistics import (
    Interval,
    McNemar,
    Pair,
    bootstrap_difference,
    compare_recalls,
    run_mcnemar,
)


@dataclass(frozen=True)
class Check:
    """One criterion: whether it is met, and a text with its numbers."""

    name: str
    met: bool
    text: str


def check_scores(
    scores: dict[str, float], gate: Gate | None
) -> tuple[list[Check], dict[str, float]]:
    """Check the test scores against the limits of the gate. Return the checks and the numbers.

    `scores` are metrics such as `test_macro_f1`. There are no checks if the gate is None.
    """
    recalls = {
        name.removeprefix("test_recall_"): value
        for name, value in scores.items()
        if name.startswith("test_recall_")
    }
    worst = min(recalls, key=lambda label: recalls[label])
    numbers = {
        "macro_f1": scores["test_macro_f1"],
        "worst_recall": recalls[worst],
        "calibration_error": scores["test_calibration_error"],
    }
    if gate is None:
        return [], numbers
    checks = []
    for name, words, limit in (
        ("macro_f1", "macro F1", gate.macro_f1),
        ("worst_recall", f"recall of {worst}, the worst class,", gate.worst_recall),
    ):
        if limit is not None:
            text = f"{words} {numbers[name]:.3f}, wanted at least {limit:g}"
            checks.append(Check(name, numbers[name] >= limit, text))
    if gate.calibration_error is not None:
        error = numbers["calibration_error"]
        text = f"calibration error {error:.3f}, wanted at most {gate.calibration_error:g}"
        checks.append(Check("calibration_error", error <= gate.calibration_error, text))
    return checks, numbers


def check_against_champion(
    predictions: pd.DataFrame, classes: Sequence[str], gate: Gate
) -> tuple[list[Check], dict[str, object]]:
    """Check the challenger's predictions against the champion's. Return the checks and the numbers.

    `predictions` has the columns label, predicted (by the challenger) and champion, and may have
    the column group.
    """
    position = {label: index for index, label in enumerate(classes)}
    truth, ours, theirs = (
        np.array([position[label] for label in predictions[column]], dtype=np.int64)
        for column in ("label", "predicted", "champion")
    )
    pair = Pair(truth, ours, theirs, len(classes), predictions.get("group"))
    interval = bootstrap_difference(pair, gate.confidence)
    tosses = run_mcnemar(ours == truth, theirs == truth, pair.groups)
    recalls = compare_recalls(pair, classes, gate.confidence)
    scores = [
        float(f1_score(truth, said, labels=range(len(classes)), average="macro", zero_division=0))
        for said in (ours, theirs)
    ]
    numbers = {
        "compared_images": len(truth),
        "challenger_macro_f1": scores[0],
        "champion_macro_f1": scores[1],
        "difference": interval.difference,
        "difference_low": interval.low,
        "difference_high": interval.high,
        "gains": tosses.gains,
        "losses": tosses.losses,
        "mcnemar_p": tosses.p,
        "recalls": recalls.rename(columns={"first": "challenger", "second": "champion"}).to_dict(
            "records"
        ),
    }
    checks = [_check_difference(scores, interval, gate.confidence), _check_tosses(tosses, gate)]
    if gate.recall_margin is not None:
        checks.append(_check_recalls(recalls, gate.recall_margin))
    return checks, numbers


def _check_difference(scores: Sequence[float], interval: Interval, confidence: float) -> Check:
    text = (
        f"macro F1 {scores[0]:.3f} against {scores[1]:.3f}, "
        f"{100 * confidence:g} % interval of the difference {interval.low:+.3f} to "
        f"{interval.high:+.3f}, wanted above 0"
    )
    return Check("difference", interval.low > 0, text)


def _check_tosses(tosses: McNemar, gate: Gate) -> Check:
    limit = 1 - gate.confidence
    text = (
        f"right alone {tosses.gains} times, champion right alone {tosses.losses} times, "
        f"McNemar's exact p {tosses.p:.3g}, wanted more often right and p at most {limit:.3g}"
    )
    return Check("mcnemar", tosses.gains > tosses.losses and tosses.p <= limit, text)


def _check_recalls(recalls: pd.DataFrame, margin: float) -> Check:
    worst = recalls.loc[recalls.low.idxmin()]
    lost = recalls.label[recalls.low <= -margin]
    also = f" (as in {len(lost) - 1} other classes)" if len(lost) > 1 else ""
    text = (
        f"recall of {worst.label} {worst['first']:.3f} against {worst.second:.3f} on "
        f"{worst.images} images, lower limit of the difference {worst.low:+.3f}{also}, "
        f"wanted above -{margin:g}"
    )
    return Check("recalls", lost.empty, text)
