"""Figures of the data, of a training and of its scores, by Matplotlib: one panel each, for pages and for MLflow.

A class has one colour in all figures, a model too (Okabe and Ito's, safe for colour-blind readers), and lines differ in their
dashes as well. `inline` makes a panel a part of a page, whose style sheet then says the colours, for light and for dark.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from html import escape
from itertools import chain, count

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from tasks.tables import printable

matplotlib.rcdefaults()  # a matplotlibrc of this machine changes no figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#777777")
INK, GRID = "#1b1e23", "#d8dce1"
VARIABLES = {value: f"var(--c{index})" for index, value in enumerate(PALETTE)} | {
    INK: "currentColor",
    GRID: "var(--line)",
}
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX*"
WIDEST = 28  # characters of a name
CURVES = ("accuracy", "loss", "learning_rate")
SIZE = (3.7, 2.8)  # inches of one panel
TAG = re.compile(r"<[^>]+>")
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
    "text.parse_math": False,  # two dollars in a name are no formula
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


@dataclass(frozen=True)
class Drawn:
    """A figure, and the words for those who do not see it."""

    figure: Figure
    words: str

    @cached_property
    def svg(self) -> str:
        """The figure as `svg` writes it, drawn once: it takes a tenth of a second."""
        return svg(self.figure)


def in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a function draw in `STYLE`."""

    @wraps(draw)
    def drawn(*arguments: object) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*arguments)

    return drawn


@in_style
def history(rows: pd.DataFrame, kept: int) -> Figure:
    """Accuracy, loss and, where there is one, learning rate by epoch, side by side, as `curve` draws them."""
    names = [name for name in CURVES if name in rows]
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        _draw_curve(axes, rows, name, kept)
    return figure


@in_style
def curve(rows: pd.DataFrame, name: str, kept: int) -> Figure:
    """One of `CURVES` by epoch, the epoch whose weights were kept marked; columns as in `history.csv`."""
    figure, axes = _panel()
    _draw_curve(axes, rows, name, kept)
    return figure


@in_style
def confusion(rows: pd.DataFrame) -> Figure:
    """Confusion matrix: images, shaded by the share of the actual class; columns as in `confusion.csv`."""
    labels = shorten(dict.fromkeys(rows.actual))
    shares = rows.share.to_numpy(float).reshape(len(labels), -1)
    figure, axes = _panel("test images", "predicted", "actual", size=(4.6, 4.2))
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(
        rows["count"].to_numpy(int).reshape(len(labels), -1)
    ):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column, row, f"{value}\n{shares[row, column]:.2f}", ha="center", va="center", color=ink
        )
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    return figure


