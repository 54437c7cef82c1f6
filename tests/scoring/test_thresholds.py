"""Thresholds are counted by hand, use validation images only, and odd sets give no traceback."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.params.evaluate import Abstain, Evaluate, Unfamiliar
from tasks.scoring.thresholds import (
    choose_thresholds,
    count_alarms,
    describe_thresholds,
    find_confidence,
    find_distance,
)
from tasks.tables import read_table


def table(
    confidence: list[float], right: list[bool], distances: list[float], split: str
) -> pd.DataFrame:
    """Make images of class a. The top probability is that of a if the image is right, else of b."""
    top, hit = np.array(confidence), np.array(right, bool)
    columns = {"p_a": np.where(hit, top, 1 - top), "p_b": np.where(hit, 1 - top, top)}
    return pd.DataFrame({"label": "a", "split": split, "distance": distances, **columns})


def choose(
    predictions: pd.DataFrame, accuracy: float | None, false_alarms: float | None
) -> dict[str, Any]:
    wanted = Evaluate(
        abstain=None if accuracy is None else Abstain(accuracy=accuracy),
        unfamiliar=None if false_alarms is None else Unfamiliar(false_alarms=false_alarms),
    )
    return choose_thresholds(predictions, wanted)


def known() -> pd.DataFrame:
    """Make 20 validation images: the surest 10 are right, 5 of the next 6, none of the last 4."""
    confidence = np.round(np.linspace(0.99, 0.61, 20), 2)
    right = [True] * 10 + [True, True, False, True, True, True] + [False] * 4
    validation = table(confidence, right, np.arange(1, 21) / 10, "validation")
    test = table([0.95, 0.7, 0.62, 0.55], [True, True, False, False], [0.5, 1.0, 3.0, 4.0], "test")
    return pd.concat([validation, test, test.assign(split="training")])


def test_the_lowest_confidence_that_is_right_often_enough() -> None:
    """15 of the first 16 are right, 15 of 17 are not enough; half way between 0.69 and 0.67."""
    chosen = choose(known(), 0.93, 0.1)
    assert chosen["confidence"] == pytest.approx(0.68)
    validation = chosen["abstain"]["validation"]
    assert (validation["images"], validation["answered"], validation["coverage"]) == (20, 16, 0.8)
    assert validation["accuracy"] == 15 / 16
    assert (validation["accuracy_low"], validation["accuracy_high"]) == pytest.approx(
        (0.7167, 0.9889), abs=1e-4
    )
    test = chosen["abstain"]["test"]
    assert (test["answered"], test["coverage"], test["accuracy"]) == (2, 0.5, 1)


def test_the_distance_leaves_room_for_the_image_to_come() -> None:
    """Of 21 images the new one is among the farthest two in 2 of 21 cases, less than one in ten."""
    chosen = choose(known(), 0.93, 0.1)
    assert chosen["distance"] == pytest.approx(1.95) and chosen["unfamiliar"]["reached"]
    assert chosen["unfamiliar"]["validation"] == {"images": 20, "alarms": 1, "false_alarms": 0.05}
    assert chosen["unfamiliar"]["test"] == {"images": 4, "alarms": 2, "false_alarms": 0.5}


def test_no_more_false_alarms_than_promised_on_new_images() -> None:
    rng = np.random.default_rng(0)
    shares = [
        (rng.random(2000) > find_distance(rng.random(60), 0.05)[0]).mean() for _ in range(400)
    ]
    assert 0.035 < np.mean(shares) < 0.052


def test_the_test_images_choose_nothing() -> None:
    changed = known()
    changed.loc[changed.split == "test", ["distance", "p_a", "p_b"]] = [0.0, 0.0, 1.0]
    before, after = choose(known(), 0.9, 0.1), choose(changed, 0.9, 0.1)
    assert (before["confidence"], before["distance"]) == (after["confidence"], after["distance"])
    assert before["abstain"]["test"] != after["abstain"]["test"]


def test_all_right_answers_everything_and_all_wrong_nothing() -> None:
    sure = np.linspace(0.5, 0.9, 30)
    assert find_confidence(sure, np.ones(30, bool), 0.95) == (0.0, True)
    assert find_confidence(sure, np.zeros(30, bool), 0.95) == (1.0, False)


def test_equal_confidences_are_answered_together() -> None:
    confidence, right = (
        np.array([0.9] * 12 + [0.8] * 4),
        np.array([True] * 12 + [True, True, True, False]),
    )
    assert find_confidence(confidence, right, 0.95) == (pytest.approx(0.85), True)
    assert find_confidence(confidence, right, 0.9) == (0.0, True)


def test_a_lucky_few_do_not_count() -> None:
    """The nine surest are right; that they are fewer than ten tells nothing of the next."""
    confidence, right = np.linspace(0.99, 0.6, 40), np.array([True] * 9 + [False] * 31)
    assert find_confidence(confidence, right, 0.95) == (1.0, False)
    assert find_confidence(confidence, right, 0.9) == (
        pytest.approx((confidence[9] + confidence[10]) / 2),
        True,
    )


@pytest.mark.parametrize("images", [0, 5])
def test_too_few_validation_images_are_told(images: int) -> None:
    few = table([0.9] * images, [True] * images, list(np.arange(images) + 0.5), "validation")
    chosen = choose(pd.concat([few, known().query("split == 'test'")]), 0.95, 0.02)
    assert chosen["confidence"] == 1.0 and not chosen["abstain"]["reached"]
    assert (
        chosen["distance"] == (images - 0.5 if images else None)
        and not chosen["unfamiliar"]["reached"]
    )
    assert sum(line.startswith("warn: ") for line in describe_thresholds(chosen)) == 2
    json.loads(json.dumps(chosen, allow_nan=False))


def test_one_class_and_no_test_images() -> None:
    validation = (
        known().query("split == 'validation'")[["label", "split", "distance"]].assign(p_a=1.0)
    )
    chosen = choose(validation, 0.95, 0.1)
    assert chosen["confidence"] == 0.0 and chosen["abstain"]["test"]["accuracy"] is None
    assert chosen["unfamiliar"]["test"] == {"images": 0, "alarms": 0, "false_alarms": None}
    json.loads(json.dumps(chosen, allow_nan=False))


def test_either_is_switched_off_by_itself() -> None:
    assert choose(known(), None, None) == dict.fromkeys(
        ["confidence", "distance", "abstain", "unfamiliar"]
    )
    assert (
        choose(known(), None, 0.1)["confidence"] is None
        and choose(known(), 0.9, None)["distance"] is None
    )
    assert describe_thresholds(choose(known(), None, None)) == []


def test_the_words_say_what_the_test_images_get() -> None:
    assert describe_thresholds(choose(known(), 0.93, 0.1)) == [
        "answers 2 of 4 test images, 100.0% of them correctly",
        "calls 2 of 4 test images unfamiliar",
    ]


@pytest.mark.slow
def test_the_stage_writes_what_its_table_gives(pipeline: Path) -> None:
    written = json.loads((pipeline / "data/results/tiny/thresholds.json").read_text())
    predictions = read_table(pipeline / "data/results/tiny/predictions.csv")
    assert written == choose(predictions, 0.95, 0.02)
    test = predictions[predictions.split == "test"]
    assert written["unfamiliar"]["test"] == count_alarms(
        test.distance.to_numpy(), written["distance"]
    )
    answered = test[[c for c in test if c.startswith("p_")]].max(axis=1) >= written["confidence"]
    assert written["abstain"]["test"]["answered"] == answered.sum()
