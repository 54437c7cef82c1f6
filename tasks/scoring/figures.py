"""Figures of a training and of its scores, by Matplotlib."""

import io

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"  # Okabe and Ito's colours, safe for colour-blind readers


def history(rows: pd.DataFrame) -> Figure:
    """Accuracy, loss and, where there is one, learning rate by epoch, the best epoch marked; columns as in `history.csv`."""
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    best = rows.epoch[rows.val_loss.idxmin()]
    names = [name for name in ("accuracy", "loss", "learning_rate") if name in rows]
    marker = "o" if len(rows) == 1 else ""  # one point makes no line
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        axes.plot(rows.epoch, rows[name], color=BLUE, marker=marker, label="training")
        if f"val_{name}" in rows:
            axes.plot(rows.epoch, rows[f"val_{name}"], color=ORANGE, marker=marker, label="validation")
            axes.legend(frameon=False)
        axes.axvline(best, color=GREY, linewidth=0.8, linestyle=":")
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def confusion(rows: pd.DataFrame) -> Figure:
    """Confusion matrices, absolute and normalised by row; columns as in `confusion.csv`."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    labels = list(dict.fromkeys(rows.actual))
    shares = rows.share.to_numpy().reshape(len(labels), -1)
    for axes, column, form in zip(figure.subplots(1, 2), ("count", "share"), ("{:.0f}", "{:.2f}"), strict=True):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        values = rows[column].to_numpy().reshape(len(labels), -1)
        for (row, col), value in np.ndenumerate(values):
            axes.text(col, row, form.format(value), ha="center", va="center", color="white" if shares[row, col] > 0.5 else "black")
        ticks = range(len(labels))
        axes.set_xticks(ticks, labels, rotation=30, ha="right")
        axes.set_yticks(ticks, labels if column == "count" else [])
        axes.set(
            title="images" if column == "count" else "share of the actual class",
            xlabel="predicted",
            ylabel="actual" if column == "count" else "",
        )
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element, equal for equal figures."""
    with matplotlib.rc_context({"svg.hashsalt": "figure", "svg.fonttype": "none"}), io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
    return text[text.index("<svg") :]
