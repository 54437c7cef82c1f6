"""The chapter that compares the models: scores with intervals, and what they cost."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tasks.reporting.models import PARTS, Model
from tasks.reporting.numbers import told
from tasks.scoring import figures
from tasks.scoring.figures import Drawn

OVERFITTING = {"none": "no overfitting", "some": "some overfitting", "strong": "strong overfitting"}
ALPHA = 0.05
COSTS = {  # of comparison.csv: in words, and how many seconds or pieces make one of them
    "predict_seconds_per_image": ("milliseconds for one image", 0.001),
    "parameters": ("million parameters", 1e6),
    "seconds": ("minutes of training", 60),
}


def say_test(row: dict[str, Any]) -> str:
    """Say what a paired test of the winner against another model shows, at 5 % over all tests of the question."""
    if row["p_holm"] > ALPHA:
        return "no difference shown"
    return (
        "better, and hardly by chance"
        if row["winner_alone"] > row["other_alone"]
        else "worse, and hardly by chance"
    )


def draw_intervals(models: Sequence[Model]) -> Drawn:
    """Draw the accuracies of all models with their intervals."""
    rows = pd.DataFrame(
        [
            {"model": model.name, "part": words, **model.score(f"{part}_accuracy")}
            for model in models
            for part, words in PARTS.items()
        ]
    )
    said = "; ".join(f"{row.model} {row.part} {told(row.value)}" for row in rows.itertuples())
    return Drawn(figures.intervals(rows), f"Accuracies with 95 % intervals. {said}")


def draw_costs(models: Sequence[Model]) -> dict[str, Drawn]:
    """Draw the test accuracy of all models against each cost that was measured of all."""
    drawn = {}
    for name, (words, unit) in COSTS.items():
        costs = [float(model.row[name] or 0) for model in models]
        if min(costs) > 0:
            scores = [{"model": model.name, **model.score("test_accuracy")} for model in models]
            rows = pd.DataFrame(scores).assign(cost=[cost / unit for cost in costs])
            said = "; ".join(
                f"{row.model} {told(row.value)} at {row.cost:.3g}" for row in rows.itertuples()
            )
            drawn[name] = Drawn(figures.cost(rows, words), f"Test accuracy against {words}. {said}")
    return drawn
