"""Calibration, its undoing, and the accuracy of sure answers, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from tasks.scoring.calibration import (
    STEPS,
    measure_brier,
    measure_calibration,
    measure_coverage,
    undo_scaling,
)

SURE = np.array([[0.9, 0.1], [0.2, 0.8], [0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
TRUTH = np.array(
    [0, 0, 0, 1, 1]
)  # right, wrong, right, right, and a tie that goes to the first class: wrong


def test_calibration_by_hand() -> None:
    """The third bin has 0.55 and 0.45, one of them right. 0.75 is wrong; 0.9 and 1 are right."""
    confidence = np.array([0.55, 0.45, 0.75, 0.9, 1.0])
    right = [True, False, False, True, True]
    probabilities = np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], axis=1)
    error, rows = measure_calibration(np.where(right, 0, 1), probabilities, 5)
    expected = pd.DataFrame(
        {"confidence": [0.5, 0.75, 0.95], "accuracy": [0.5, 0, 1], "count": [2, 1, 2]}
    )
    pd.testing.assert_frame_equal(rows, expected)
    assert error == pytest.approx((2 * 0 + 1 * 0.75 + 2 * 0.05) / 5)


def test_calibration_of_two_classes_and_of_one_image() -> None:
    error, rows = measure_calibration(TRUTH, SURE, 5)  # confidences 0.5 | 0.6 | 0.9, 0.8, 0.8
    assert rows.confidence.tolist() == pytest.approx([0.5, 0.6, 2.5 / 3]) and rows[
        "count"
    ].tolist() == [1, 1, 3]
    assert error == pytest.approx((0.5 + 0.4 + 3 * (2.5 / 3 - 2 / 3)) / 5)
    assert measure_calibration(np.array([0]), SURE[:1], 10)[0] == pytest.approx(0.1)


def test_brier_by_hand() -> None:
    """0.3^2 + 0.2^2 + 0.1^2, and 0.7^2 + 0.8^2 + 0.1^2. The third class has no image."""
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    assert measure_brier(np.array([0, 1]), probabilities) == pytest.approx((0.14 + 1.14) / 2)
    assert measure_brier(np.array([0]), probabilities[:1]) == pytest.approx(0.14)


def test_brier_of_two_classes_counts_both() -> None:
    assert measure_brier(TRUTH, SURE) == pytest.approx(
        2 * (0.1**2 + 0.8**2 + 0.2**2 + 0.4**2 + 0.5**2) / 5
    )
    assert (
        measure_brier(np.array([0, 1]), np.eye(2)) == 0
        and measure_brier(np.array([1, 0]), np.eye(2)) == 2
    )


def test_scaling_is_undone() -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(50, 3))

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    for temperature in (0.5, 3.0):
        undone = undo_scaling(softmax(logits / temperature), temperature)
        assert undone == pytest.approx(softmax(logits))
    # and a probability of nothing stays nothing
    assert undo_scaling(np.array([[1.0, 1e-300, 0.0], [0.5, 0.5, 0.0]]), 4.0).tolist() == [
        [1, 0, 0],
        [0.5, 0.5, 0],
    ]


def test_coverage_by_hand() -> None:
    """By confidence: 0.9 right; 0.8 wrong and right together; 0.6 right; 0.5 wrong."""
    expected = {
        "coverage": [1 / 5, 3 / 5, 4 / 5, 1],
        "images": [1, 3, 4, 5],
        "confidence": [0.9, 0.8, 0.6, 0.5],
        "accuracy": [1, 2 / 3, 3 / 4, 3 / 5],
    }
    pd.testing.assert_frame_equal(measure_coverage(TRUTH, SURE), pd.DataFrame(expected))
    assert measure_coverage(np.array([1]), SURE[:1]).values.tolist() == [[1, 1, 0.9, 0]]


def test_coverage_of_many_images_is_short_and_ends_with_all() -> None:
    top = np.random.default_rng(0).uniform(0.5, 1, 10_000)
    table = measure_coverage(np.zeros(10_000, int), np.stack([top, 1 - top], axis=1))
    assert (
        len(table) == STEPS
        and table.images.iloc[-1] == 10_000
        and table.images.is_monotonic_increasing
    )
    for row in table.itertuples():
        assert row.images == (top >= row.confidence).sum()
