"""Scores with known answers, counted by hand; no score is invented where it is not defined."""

import numpy as np
import pytest

from tasks.scoring.metrics import (
    count_confusions,
    describe_overfitting,
    measure_areas,
    score,
    score_classes,
    trace_curves,
)

CLASSES = ["a", "b", "c"]
LABELS = np.array([0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.5, 0.2, 0.3]]
)
# predicted a b b b a: of a one of two is right, of b both, of c none; c is never predicted


def test_scores_by_hand() -> None:
    scores = score(LABELS, PROBABILITIES)
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (1 / 2 + 1 + 0) / 3,
        "macro_precision": (1 / 2 + 2 / 3 + 0) / 3,
        "macro_recall": (1 / 2 + 1 + 0) / 3,
        "macro_f1": (1 / 2 + 4 / 5 + 0) / 3,
        "weighted_precision": (2 * 1 / 2 + 2 * 2 / 3 + 0) / 5,
        "weighted_recall": 3 / 5,
        "weighted_f1": (2 * 1 / 2 + 2 * 4 / 5 + 0) / 5,
        "log_loss": -np.log([0.8, 0.3, 0.7, 0.5, 0.3]).mean(),
        "roc_auc": (5 / 6 + 5 / 6 + 3 / 4) / 3,
        "pr_auc": (5 / 6 + 5 / 6 + 1 / 2) / 3,
    }
    assert scores == pytest.approx(expected)


def test_areas_by_hand() -> None:
    """For a, 5 of 6 pairs of an image of a and another image are in order; for c, 3 of 4.

    Ranked by the probability of a, its images come first and third.
    """
    table = measure_areas(LABELS, PROBABILITIES)
    assert table.roc_auc.tolist() == pytest.approx([5 / 6, 5 / 6, 3 / 4])
    assert table.pr_auc.tolist() == pytest.approx(
        [1 / 2 * 1 + 1 / 2 * 2 / 3, 1 / 2 * 1 + 1 / 2 * 2 / 3, 1 / 2]
    )


def test_equal_probabilities_count_half() -> None:
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    table = measure_areas(np.array([0, 1, 0, 1]), probabilities)
    assert table.roc_auc.tolist() == pytest.approx([(0.5 + 1 + 1 + 1) / 4] * 2)
    assert table.pr_auc.tolist() == pytest.approx(
        [1 / 2 * 1 + 1 / 2 * 2 / 3] * 2
    )  # the tied pair comes in one step


def test_a_tie_goes_to_the_first_class() -> None:
    tied = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert score(np.array([0, 1]), tied)["accuracy"] == 1
    assert score(np.array([1, 2]), tied)["accuracy"] == 0


def test_per_class_by_hand() -> None:
    table = score_classes(LABELS, PROBABILITIES, CLASSES).set_index("label")
    assert table.loc["a", ["precision", "recall", "f1", "support"]].tolist() == [
        1 / 2,
        1 / 2,
        1 / 2,
        2,
    ]
    assert table.loc["b", ["precision", "recall", "f1", "support"]].tolist() == pytest.approx(
        [2 / 3, 1, 4 / 5, 2]
    )
    assert table.loc["c", ["recall", "f1", "support"]].tolist() == [0, 0, 1]
    assert np.isnan(table.precision["c"])  # it is never predicted
    assert (
        table[["roc_auc", "pr_auc"]].values.tolist()
        == measure_areas(LABELS, PROBABILITIES).values.tolist()
    )


def test_confusion_by_hand() -> None:
    table = count_confusions(LABELS, PROBABILITIES, CLASSES)
    assert list(zip(table.actual, table.predicted, strict=True)) == [
        (one, other) for one in CLASSES for other in CLASSES
    ]
    assert table["count"].tolist() == [1, 1, 0, 0, 2, 0, 1, 0, 0]
    assert table.share.tolist() == [0.5, 0.5, 0, 0, 1, 0, 1, 0, 0]


def test_a_class_without_images() -> None:
    """It has no recall, no curve, no part in the macro averages. Undefined scores are absent."""
    labels, probabilities = LABELS[:4], PROBABILITIES[:4]
    table = score_classes(labels, probabilities, CLASSES).set_index("label")
    assert table.support["c"] == 0 and table.loc["c"].drop("support").isna().all()
    scores = score(labels, probabilities)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores["balanced_accuracy"] == scores["macro_recall"] == pytest.approx(3 / 4)
    for name in ("roc_auc", "pr_auc"):
        assert scores[name] == pytest.approx(
            np.mean(measure_areas(labels, probabilities)[name][:2])
        )
    assert count_confusions(labels, probabilities, CLASSES).share.tolist()[-3:] == [0, 0, 0]
    assert [set(curve.label) for curve in trace_curves(labels, probabilities, CLASSES)] == [
        {"a", "b"}
    ] * 2


