"""May a challenger become champion? The criteria on its own scores, and those against the champion on the same images.

The rule has a stated error rate. A challenger must be right where the champion is wrong more often than the other way
round, by McNemar's exact test at `confidence`: one that is no better passes at most (1 - confidence) / 2 of the looks,
2.5 % by default, however few images there are. Beyond that the interval of the macro F1's difference must lie above 0,
and no class may have lost `recall_margin`, so the rate of the whole is lower. `python -m bench.gate` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from tasks.params.register import Gate
from tasks.scoring.statistics import McNemar, bootstrap_macro_f1, mcnemar, recall_differences


@dataclass(frozen=True)
class Check:
    """One criterion: whether it is met, and in words by which numbers."""

    name: str
    met: bool
    text: str


def check_scores(
    scores: dict[str, float], gate: Gate | None
) -> tuple[list[Check], dict[str, float]]:
    """Hold the metrics of the test images, such as `test_macro_f1`, against the absolute criteria; return them, too.

    No gate has no criteria.
    """
    recalls = {
        name.removeprefix("test_recall_"): value
        for name, value in scores.items()
        if name.startswith("test_recall_")
    }
    worst = min(recalls, key=recalls.get)
    numbers = {
        "macro_f1": scores["test_macro_f1"],
        "worst_recall": recalls[worst],
        "calibration_error": scores["test_calibration_error"],
    }
    if gate is None:
        return [], numbers
    checks = [
        Check(name, value >= limit, f"{words} {value:.3f}, wanted at least {limit:g}")
        for name, words, value, limit in (
            ("macro_f1", "macro F1", numbers["macro_f1"], gate.macro_f1),
            (
                "worst_recall",
                f"recall of {worst}, the worst class,",
                numbers["worst_recall"],
                gate.worst_recall,
            ),
        )
        if limit is not None
    ]
    if gate.calibration_error is not None:
        error = numbers["calibration_error"]
        text = f"calibration error {error:.3f}, wanted at most {gate.calibration_error:g}"
        checks.append(Check("calibration_error", error <= gate.calibration_error, text))
    return checks, numbers


def compare(
    labels: Sequence[str],
    challenger: Sequence[str],
    champion: Sequence[str],
    classes: Sequence[str],
    groups: Sequence | None,
    gate: Gate,
) -> tuple[list[Check], dict[str, object]]:
    """Hold a challenger against the champion by what both say of the same images; return the numbers, too.

    All are class names of shape (images,), and so are `groups`, which name the images that belong together.
    """
    position = {label: index for index, label in enumerate(classes)}
    truth, ours, theirs = (
        np.array([position[label] for label in column], dtype=np.int64)
        for column in (labels, challenger, champion)
    )
    interval = bootstrap_macro_f1(truth, ours, theirs, len(classes), groups, gate.confidence)
    tosses = mcnemar(ours == truth, theirs == truth, groups)
    recalls = recall_differences(truth, ours, theirs, classes, groups, gate.confidence)
    scores = [
        float(
            f1_score(
                truth, predicted, labels=np.arange(len(classes)), average="macro", zero_division=0
            )
        )
        for predicted in (ours, theirs)
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
    checks = [_check_difference(numbers, gate), _check_tosses(tosses, gate)]
    return checks + (
        [_check_recalls(recalls, gate)] if gate.recall_margin is not None else []
    ), numbers


def _check_difference(numbers: dict[str, object], gate: Gate) -> Check:
    text = (
        f"macro F1 {numbers['challenger_macro_f1']:.3f} against {numbers['champion_macro_f1']:.3f}, "
        f"{100 * gate.confidence:g} % interval of the difference {numbers['difference_low']:+.3f} to "
        f"{numbers['difference_high']:+.3f}, wanted above 0"
    )
    return Check("difference", numbers["difference_low"] > 0, text)


def _check_tosses(tosses: McNemar, gate: Gate) -> Check:
    limit = 1 - gate.confidence
    text = (
        f"right alone {tosses.gains} times, champion right alone {tosses.losses} times, McNemar's exact p {tosses.p:.3g}, "
        f"wanted more often right and p at most {limit:.3g}"
    )
    return Check("mcnemar", tosses.gains > tosses.losses and tosses.p <= limit, text)


def _check_recalls(recalls: pd.DataFrame, gate: Gate) -> Check:
    worst = recalls.loc[recalls.low.idxmin()]
    lost = recalls.label[recalls.low <= -gate.recall_margin]
    also = f" (as in {len(lost) - 1} other classes)" if len(lost) > 1 else ""
    text = (
        f"recall of {worst.label} {worst['first']:.3f} against {worst.second:.3f} on {worst.images} images, lower limit of the "
        f"difference {worst.low:+.3f}{also}, wanted above -{gate.recall_margin:g}"
    )
    return Check("recalls", lost.empty, text)
