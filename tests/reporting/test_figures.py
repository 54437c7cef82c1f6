"""Figures show every history, keep the colour of a class, and are equal for equal numbers."""

import html
import io
import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import example, given, settings
from matplotlib.figure import Figure

from tasks.reporting import figures, svg
from tasks.scoring.figures import (
    PALETTE,
    WIDEST,
    draw_confusion,
    draw_curve,
    draw_history,
    shorten,
)
from tests.support.names import classes, quick

EPOCHS = pd.DataFrame(
    {"epoch": [1, 2, 3], "accuracy": [0.5, 0.6, 0.7], "loss": [1.0, 0.9, 0.8],
     "val_accuracy": [0.4, 0.6, 0.5], "val_loss": [1.1, 0.8, 0.9],
     "learning_rate": [0.1, 0.1, 0.05]}
)  # fmt: skip
CLASSICAL = EPOCHS.drop(columns="learning_rate").head(1)
CURVE = pd.DataFrame({"label": ["a", "a", "c", "c"], "fpr": [0, 1, 0, 1], "tpr": [0.2, 1, 0.1, 1]})
MATRIX = ["actual", "predicted", "count", "share"]  # columns of confusion.csv
SCORES = pd.DataFrame(
    {"model": ["x", "x", "y"], "part": ["validation", "test", "validation"],
     "value": [0.9, 0.7, None], "low": [0.8, 0.6, None], "high": [0.95, 0.8, None]}
)  # fmt: skip


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_accuracy_loss_and_learning_rate() -> None:
    figure = draw_history(EPOCHS.assign(phase=["head", "head", "block5"]), 3)
    assert titles(figure) == ["accuracy", "loss", "learning rate"]
    training, validation, kept = figure.axes[0].lines
    assert training.get_ydata().tolist() == [0.5, 0.6, 0.7] and validation.get_ydata().tolist() == [
        0.4,
        0.6,
        0.5,
    ]
    assert set(kept.get_xdata()) == {3} and kept.get_label() == "epoch kept: 3"


def test_a_model_without_epochs_has_points_and_no_learning_rate() -> None:
    figure = draw_history(CLASSICAL, 1)
    assert titles(figure) == ["accuracy", "loss"]
    assert [line.get_marker() for line in figure.axes[0].lines[:2]] == ["o", "o"]
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_a_class_keeps_its_colour_where_another_has_no_curve() -> None:
    legend = figures.draw_roc(CURVE, ["a", "b", "c"]).legends[0]
    colours = {
        text.get_text(): line.get_color()
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert colours == {"a": PALETTE[0], "c": PALETTE[2]}
    assert figures.draw_roc(CURVE.head(0), ["a"]).legends == []  # no class has a curve


def test_where_colours_begin_again_dashes_differ() -> None:
    labels = [f"class {number}" for number in range(16)]
    rows = pd.concat([CURVE[CURVE.label == "a"].assign(label=label) for label in labels])
    lines = figures.draw_roc(rows, labels).axes[0].lines[:16]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == len(lines) == 16


def test_a_score_without_an_interval_is_left_out() -> None:
    axes = figures.draw_intervals(SCORES).axes[0]
    assert len(axes.containers) == 2 and [label.get_text() for label in axes.get_yticklabels()] == [
        "x",
        "y",
    ]


@pytest.mark.parametrize("costs", [[20.0, 58.0], [0.003, 12.9]])
def test_costs_have_ticks_on_whatever_scale(costs: list[float]) -> None:
    rows = SCORES.dropna().assign(model=["x", "y"], cost=costs)
    figure = figures.draw_cost(rows, "seconds")
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]


def texts_of(text: str) -> list[str]:
    """Return the texts of an SVG document, which must be well formed."""
    return [
        element.text or ""
        for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.mark.filterwarnings("ignore:Glyph")  # a stage tells none of them
@settings(quick, max_examples=4)
@given(classes())
def test_every_name_stands_in_the_figures_as_it_is(labels: list[str]) -> None:
    curve = pd.concat([CURVE[CURVE.label == "a"].assign(label=label) for label in labels])
    scores = pd.DataFrame(
        {"model": labels, "part": "test", "value": 0.5, "low": 0.4, "high": 0.6, "cost": 1.0}
    )
    square = pd.DataFrame(
        [(one, other, 1, 0.5) for one in labels for other in labels], columns=MATRIX
    )
    drawn = [
        figures.draw_roc(curve, labels),
        draw_confusion(square),
        figures.draw_intervals(scores),
        figures.draw_cost(scores, "seconds"),
    ]
    for figure in drawn:
        told = [text.strip() for text in texts_of(svg.render(figure))]
        assert all(name.strip() in told for name in shorten(labels))
    drawn[1].savefig(io.BytesIO(), format="png")  # as MLflow saves it


@quick
@given(classes())
@example(["x" * 250, "x" * 100 + "y" + "x" * 149, "x" * 18 + "…" + "x" * 8, "x" * 18 + "… (2)"])
def test_shortened_names_stay_different_and_plain_ones_as_they_are(labels: list[str]) -> None:
    shown = shorten(labels)
    assert len(set(shown)) == len(labels) and max(map(len, shown)) <= WIDEST
    assert shorten(["no_tumor", "tumeur née"]) == ["no_tumor", "tumeur née"]


@pytest.mark.parametrize(
    "name",
    ["#0072b2", ' id="x"', 'href="#x"', "url(#x)", "font: 9px x", "<!-- x -->", "xlink:href"],
)
def test_a_name_that_reads_like_a_part_of_the_drawing_stays_a_name(name: str) -> None:
    page = svg.inline(
        svg.render(figures.draw_roc(CURVE.replace("a", name), [name, "c"])), "key", "words"
    )
    assert f">{html.escape(name, quote=False)}</text>" in page


def test_equal_figures_are_equal_text() -> None:
    texts = [svg.render(draw_curve(EPOCHS, "loss", 3)) for _ in range(2)]
    assert texts[0] == texts[1] and "<svg" in texts[0] and "<dc:date>" not in texts[0]


def test_a_background_lies_behind_all_that_is_drawn() -> None:
    text = svg.put_on_white(svg.render(draw_curve(EPOCHS, "loss", 3)))
    before, _, after = text.partition('<rect width="100%" height="100%" fill="#ffffff"/>')
    assert (
        "</style>" in before and "<path" not in before.partition("</defs>")[2] and "<path" in after
    )


def test_in_a_page_colours_are_the_pages_and_ids_its_own() -> None:
    calibration = pd.DataFrame(
        {
            "when": ["before", "after"],
            "confidence": [0.5, 0.9],
            "accuracy": [0.4, 0.9],
            "count": [3, 9],
        }
    )
    one, other = (
        svg.inline(svg.render(figures.draw_reliability(calibration)), key, 'words & "more"')
        for key in ("one", "other")
    )
    assert one.startswith('<svg role="img" aria-label="words &amp; &quot;more&quot;"')
    assert not re.search(r"#[0-9a-f]{6}\b(?!-)", one.replace("#ffffff", ""))
    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    used = {
        first or second for first, second in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', one)
    }
    assert used == ids[0]