def test_a_class_without_images_that_is_predicted() -> None:
    """It has no recall, but precision 0; the class that is there loses recall by it."""
    labels, probabilities = np.array([0, 0]), PROBABILITIES[:2]
    table = score_classes(labels, probabilities, CLASSES).set_index("label")
    assert table.precision["b"] == table.f1["b"] == 0 and np.isnan(table.recall["b"])
    assert score(labels, probabilities)["macro_f1"] == pytest.approx(2 / 3)
    assert not {"roc_auc", "pr_auc"} & score(labels, probabilities).keys()


def test_one_image() -> None:
    scores = score(np.array([1]), PROBABILITIES[2:3])
    assert scores["accuracy"] == 1 and scores["log_loss"] == pytest.approx(-np.log(0.7))
    assert scores["macro_f1"] == 1 and not {"roc_auc", "pr_auc"} & scores.keys()
    roc, pr = trace_curves(np.array([1]), PROBABILITIES[2:3], CLASSES)
    assert roc.empty and pr.empty
    assert score(np.array([0]), PROBABILITIES[2:3])["macro_f1"] == 0


def test_rounded_probabilities_are_taken_as_they_are() -> None:
    """Seven digits in a table do not sum to one exactly."""
    assert score(LABELS, PROBABILITIES.round(7) * (1 + 1e-7)) == pytest.approx(
        score(LABELS, PROBABILITIES)
    )


def test_curves_by_hand() -> None:
    roc, pr = trace_curves(
        np.array([0, 0, 1, 1]),
        np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]),
        ["a", "b"],
    )
    first = roc[roc.label == "a"]
    assert list(zip(first.fpr, first.tpr, strict=True)) == [
        (0, 0),
        (0, 0.5),
        (0.5, 0.5),
        (0.5, 1),
        (1, 1),
    ]
    first = pr[pr.label == "a"]
    assert list(zip(first.recall, first.precision, strict=True)) == [
        (1, 1 / 2),
        (1, 2 / 3),
        (0.5, 1 / 2),
        (0.5, 1),
        (0, 1),
    ]


def test_two_classes_have_one_area_though_the_surer_probability_is_rounded() -> None:
    """Seven digits round 0.999999999 to 1. For both classes, 2 of 4 pairs are in order."""
    probabilities = np.array([[1, 2e-9], [0.4, 0.6], [1, 1e-9], [0.1, 0.9]])
    labels = np.array([0, 0, 1, 1])
    assert measure_areas(labels, probabilities).roc_auc.tolist() == [2 / 4, 2 / 4]
    roc, _ = trace_curves(labels, probabilities, ["not_photo", "photo"])
    assert roc.groupby("label").size().to_dict() == {"not_photo": 4, "photo": 4}


def test_two_classes_by_hand() -> None:
    """One sigmoid: `photo` is the positive class, and `not_photo` has its own row."""
    labels = np.array([0, 0, 0, 1, 1])
    p_photo = np.array([0.1, 0.2, 0.7, 0.4, 0.9])
    probabilities = np.stack([1 - p_photo, p_photo], axis=1)
    table = score_classes(labels, probabilities, ["not_photo", "photo"]).set_index("label")
    assert table.loc["photo"].tolist() == pytest.approx(
        [1 / 2, 1 / 2, 1 / 2, 2, 5 / 6, (1 + 2 / 3) / 2]
    )
    assert table.loc["not_photo"].tolist() == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3, 3, 5 / 6, (1 + 1 + 3 / 4) / 3]
    )
    assert score(labels, probabilities)["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert score(labels, probabilities)["log_loss"] == pytest.approx(
        -np.log([0.9, 0.8, 0.3, 0.4, 0.9]).mean()
    )
    roc, pr = trace_curves(labels, probabilities, ["not_photo", "photo"])
    photo = roc[roc.label == "photo"]
    assert photo.fpr.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1]) and photo.tpr.tolist() == [
        0,
        0.5,
        0.5,
        1,
        1,
    ]
    photo = pr[pr.label == "photo"]
    assert photo.recall.tolist() == [
        1,
        1,
        0.5,
        0.5,
        0,
    ]  # of the three points of recall 1 the one within is left out
    assert photo.precision.tolist() == pytest.approx([2 / 5, 2 / 3, 1 / 2, 1, 1])
    assert count_confusions(labels, probabilities, ["not_photo", "photo"])["count"].tolist() == [
        2,
        1,
        1,
        1,
    ]


def test_the_verdict_on_overfitting() -> None:
    expected = {0.81: "none", 0.79: "some", 0.71: "some", 0.69: "strong", 1.0: "none"}
    assert {val: describe_overfitting(0.9, val, gap=0.1) for val in expected} == expected
