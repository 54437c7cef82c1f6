"""The HTML of predictions, without a server."""

import base64
import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from serving import display, schemas
from serving.current import Model
from tasks.inference import gradcam
from tasks.inference.predictor import Answer, Predictor, Thresholds
from tasks.params.model_input import Form

CLASSES = ["01", "no_tumor", "<b>", "tumeur née"]
ANSWER = Answer(
    "ab" * 32, "01", 0.7, dict(zip(CLASSES, (0.7, 0.05, 0.05, 0.2), strict=True)), 3.0, False, False
)
UNSURE = Answer(
    "cd" * 32, "01", 0.4, dict(zip(CLASSES, (0.4, 0.1, 0.2, 0.3), strict=True)), 9.0, True, True
)
BROKEN = Answer("ef" * 32, error="truncated: 12 bytes are missing")
PICTURE = Image.new("L", (30, 20), 100)
HEAT = np.zeros((8, 8), np.float32)


@pytest.fixture
def predictor() -> Predictor:
    facts = {
        "architecture": "cnn_a",
        "test_accuracy": "0.75",
        "test_accuracy_low": "0.61",
        "test_accuracy_high": "0.86",
    }
    thresholds = Thresholds(confidence=0.5, distance=5.0)
    return Predictor(
        "heads version 7",
        "12" * 32,
        CLASSES,
        (Form((8, 8), 1),),
        lambda pixels: (pixels, pixels),
        thresholds,
        facts=facts,
    )


def contents(address: str) -> bytes:
    return base64.b64decode(address.partition(";base64,")[2])


def test_bars_are_the_labelled_probabilities(predictor: Predictor) -> None:
    shown = display.render_answer(Model(predictor), "scan.jpg", ANSWER, PICTURE, HEAT)
    bars = re.findall(r'<span>(.*?)</span> <data value="(.*?)">(.*?)</data>', shown)
    assert bars == [
        ("01", "0.7", "70.0 %"),
        ("tumeur née", "0.2", "20.0 %"),
        ("no_tumor", "0.05", "5.0 %"),
        ("&lt;b&gt;", "0.05", "5.0 %"),
    ]
    assert "heads version 7" in shown
    assert "Not a diagnosis" in shown
    assert 'role="alert"' not in shown


def test_doubts_come_before_the_class(predictor: Predictor) -> None:
    model = Model(predictor, "nothing convolves")
    shown = display.render_answer(model, "scan.jpg", UNSURE, PICTURE, None)
    assert re.search(
        r"Unlike the training.*distance 9, limit 5.*The model abstains below 50\.0 %.*No answer\.",
        shown,
        re.S,
    )
    assert "No heat map: nothing convolves." in shown
    assert 'type="range"' not in shown


def test_the_heat_map_over_the_picture_is_the_overlay_of_grad_cam() -> None:
    heat = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    pixels = np.full((8, 8, 3), 90, np.uint8)
    layer = np.asarray(Image.open(io.BytesIO(contents(display._embed_heat(heat)))), np.float32)
    share = 0.6 * layer[..., 3:] / 255
    assert (
        np.abs(
            (1 - share) * pixels + share * layer[..., :3] - gradcam.overlay(pixels, heat, 0.6)
        ).max()
        < 2
    )


def test_a_table_lists_every_file_and_has_a_csv(predictor: Predictor) -> None:
    names = ["a.jpg", "<script>.jpg", "c.jpg"]
    shown = display.render_table(predictor, names, [ANSWER, UNSURE, BROKEN])
    assert "3 files: 1 predicted, 1 unlike the training images, 1 without a prediction" in shown
    assert "the file ends before the image does (12 bytes are missing)" in shown
    assert "<script>" not in shown
    written = contents(re.search(r'href="(data:text/csv.*?)"', shown)[1]).decode()
    table = list(csv.DictReader(io.StringIO(written)))
    assert [row["path"] for row in table] == names
    assert [row["p_tumeur née"] for row in table] == ["0.2", "0.3", ""]
    assert table[2]["error"] == "truncated: 12 bytes are missing"
    assert {row["model"] for row in table} == {"heads version 7"}


def test_the_card_shows_limits_and_intervals(predictor: Predictor) -> None:
    shown = display.render_card(predictor, has_report=False)
    assert "01, no_tumor, &lt;b&gt;, tumeur née" in shown
    assert "below a probability of 50.0 %" in shown
    assert "0.750 (0.610 to 0.860)" in shown
    assert "12" * 32 in shown
    assert "report of the last run" not in shown
    assert 'href="report"' in display.render_card(predictor, has_report=True)


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (0.5, "50.0 %"),
        (0.9991, "99.9 %"),
        (0.99999, "> 99.9 %"),
        (1.0, "> 99.9 %"),
        (1e-7, "< 0.1 %"),
    ],
)
def test_no_probability_is_rounded_to_certainty(probability: float, shown: str) -> None:
    assert display.format_percent(probability) == shown


def test_people_read_the_names_of_classes_and_programs_the_classes(predictor: Predictor) -> None:
    named = replace(predictor, class_names={"01": "Aucune tumeur"})
    shown = display.render_answer(Model(named), "scan.jpg", ANSWER, PICTURE, HEAT)
    assert re.search(r"<strong>Aucune tumeur</strong>.*<span>Aucune tumeur</span>", shown, re.S)
    assert "Aucune tumeur (01), no_tumor" in display.render_card(named, has_report=False)
    table = display.render_table(named, ["a.jpg"], [ANSWER])
    csv_text = contents(re.search(r'href="(data:text/csv.*?)"', table)[1]).decode()
    assert "<td>Aucune tumeur" in table and "a.jpg,abab" in csv_text and ",01,0.7," in csv_text
    answer = schemas.make_answer("a.jpg", ANSWER, named)
    assert (answer.predicted, answer.predicted_name) == ("01", "Aucune tumeur")