@in_style
def roc(rows: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """ROC curve of each class against the rest; columns as in `roc.csv`."""
    figure, axes = _by_class(rows, labels, "fpr", "tpr")
    axes.plot([0, 1], [0, 1], color=colour(7), linewidth=0.8, linestyle=":")
    axes.set(
        title="ROC, each class against the rest",
        xlabel="false alarms, share of the others",
        ylabel="found, share of the class",
    )
    return figure


@in_style
def precision_recall(rows: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Precision against recall of each class; columns as in `pr.csv`."""
    figure, axes = _by_class(rows, labels, "recall", "precision")
    axes.set(title="Precision against recall", xlabel="recall", ylabel="precision")
    return figure


@in_style
def reliability(rows: pd.DataFrame) -> Figure:
    """Accuracy against confidence, the area of a point as its images; columns as in `calibration.csv`."""
    figure, axes = _panel("Calibration", "confidence", "accuracy")
    axes.plot(
        [0, 1],
        [0, 1],
        color=colour(7),
        linewidth=0.8,
        linestyle=":",
        label="as often right as sure",
    )
    for index, (when, bins) in enumerate(rows.groupby("when", sort=False)):
        style = {
            "color": colour(1 - index),
            "linestyle": DASHES[1 - index],
            "label": f"{when} scaling",
        }
        axes.plot(bins.confidence, bins.accuracy, linewidth=1.2, **style)
        axes.scatter(
            bins.confidence,
            bins.accuracy,
            s=4 + 120 * bins["count"] / rows["count"].max(),
            color=colour(1 - index),
            alpha=0.7,
        )
    _unit(axes)
    axes.legend(loc="upper left")
    return figure


@in_style
def coverage(rows: pd.DataFrame, threshold: float | None) -> Figure:
    """Accuracy among the surest images by their share, where `threshold` cuts marked; columns as in `coverage.csv`."""
    figure, axes = _panel(
        "Accuracy of what is answered", "share of the images that is answered", "accuracy"
    )
    for index, (part, points) in enumerate(rows.groupby("split", sort=False)):
        place = 1 - index  # validation in the colour that it has in the curves of the training
        axes.plot(
            points.coverage,
            points.accuracy,
            color=colour(place),
            linestyle=DASHES[place],
            label=part,
        )
        answered = points[points.confidence >= threshold] if threshold is not None else points[:0]
        if len(answered):
            axes.plot(
                answered.coverage.iloc[-1], answered.accuracy.iloc[-1], "o", color=colour(place)
            )
    axes.set(xlim=(-0.02, 1.02), ylim=(min(0.8, rows.accuracy.min() - 0.05), 1.02))
    axes.legend(loc="lower left")
    return figure


@in_style
def intervals(rows: pd.DataFrame) -> Figure:
    """Scores with their intervals, a row of the figure for each model; columns model, part, value, low, high."""
    names, parts = list(dict.fromkeys(rows.model)), list(dict.fromkeys(rows.part))
    figure, axes = _panel(x="accuracy", size=(5.2, 1 + 0.17 * len(rows)))
    for row in rows.dropna().to_dict("records"):
        place, part = names.index(row["model"]), parts.index(row["part"])
        height = place + 0.25 * (part - (len(parts) - 1) / 2)
        _error_bar(axes, row, {"x": row["value"], "y": height}, "xerr", place, MARKERS[part])
    keys = [
        axes.plot([], [], marker=MARKERS[part], linestyle="", color=INK)[0]
        for part in range(len(parts))
    ]
    axes.set(yticks=range(len(names)), yticklabels=shorten(names), ylim=(len(names) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    _legend(
        figure,
        dict(zip(parts, keys, strict=True)),
        "outside upper left",
        len(parts),
        columnspacing=1,
        handletextpad=0.2,
    )
    return figure


@in_style
def cost(rows: pd.DataFrame, words: str) -> Figure:
    """Test accuracy with its interval against a cost on a logarithmic axis; columns model, value, low, high, cost."""
    figure, axes = _panel("", words, "test accuracy", size=(SIZE[0], SIZE[1] + 0.1 * len(rows)))
    bars = {
        row["model"]: _error_bar(
            axes,
            row,
            {"x": row["cost"], "y": row["value"]},
            "yerr",
            place,
            MARKERS[place % len(MARKERS)],
        )
        for place, row in enumerate(rows.to_dict("records"))
    }
    few = rows.cost.max() < 50 * rows.cost.min()
    axes.set_xscale("log", subs=())
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    _legend(figure, bars, "outside lower center", 2)
    return figure


def shorten(names: Iterable[str], widest: int = WIDEST) -> list[str]:
    """Return names as a figure shows them: printable, cut in their middle where they are long, and still all different."""
    shown: list[str] = []
    for name in map(printable, names):
        begin, end = name[: widest * 2 // 3], name[-(widest // 3 - 1) :]
        short = name if len(name) <= widest else f"{begin}…{end}"
        numbered = (f"{begin}… ({number})" for number in count(2))
        shown.append(next(text for text in chain([short], numbered) if text not in shown))
    return shown


def colour(index: int) -> str:
    """Return the colour of the class or model at this place."""
    return PALETTE[index % len(PALETTE)]


def svg(figure: Figure) -> str:
    """Return a figure as an SVG document without a background, equal for equal figures."""
    with matplotlib.rc_context(STYLE), io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()


def on_white(text: str) -> str:
    """Give an SVG document of `svg` a white background, for viewers that have another."""
    return text.replace("<g id=", '<rect width="100%" height="100%" fill="#ffffff"/>\n <g id=', 1)


def inline(text: str, key: str, words: str) -> str:
    """Make an SVG document of `svg` an element of a page: `key` makes its ids the only ones, `words` say what there is to see."""
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    used = {name for tag in TAG.findall(text) for name in re.findall(r"#([^\")]+)[\")]", tag)}
    text = TAG.sub(lambda tag: _fit_in(tag[0], key, used), text)
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)


def _fit_in(tag: str, key: str, used: set[str]) -> str:
    """Return a tag of an SVG document as a page has it; names between the tags may read like parts of one, and stay."""
    tag = re.sub(
        r' id="([^"]*)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", tag
    )
    tag = re.sub(r"(href=\"|url\()#", rf"\g<1>#{key}-", tag)
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"|xlink:(?=href)', "", tag)
    for value, name in VARIABLES.items():
        tag = tag.replace(value, name)
    return tag


def _panel(
    title: str = "", x: str = "", y: str = "", size: tuple[float, float] = SIZE
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _draw_curve(axes: Axes, rows: pd.DataFrame, name: str, kept: int) -> None:
    marker = "o" if len(rows) == 1 else ""  # one point makes no line
    axes.plot(rows.epoch, rows[name], color=colour(0), marker=marker, label="training")
    if f"val_{name}" in rows:
        axes.plot(
            rows.epoch,
            rows[f"val_{name}"],
            color=colour(1),
            linestyle=DASHES[1],
            marker=marker,
            label="validation",
        )
    axes.axvline(kept, color=colour(7), linewidth=1, linestyle=":", label=f"epoch kept: {kept}")
    axes.set(title=name.replace("_", " "), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend()


def _by_class(rows: pd.DataFrame, labels: Sequence[str], x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = _panel(size=(SIZE[0], SIZE[1] + 0.1 * len(labels)))
    curves = {}
    for index, label in enumerate(labels):
        of_class = rows[rows.label == label]
        if len(of_class):
            dashes = DASHES[
                (index + index // len(PALETTE)) % len(DASHES)
            ]  # where colours begin again, dashes differ
            (curves[label],) = axes.plot(
                of_class[x], of_class[y], color=colour(index), linestyle=dashes, linewidth=1.5
            )
    _unit(axes)
    if curves:
        _legend(figure, curves, "outside lower center", 2)
    return figure, axes


def _legend(
    figure: Figure,
    drawn: Mapping[str, Artist | Container],
    place: str,
    columns: int,
    **settings: float,
) -> None:
    """Name what was drawn. Matplotlib would leave out a name that begins with an underscore, so its text is set afterwards."""
    legend = figure.legend(
        list(drawn.values()), ["name"] * len(drawn), loc=place, ncols=columns, **settings
    )
    for text, name in zip(legend.get_texts(), shorten(drawn), strict=True):
        text.set_text(name)


def _error_bar(
    axes: Axes, row: dict, at: dict, direction: str, place: int, marker: str
) -> ErrorbarContainer:
    errors = {direction: [[row["value"] - row["low"]], [row["high"] - row["value"]]]}
    return axes.errorbar(
        **at,
        **errors,
        color=colour(place),
        marker=marker,
        markersize=6,
        linestyle="",
        elinewidth=1.4,
    )


def _unit(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
