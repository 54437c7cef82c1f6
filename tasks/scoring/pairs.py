"""Each winner against the other models of its question, on the same test images. These tests describe and choose nothing."""

from collections.abc import Iterable, Mapping

import pandas as pd

from tasks.scoring.predictions import arrays
from tasks.scoring.statistics import bootstrap_macro_f1, holm, mcnemar

COLUMNS = [
    "question", "winner", "other", "images", "groups", "winner_alone", "other_alone", "p", "p_holm", "macro_f1_difference",
    "macro_f1_difference_low", "macro_f1_difference_high",
]  # fmt: skip


def pair(
    ranked: Mapping[str, Iterable[str]], predictions: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return one row per model that did not win its question, in the order of `ranked`, {question: models, the winner first}.

    McNemar's exact test, and the difference of the macro F1 with its 95 % paired bootstrap interval. Both keep groups
    together, as the gate does: a group is one toss, for the model that is right on more of its images. `p_holm` is
    corrected for the number of models that the winner is held against; the intervals are not.
    """
    rows: list[dict[str, object]] = []
    for question, (winner, *others) in ranked.items():
        tests = [
            {"question": question, "winner": winner, "other": other}
            | against(predictions[winner], predictions[other])
            for other in others
        ]
        corrected = holm([test["p"] for test in tests])
        rows += [test | {"p_holm": p} for test, p in zip(tests, corrected, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def against(winner: pd.DataFrame, other: pd.DataFrame) -> dict[str, object]:
    """Return what the answers of two models to the same images, in the same order and with their groups, tell."""
    test = winner.split == "test"
    labels, probabilities = arrays(winner[test])
    said = [arrays(table[test])[1].argmax(axis=1) for table in (winner, other)]
    groups = winner.group[test]
    tosses = mcnemar(*(answers == labels for answers in said), groups)
    interval = bootstrap_macro_f1(labels, *said, probabilities.shape[1], groups)
    return {
        "images": len(labels),
        "groups": groups.nunique(),
        "winner_alone": tosses.gains,
        "other_alone": tosses.losses,
        "p": tosses.p,
        "macro_f1_difference": interval.difference,
        "macro_f1_difference_low": interval.low,
        "macro_f1_difference_high": interval.high,
    }
