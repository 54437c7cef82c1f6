"""Describe the comparison of the models: paired tests in words, scores with intervals, costs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tasks.reporting import figures
from tasks.reporting.language import _
from tasks.reporting.models import ScoredModel, TrainedModel
from tasks.reporting.numbers import format_number
from tasks.reporting.svg import Drawn

ALPHA = 0.05


def describe_test(row: dict[str, Any]) -> str:
    """Return the result of a paired test in words, at a family-wise error rate of 5 %."""
    if row["p_holm"] > ALPHA:
        return _("no difference shown")
    if row["winner_alone"] > row["other_alone"]:
        return _("better, and hardly by chance")
    return _("worse, and hardly by chance")


def draw_accuracies(models: Sequence[ScoredModel], parts: dict[str, str]) -> Drawn:
    """Draw the accuracies of the models with their intervals. `parts` is {prefix: name}."""
    rows = pd.DataFrame(
        [
            {"model": model.name, "part": words, **model.score(f"{prefix}_accuracy")}
            for model in models
            for prefix, words in parts.items()
        ]
    )
    values = "; ".join(
        f"{row.model} {row.part} {format_number(row.value)}" for row in rows.itertuples()
    )
    words = _("Accuracies with 95 % intervals. {values}").format(values=values)
    return Drawn(figures.draw_intervals(rows), words)


def draw_costs(models: Sequence[TrainedModel]) -> dict[str, Drawn]:
    """Draw the test accuracy against each cost that was measured for all models."""
    drawn = {}
    for name, words, unit in (
        ("predict_seconds_per_image", _("milliseconds for one image"), 0.001),
        ("parameters", _("million parameters"), 1e6),
        ("seconds", _("minutes of training"), 60),
    ):
        costs = [float(model.row[name]) for model in models]
        if all(cost > 0 for cost in costs):
            scores = [{"model": model.name, **model.score("test_accuracy")} for model in models]
            rows = pd.DataFrame(scores).assign(cost=[cost / unit for cost in costs])
            values = "; ".join(
                f"{row.model} {format_number(row.value)} ({row.cost:.3g})"
                for row in rows.itertuples()
            )
            text = _("Test accuracy against {cost}. {values}").format(cost=words, values=values)
            drawn[name] = Drawn(figures.draw_cost(rows, words), text)
    return drawn
