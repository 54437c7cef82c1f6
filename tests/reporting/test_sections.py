"""Numbers as text and as HTML, tests in words, licences of weights, images without copies."""

import math
from pathlib import Path

import pandas as pd

from tasks.params.architectures import Architecture, Backbone, Classical, Cnn, Transfer
from tasks.params.report import Report
from tasks.params.train import Train
from tasks.reporting import card, data
from tasks.reporting.comparison import describe_test
from tasks.reporting.models import SHOWN, choose_images
from tasks.reporting.numbers import (
    allow_breaks,
    format_number,
    mark_interval,
    mark_number,
    mark_setting,
)
from tasks.reporting.thumbnails import Images


def test_a_number_as_text() -> None:
    expected = {
        (0.12345, "score"): "0.123",
        (11_169_476, "count"): "11,169,476",
        (0.7918782, "percent"): "79.2 %",
        (2.9, "ratio"): "2.9",
        (0.00002, "p"): "< 0.001",
        (0.0123, "p"): "0.012",
        (0.0312, "duration"): "31.2 ms",
        (48.83, "duration"): "48.8 s",
        (815.3, "duration"): "13.6 min",
        (7600, "duration"): "2.11 h",
        (None, "score"): "–",
        ("", "duration"): "–",
        (math.nan, "count"): "–",
    }
    assert {(value, form): format_number(value, form) for value, form in expected} == expected


def test_a_number_says_what_it_is_and_escapes_it() -> None:
    marked = mark_number(2 / 3, "recall", model="a", label='"<b>')
    assert (
        marked == '<data value="0.6666667" data-metric="recall" data-model="a"'
        ' data-label="&#34;&lt;b&gt;">0.667</data>'
    )
    assert mark_number(None, "recall") == mark_setting("", "filters") == "–"
    assert allow_breaks("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"
    assert (
        mark_setting("16 32", "filters", model="a")
        == '<data value="16 32" data-metric="filters" data-model="a">16 32</data>'
    )


def test_an_interval_has_two_marked_ends_or_is_left_out() -> None:
    assert (
        mark_interval({"value": 0.5, "low": 0.4, "high": 0.6}, "test_accuracy").count(
            'data-metric="test_accuracy_'
        )
        == 2
    )
    assert mark_interval({"value": None, "low": None, "high": None}, "test_accuracy") == ""


def test_a_paired_test_in_words() -> None:
    rows = [
        {"p_holm": p, "winner_alone": alone, "other_alone": 5}
        for p, alone in ((0.2, 9), (0.01, 9), (0.01, 1))
    ]
    assert [describe_test(row).split()[0].strip(",") for row in rows] == ["no", "better", "worse"]


def test_of_weights_only_what_is_known_is_said() -> None:
    structures = {
        "cnn": Cnn(filters=(4,)),
        "net": Transfer(backbone="ResNet50"),
        "own": Transfer(backbone="VGG16", weights="/home/someone/vgg.h5"),
        "forest": Classical(classifier="random_forest", features=Backbone(backbone="ResNet50")),
        "fresh": Transfer(backbone="VGG16", weights=None),
    }
    asked = {
        name: Architecture(structure=structure, train=Train())
        for name, structure in structures.items()
    }
    rows = {row["models"]: row for row in card.list_weights(asked, Report())}
    assert set(rows) == {"net, forest", "own", "fresh"}
    assert "keras.io" in rows["net, forest"]["licence"] and "not stated" in rows["own"]["licence"]
    assert rows["own"]["weights"] == "vgg.h5"  # no folder of the user's
    assert rows["fresh"]["licence"] == "no licence is needed"
    stated = card.list_weights(asked, Report(weights="CC BY 4.0"))
    assert [row["licence"] for row in stated if row["models"] == "own"] == [
        "stated by the user: CC BY 4.0"
    ]


def test_a_gallery_shows_one_image_of_each_group_of_copies() -> None:
    errors = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(40)],
            "kind": "worst",
            "label": "a",
            "predicted": "b",
        }
    )
    groups = {path: path if index > 1 else "0.jpg" for index, path in enumerate(errors.path)}
    worst, uncertain = choose_images(errors, Images(Path(), shown=False), groups)
    assert [row["path"] for row in worst.rows] == [
        "0.jpg",
        *(f"{number}.jpg" for number in range(2, SHOWN + 1)),
    ]
    assert uncertain.rows == [] and not worst.rows[0]["pictures"]


def test_samples_take_the_classes_in_turn(tmp_path: Path) -> None:
    rows = [
        (f"{label}{index}", label, "training", f"{index}{label}")
        for label in "ab"
        for index in range(20)
    ]
    splits = pd.DataFrame(
        [*rows, ("c", "c", "test", "0")], columns=["path", "label", "split", "sha256"]
    )
    chosen = data.choose_samples(splits, Images(tmp_path, shown=True))
    assert [row["label"] for row in chosen] == ["a", "b"] * 8
    assert (
        chosen[0]["path"] == "a0"
        and data.choose_samples(splits, Images(tmp_path, shown=False)) == []
    )


def test_imbalance_is_that_of_training() -> None:
    images = {
        "training": {"a": 30, "b": 10},
        "validation": {"a": 0, "b": 0},
        "test": {"a": 1, "b": 5},
    }
    counts = data.count_images({"images": images})
    assert (counts["imbalance"], counts["largest"], counts["smallest"]) == (3.0, "a", "b")
    assert list(counts["parts"]) == ["training", "test"] and counts["totals"] == {"a": 31, "b": 15}


def test_the_report_knows_whether_copies_trained() -> None:
    """Of one test image a copy trained, of another it was withheld, the third has none."""
    rows = [
        ("a", "test", "1"),
        ("b", "training", "1"),
        ("c", "test", "2"),
        ("d", "withheld", "2"),
        ("e", "test", "3"),
    ]
    splits = pd.DataFrame(rows, columns=["path", "split", "group"]).assign(label="x")
    split = {"pairs": {}, "groups": 2, "withheld": ["d"], "label_conflicts": []}
    copies = data.describe_copies(split, splits, Images(Path(), shown=False))
    assert (copies["test"], copies["test_with_copies"], copies["test_with_trained_copies"]) == (
        3,
        2,
        1,
    )
