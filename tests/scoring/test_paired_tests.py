"""The winner against the others: counted by hand, and once for each group."""

import numpy as np
import pandas as pd
import pytest

from tasks.scoring.paired_tests import PAIRED_TESTS_COLUMNS, run_paired_tests

LABELS = np.array(list("ab") * 30)


def predictions(wrong: list[int], groups: list[str] | None = None) -> pd.DataFrame:
    """Predict 60 test images, those in `wrong` wrongly, and one validation image wrongly."""
    p_a = np.where(LABELS == "a", 0.9, 0.1)
    p_a[wrong] = 1 - p_a[wrong]
    test = pd.DataFrame(
        {"path": [f"{number:02}" for number in range(60)], "label": LABELS, "split": "test"}
    )
    test = test.assign(
        predicted=np.where(p_a > 0.5, "a", "b"),
        p_a=p_a,
        p_b=1 - p_a,
        group=groups or list(test.path),
    )
    rest = pd.DataFrame([("v", "a", "validation", "b", 0.0, 1.0, "v")], columns=list(test))
    return pd.concat([test, rest])


def test_mcnemar_and_holm_by_hand() -> None:
    """`best` fails on 2 images, `second` on 5 others, `third` on the same 2 and 10 more."""
    answers = {
        "best": predictions([0, 1]),
        "second": predictions([2, 3, 4, 5, 6]),
        "third": predictions(list(range(12))),
    }
    table = run_paired_tests({"all classes": ["best", "second", "third"]}, answers)
    assert table.columns.tolist() == list(PAIRED_TESTS_COLUMNS)
    counts = ["winner", "other", "images", "groups", "winner_alone", "other_alone"]
    assert table[counts].values.tolist() == [
        ["best", "second", 60, 60, 5, 2],
        ["best", "third", 60, 60, 10, 0],
    ]
    p = [2 * (1 + 7 + 21) / 2**7, 2 / 2**10]
    assert table.p.tolist() == pytest.approx(p) and table.p_holm.tolist() == pytest.approx(
        [p[0], 2 * p[1]]
    )
    # of 60 images, 30 of each class; best: one of a taken for b and one the other way
    macro_f1 = [(2 * 29 / 60), (2 * 27 / 59 + 2 * 28 / 61) / 2, 2 * 24 / 60]
    assert table.macro_f1_difference.tolist() == pytest.approx(
        [macro_f1[0] - macro_f1[1], macro_f1[0] - macro_f1[2]]
    )
    assert (table.macro_f1_difference_low < table.macro_f1_difference).all()
    assert table.macro_f1_difference_low[1] > 0 > table.macro_f1_difference_low[0]


def test_a_group_is_one_toss() -> None:
    """The 10 images on which `second` alone is wrong are of two patients."""
    groups = [f"p{number // 5}" for number in range(60)]
    answers = {"best": predictions([], groups), "second": predictions(list(range(10)), groups)}
    table = run_paired_tests({"q": ["best", "second"]}, answers)
    assert table[
        ["images", "groups", "winner_alone", "other_alone", "p", "p_holm"]
    ].values.tolist() == [[60, 12, 2, 0, 0.5, 0.5]]


def test_each_question_has_its_own_tests() -> None:
    answers = {name: predictions([0]) for name in ("one", "two", "alone")}
    table = run_paired_tests({"q": ["one", "two"], "r": ["alone"]}, answers)
    assert table.question.tolist() == ["q"] and table.p.tolist() == [1]
    assert table[["macro_f1_difference_low", "macro_f1_difference_high"]].values.tolist() == [
        [0, 0]
    ]
    assert run_paired_tests({"r": ["alone"]}, answers).empty and run_paired_tests(
        {"r": ["alone"]}, answers
    ).columns.tolist() == list(PAIRED_TESTS_COLUMNS)
