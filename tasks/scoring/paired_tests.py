"""Test each winner against the other models of its question. These tests choose nothing."""

from collections.abc import Iterable, Mapping

import pandas as pd

from tasks.scoring.predictions import to_arrays
from tasks.scoring.statistics import Pair, adjust_by_holm, bootstrap_difference, run_mcnemar

PAIRED_TESTS_COLUMNS = {
    "question": "Question that both models answer.",
    "winner": "Model with the best validation score.",
    "other": "Model that the winner is tested against.",
    "images": "Number of test images.",
    "groups": "Number of groups of these images. Copies and images of one patient are one group.",
    "winner_alone": "Groups for which the winner is right more often.",
    "other_alone": "Groups for which the other model is right more often.",
    "p": "p-value of McNemar's exact test.",
    "p_holm": "The same p-value, adjusted by Holm for the number of tests.",
    "macro_f1_difference": "Macro F1 of the winner minus macro F1 of the other model.",
    "macro_f1_difference_low": "Lower end of the 95 % bootstrap interval. Not adjusted.",
    "macro_f1_difference_high": "Upper end of the 95 % bootstrap interval. Not adjusted.",
}


def run_paired_tests(
    ranked: Mapping[str, Iterable[str]], predictions: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return one row for each model that did not win its question, in the order of `ranked`.

    `ranked` is {question: models, the winner first}. `predictions` have the column `group` and the
    same images in the same order. As in the gate, a group counts once.
    """
    rows: list[dict[str, object]] = []
    for question, (winner, *others) in ranked.items():
        pairs = [_make_pair(predictions[winner], predictions[other]) for other in others]
        tests = [
            run_mcnemar(pair.first == pair.labels, pair.second == pair.labels, pair.groups)
            for pair in pairs
        ]
        adjusted = adjust_by_holm([test.p for test in tests])
        for other, pair, test, p_holm in zip(others, pairs, tests, adjusted, strict=True):
            interval = bootstrap_difference(pair)
            cells = (
                *(question, winner, other, len(pair.labels), pd.Series(pair.groups).nunique()),
                *(test.gains, test.losses, test.p, p_holm),
                *(interval.difference, interval.low, interval.high),
            )
            rows.append(dict(zip(PAIRED_TESTS_COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=list(PAIRED_TESTS_COLUMNS))


def _make_pair(winner: pd.DataFrame, other: pd.DataFrame) -> Pair:
    test = winner.split == "test"
    labels, probabilities = to_arrays(winner[test])
    first, second = (to_arrays(table[test])[1].argmax(axis=1) for table in (winner, other))
    return Pair(labels, first, second, probabilities.shape[1], winner.group[test])
