"""The gate passes only a model that is shown to be better. Simulations check its error rate."""

import numpy as np
import pandas as pd
import pytest

from bench.gate import CLASSES, Scenario, judge, simulate
from tasks.params.register import Gate
from tasks.scoring.gate import check_against_champion, check_scores

SCORES = {
    "test_macro_f1": 0.8,
    "test_recall_a": 0.9,
    "test_recall_b": 0.5,
    "test_calibration_error": 0.1,
    "val_macro_f1": 0.2,
}


def judged(scenario: Scenario, draws: int, gate: Gate) -> np.ndarray:
    """Return which criteria simulated challengers meet: difference, McNemar, recalls if wanted."""
    generator = np.random.default_rng(5)
    met = []
    for _ in range(draws):
        labels, challenger, champion, groups = simulate(scenario, generator)
        together = groups if scenario.of_patient > 1 else None
        met.append(judge(labels, challenger, champion, together, gate))
    return np.array(met)


@pytest.mark.parametrize(
    ("gate", "failed"),
    [
        (Gate(macro_f1=0.8, worst_recall=0.5, calibration_error=0.1), []),
        (
            Gate(macro_f1=0.81, worst_recall=0.51, calibration_error=0.09),
            ["macro_f1", "worst_recall", "calibration_error"],
        ),
        (Gate(macro_f1=None, worst_recall=None, calibration_error=None), []),
    ],
)
def test_its_own_scores(gate: Gate, failed: list[str]) -> None:
    checks, numbers = check_scores(SCORES, gate)
    assert [check.name for check in checks if not check.met] == failed
    assert numbers == {"macro_f1": 0.8, "worst_recall": 0.5, "calibration_error": 0.1}
    texts = [check.text for check in checks if not check.met and check.name == "worst_recall"]
    assert texts == ["recall of b, the worst class, 0.500, wanted at least 0.51"] * len(texts)


def test_the_same_answers_are_refused() -> None:
    labels, challenger, _, _ = simulate(Scenario("", 400), np.random.default_rng(0))
    assert judge(labels, challenger, challenger, None, Gate(recall_margin=0.5)) == [
        False,
        False,
        True,
    ]


def test_one_class_lost_is_refused_however_much_the_others_gain() -> None:
    labels = np.repeat(CLASSES, 100)
    champion = np.where(np.arange(400) % 100 < 60, labels, np.roll(labels, 100))
    challenger = np.where(
        (np.arange(400) % 100 < 40) | (np.arange(400) >= 100), labels, np.roll(labels, 100)
    )
    predictions = pd.DataFrame({"label": labels, "predicted": challenger, "champion": champion})
    checks, numbers = check_against_champion(predictions, CLASSES, Gate())
    assert [check.met for check in checks] == [True, True, False]
    assert "recall of glioma 0.400 against 0.600 on 100 images" in checks[2].text
    assert numbers["gains"] == 120 and numbers["losses"] == 20


@pytest.mark.slow
def test_an_equal_model_passes_no_more_often_than_stated() -> None:
    """Neither all criteria nor McNemar's test alone, which states the rate."""
    met = judged(Scenario("", 400), 80, Gate())
    assert met.all(axis=1).mean() <= 0.025 and met[:, 1].mean() <= 0.025
    lax = Gate(confidence=0.6, recall_margin=None)
    assert judged(Scenario("", 400), 20, lax).all(axis=1).mean() > 0.1  # it would be found out


@pytest.mark.slow
def test_patients_are_counted_once() -> None:
    met = judged(Scenario("", 400, of_patient=4), 40, Gate(recall_margin=None))
    assert met.all(axis=1).mean() <= 0.025 and met[:, 1].mean() <= 0.025


@pytest.mark.slow
def test_a_better_model_passes() -> None:
    better = (0.03, 0.03, 0.03, 0.03)
    assert judged(Scenario("", 4000, better), 10, Gate()).all(axis=1).mean() > 0.9
