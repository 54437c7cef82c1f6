"""The figure of a training copes with every kind of history: what was not measured is not drawn."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tasks.scoring import figures

EPOCHS = pd.DataFrame(
    {"epoch": [1, 2, 3], "accuracy": [0.5, 0.6, 0.7], "loss": [1.0, 0.9, 0.8], "val_accuracy": [0.4, 0.6, 0.5],
     "val_loss": [1.1, 0.8, 0.9], "learning_rate": [0.1, 0.1, 0.05]}
)  # fmt: skip
CLASSICAL = EPOCHS.drop(columns="learning_rate").head(1)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("rows", [EPOCHS, EPOCHS.assign(phase=[0, 0, 1]), EPOCHS.assign(phase=["head", "head", "block5"])])
def test_accuracy_loss_and_learning_rate(rows: pd.DataFrame) -> None:
    figure = figures.history(rows)
    assert titles(figure) == ["accuracy", "loss", "learning rate"]
    training, validation, best = figure.axes[0].lines
    assert training.get_ydata().tolist() == [0.5, 0.6, 0.7] and validation.get_ydata().tolist() == [0.4, 0.6, 0.5]
    assert set(best.get_xdata()) == {2}


def test_a_model_without_epochs_has_points_and_no_learning_rate() -> None:
    figure = figures.history(CLASSICAL)
    assert titles(figure) == ["accuracy", "loss"]
    assert [line.get_marker() for line in figure.axes[0].lines[:2]] == ["o", "o"]
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


@pytest.mark.parametrize("rows", [EPOCHS, CLASSICAL])
def test_equal_figures_are_equal_text(rows: pd.DataFrame) -> None:
    texts = [figures.svg(figures.history(rows)) for _ in range(2)]
    assert texts[0] == texts[1] and texts[0].startswith("<svg")
