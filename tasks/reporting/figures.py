"""Draw the figures of a report, one panel each. Each function takes the columns of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tasks.reporting.language import _
from tasks.reporting.words import name_class
from tasks.scoring.figures import (
    DASHES,
    INK,
    PALETTE,
    SIZE,
    apply_style,
    colour,
    make_panel,
    shorten,
)

MARKERS = "osD^vPX*"
BAR: dict[str, Any] = {"markersize": 6, "linestyle": "", "elinewidth": 1.4}


PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


@apply_style
def draw_counts(parts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the images of each class, side by side for each part: {part: {class: images}}."""
    labels = list(next(iter(parts.values())))
    figure, axes = make_panel(y=_("images"), size=(5.2, SIZE[1] + 0.1 * len(labels)))
    width = 0.8 / len(labels)
    bars: dict[str, Artist | Container] = {}
    for index, label in enumerate(labels):
        shift = (index - (len(labels) - 1) / 2) * width
        places = [place + shift for place in range(len(parts))]
        heights = [of_class[label] for of_class in parts.values()]
        bars[name_class(label)] = axes.bar(places, heights, width, color=colour(index))
    axes.set_xticks(range(len(parts)), list(parts))
    axes.grid(False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    _add_legend(figure, bars, loc="outside lower center", ncols=2)
    return figure


@apply_style
def draw_roc(rows: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw the ROC curve of each class against the rest. Uses `roc.csv`."""
    figure, axes = _draw_classes(rows, labels, "fpr", "tpr")
    _draw_diagonal(axes)
    axes.set(
        title=_("ROC, class against the rest"),
        xlabel=_("false positive rate"),
        ylabel=_("true positive rate"),
    )
    return figure


@apply_style
def draw_precision_recall(rows: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw precision against recall of each class. Uses `pr.csv`."""
    figure, axes = _draw_classes(rows, labels, "recall", "precision")
    axes.set(title=_("Precision against recall"), xlabel=_("recall"), ylabel=_("precision"))
    return figure


@apply_style
def draw_reliability(rows: pd.DataFrame) -> Figure:
    """Draw accuracy against confidence. Points grow with their images. Uses `calibration.csv`."""
    figure, axes = make_panel(_("Calibration"), _("confidence"), _("accuracy"))
    _draw_diagonal(axes, label=_("perfect calibration"))
    for index, (when, bins) in enumerate(rows.groupby("when", sort=False)):
        ink, dashes = colour(1 - index), DASHES[1 - index]
        areas = 4 + 120 * bins["count"] / rows["count"].max()
        axes.plot(
            bins.confidence,
            bins.accuracy,
            linewidth=1.2,
            color=ink,
            linestyle=dashes,
            label=_("before scaling") if when == "before" else _("after scaling"),
        )
        axes.scatter(bins.confidence, bins.accuracy, s=areas, color=ink, alpha=0.7)
    _limit_to_shares(axes)
    axes.legend(loc="lower right")
    return figure


@apply_style
def draw_coverage(rows: pd.DataFrame, threshold: float | None) -> Figure:
    """Draw accuracy against the answered share, and mark the threshold. Uses `coverage.csv`."""
    figure, axes = make_panel(
        _("Accuracy of the answers"), _("share of images answered"), _("accuracy")
    )
    for index, (part, points) in enumerate(rows.groupby("split", sort=False)):
        place = 1 - index  # validation has the same colour as in the curves of the training
        axes.plot(
            points.coverage,
            points.accuracy,
            color=colour(place),
            linestyle=DASHES[place],
            label=_(part),
        )
        answered = points[points.confidence >= threshold] if threshold is not None else points[:0]
        if len(answered):
            end = answered.iloc[-1]
            axes.plot(end.coverage, end.accuracy, "o", color=colour(place))
    axes.set(xlim=(-0.02, 1.02), ylim=(min(0.8, rows.accuracy.min() - 0.05), 1.02))
    axes.legend(loc="lower left")
    return figure


@apply_style
def draw_intervals(rows: pd.DataFrame) -> Figure:
    """Draw scores with their intervals, a row for each model: model, part, value, low, high."""
    names, parts = list(dict.fromkeys(rows.model)), list(dict.fromkeys(rows.part))
    columns = len(parts) if sum(map(len, parts)) < 45 else 1
    height = 1 + 0.17 * len(rows) + 0.2 * (len(parts) - columns)
    figure, axes = make_panel(x=_("accuracy"), size=(5.2, height))
    for row in rows.dropna().itertuples():
        place, part = names.index(row.model), parts.index(row.part)
        level = place + 0.25 * (part - (len(parts) - 1) / 2)
        errors = [[row.value - row.low], [row.high - row.value]]
        ink, marker = colour(place), MARKERS[part]
        axes.errorbar(row.value, level, xerr=errors, color=ink, marker=marker, **BAR)
    keys: list[Artist] = [
        axes.plot([], [], marker=MARKERS[part], linestyle="", color=INK)[0]
        for part in range(len(parts))
    ]
    axes.set(yticks=range(len(names)), yticklabels=shorten(names), ylim=(len(names) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PERCENT)
    legend = dict(zip(parts, keys, strict=True))
    _add_legend(figure, legend, loc="outside upper left", ncols=columns, handletextpad=0.2)
    return figure


@apply_style
def draw_cost(rows: pd.DataFrame, words: str) -> Figure:
    """Draw test accuracy against a cost on a log axis: model, value, low, high, cost."""
    figure, axes = make_panel("", words, _("test accuracy"), (SIZE[0], SIZE[1] + 0.1 * len(rows)))
    bars: dict[str, Artist | Container] = {}
    for place, row in enumerate(rows.itertuples()):
        errors = [[row.value - row.low], [row.high - row.value]]
        ink, marker = colour(place), MARKERS[place % len(MARKERS)]
        bars[row.model] = axes.errorbar(
            row.cost, row.value, yerr=errors, color=ink, marker=marker, **BAR
        )
    few = rows.cost.max() < 50 * rows.cost.min()
    axes.set_xscale("log", subs=())
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PERCENT)
    _add_legend(figure, bars, loc="outside lower center", ncols=2)
    return figure


def _draw_classes(rows: pd.DataFrame, labels: Sequence[str], x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = make_panel(size=(SIZE[0], SIZE[1] + 0.1 * len(labels)))
    curves: dict[str, Artist | Container] = {}
    for index, label in enumerate(labels):
        of_class = rows[rows.label == label]
        if len(of_class):
            # Other dashes for each round of colours keep all lines different.
            dashes = DASHES[(index + index // len(PALETTE)) % len(DASHES)]
            (curves[name_class(label)],) = axes.plot(
                of_class[x], of_class[y], color=colour(index), linestyle=dashes, linewidth=1.5
            )
    _limit_to_shares(axes)
    if curves:
        _add_legend(figure, curves, loc="outside lower center", ncols=2)
    return figure, axes


def _draw_diagonal(axes: Axes, label: str = "_") -> None:
    axes.plot([0, 1], [0, 1], color=colour(7), linewidth=0.8, linestyle=":", label=label)


def _limit_to_shares(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _add_legend(figure: Figure, drawn: Mapping[str, Artist | Container], **settings: Any) -> None:
    """Add a legend. Names are set last: Matplotlib skips names that begin with an underscore."""
    handles: list[Any] = list(drawn.values())
    legend = figure.legend(handles, ["name"] * len(drawn), **settings)
    for text, name in zip(legend.get_texts(), shorten(drawn), strict=True):
        text.set_text(name)
