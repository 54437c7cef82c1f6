"""Set the style of all figures, and draw those that `evaluate` logs to MLflow.

A class or model has one colour in all figures. The colours are Okabe and Ito's, which colour-blind
readers can tell apart. Lines differ in their dashes too.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from itertools import chain, count
from typing import ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.tables import escape_controls

matplotlib.rcdefaults()  # a matplotlibrc on this machine changes no figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#777777")
INK, GRID = "#1b1e23", "#d8dce1"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
WIDEST = 28  # characters of a name
CURVES = ("accuracy", "loss", "learning_rate")
SIZE = (3.7, 2.8)  # inches of one panel
STYLE = {
    "svg.hashsalt": "figure",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # two dollars in a name are not a formula
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}

Arguments = ParamSpec("Arguments")


def apply_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Make a function draw in `STYLE`."""

    @wraps(draw)
    def draw_in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return draw_in_style


@apply_style
def draw_history(rows: pd.DataFrame, kept: int) -> Figure:
    """Draw accuracy, loss and learning rate by epoch, side by side. Uses `history.csv`."""
    names = [name for name in CURVES if name in rows]
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        _draw_epochs(axes, rows, name, kept)
    return figure


@apply_style
def draw_curve(
    rows: pd.DataFrame, name: str, kept: int, translate: Callable[[str], str] = str
) -> Figure:
    """Draw one of `CURVES` by epoch, and mark the epoch whose weights were kept."""
    figure, axes = make_panel()
    _draw_epochs(axes, rows, name, kept, translate)
    return figure


@apply_style
def draw_confusion(rows: pd.DataFrame) -> Figure:
    """Draw the confusion matrix, shaded by the share of the actual class. Uses `confusion.csv`."""
    labels = shorten(dict.fromkeys(rows.actual))
    shares = rows.share.to_numpy(float).reshape(len(labels), -1)
    counts = rows["count"].to_numpy(int).reshape(len(labels), -1)
    figure, axes = make_panel("test images", "predicted", "actual", size=(4.6, 4.2))
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), images in np.ndenumerate(counts):
        share = shares[row, column]
        ink = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{images}\n{share:.2f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    return figure


def make_panel(
    title: str = "", x: str = "", y: str = "", size: tuple[float, float] = SIZE
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def shorten(names: Iterable[str], widest: int = WIDEST) -> list[str]:
    """Return printable names for a figure. Long names are cut in the middle and stay different."""
    shown: list[str] = []
    for name in map(escape_controls, names):
        begin, end = name[: widest * 2 // 3], name[-(widest // 3 - 1) :]
        short = name if len(name) <= widest else f"{begin}…{end}"
        numbered = (f"{begin}… ({number})" for number in count(2))
        shown.append(next(text for text in chain([short], numbered) if text not in shown))
    return shown


def colour(index: int) -> str:
    """Return the colour of the class or model at this place."""
    return PALETTE[index % len(PALETTE)]


def _draw_epochs(
    axes: Axes, rows: pd.DataFrame, name: str, kept: int, translate: Callable[[str], str] = str
) -> None:
    marker = "o" if len(rows) == 1 else ""  # one point makes no line
    for index, (column, label) in enumerate(
        {name: "training", f"val_{name}": "validation"}.items()
    ):
        if column in rows:
            axes.plot(
                rows.epoch,
                rows[column],
                color=colour(index),
                linestyle=DASHES[index],
                marker=marker,
                label=translate(label),
            )
    kept_label = translate("epoch kept: {epoch}").format(epoch=kept)
    axes.axvline(kept, color=colour(7), linewidth=1, linestyle=":", label=kept_label)
    axes.set(title=translate(name.replace("_", " ")), xlabel=translate("epoch"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend()
