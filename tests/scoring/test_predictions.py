"""Predictions as arrays, and as answers to a coarser question: the sums are counted by hand."""

import pandas as pd
import pytest

from tasks.errors import UserError
from tasks.params.questions import Question
from tasks.scoring.metrics import score
from tasks.scoring.predictions import add_groups, collapse, list_classes, to_arrays

ROWS = [
    (
        "1",
        "test",
        "a",
        "a",
        0.5,
        0.3,
        0.2,
    ),  # right alone; b and c together have as much, and come first
    ("2", "test", "b", "a", 0.4, 0.35, 0.25),  # wrong alone, right as "not a": 0.6
    ("3", "test", "c", "b", 0.1, 0.6, 0.3),  # wrong alone, right as "not a": 0.9
    ("4", "test", "a", "c", 0.3, 0.3, 0.4),  # wrong both ways
]
PREDICTIONS = pd.DataFrame(
    ROWS, columns=["path", "split", "label", "predicted", "p_a", "p_b", "p_c"]
)


def test_classes_are_in_the_order_of_the_outputs() -> None:
    rows = pd.DataFrame(
        {"label": ["10", "9", "NA"], "p_9": [0.1] * 3, "p_NA": [0.2] * 3, "p_10": [0.7] * 3}
    )
    labels, probabilities = to_arrays(rows)
    assert list_classes(rows) == ["9", "NA", "10"]
    assert labels.tolist() == [2, 0, 1] and probabilities.tolist() == [[0.1, 0.2, 0.7]] * 3


def test_probabilities_are_added_up() -> None:
    answers = collapse(PREDICTIONS, {"a": "a", "b": "not_a", "c": "not_a"}, ["not_a", "a"])
    assert answers.columns.tolist() == ["path", "split", "label", "predicted", "p_not_a", "p_a"]
    assert answers.label.tolist() == ["a", "not_a", "not_a", "a"]
    assert answers.p_not_a.tolist() == pytest.approx([0.5, 0.6, 0.9, 0.7])
    assert answers.p_a.tolist() == [0.5, 0.4, 0.1, 0.3]
    # the highest sum is predicted, and a tie goes to the first class
    assert answers.predicted.tolist() == ["not_a", "not_a", "not_a", "not_a"]
    answers = collapse(PREDICTIONS, {"a": "a", "b": "not_a", "c": "not_a"}, ["a", "not_a"])
    assert answers.predicted.tolist() == ["a", "not_a", "not_a", "not_a"]


def test_the_scores_of_the_answers_by_hand() -> None:
    """One of two images of a is right, and both others. The pair of 4 and 2 is out of order."""
    scores = score(
        *to_arrays(collapse(PREDICTIONS, {"a": "a", "b": "rest", "c": "rest"}, ["a", "rest"]))
    )
    assert scores["accuracy"] == 3 / 4 and scores["balanced_accuracy"] == (1 / 2 + 1) / 2
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores["roc_auc"] == pytest.approx(3 / 4)


def test_collapsing_twice_is_collapsing_once() -> None:
    """From all classes over groups to coarser groups, or at once."""
    columns = ["path", "split", "label", "predicted", "p_a", "p_b", "p_c", "p_d"]
    rows = pd.DataFrame([("1", "test", "d", "a", 0.4, 0.3, 0.2, 0.1)], columns=columns)
    fine = Question(labels={"x": ("a",), "y": ("b", "c"), "z": ("d",)})
    coarse = Question(labels={"q": ("b", "c", "d"), "p": ("a",)})
    at_once = collapse(rows, coarse.map_folders("abcd"), coarse.classes("abcd"))
    first = collapse(rows, fine.map_folders("abcd"), fine.classes("abcd"))
    second = collapse(first, fine.coarsen(coarse, "abcd"), coarse.classes("abcd"))
    pd.testing.assert_frame_equal(at_once, second)
    assert at_once.predicted.tolist() == ["q"] and at_once.label.tolist() == ["q"]


def test_what_has_a_copy_in_training() -> None:
    """`t1` shares a group with a training image, `t2` with a withheld one, `t3` with a test one."""
    rows = [
        ("a1", "training", "a1"), ("t1", "test", "a1"), ("a2", "withheld", "a2"),
        ("t2", "test", "a2"), ("t3", "test", "t3"),
        ("t4", "test", "t3"), ("v1", "validation", "v1"), ("t5", "test", "v1"),
    ]  # fmt: skip
    splits = pd.DataFrame(rows, columns=["path", "split", "group"])
    table = add_groups(splits.loc[splits.split == "test", ["path", "split"]][::-1], splits)
    assert table.group.tolist() == ["v1", "t3", "t3", "a2", "a1"]
    assert table.path[table.copied].tolist() == ["t2", "t1"]


def test_predictions_of_another_run_are_refused() -> None:
    splits = pd.DataFrame({"path": ["1"], "split": ["test"], "group": ["1"]})
    with pytest.raises(UserError, match="3 images that are not in splits.csv, such as 2"):
        add_groups(PREDICTIONS, splits)
