"""Each class counts the same in the loss: weights are n / (classes * n of the class), of the training rows alone."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tasks.tables import read_table, write_table
from tasks.weigh import main, weigh
from tests.conftest import CLASSES


def labels(**counts: int) -> pd.Series:
    return pd.Series([label for label, count in counts.items() for _ in range(count)])


def test_the_weights_of_the_brain_tumour_set() -> None:
    weights = weigh(labels(glioma=826, meningioma=822, no=395, pituitary=827), "balanced")
    assert {label: round(weight, 2) for label, weight in weights.items()} == {
        "glioma": 0.87, "meningioma": 0.87, "no": 1.82, "pituitary": 0.87,
    }  # fmt: skip


def test_weighted_counts_are_equal() -> None:
    weights = weigh(labels(a=10, b=30, c=5), "balanced")
    assert [weights["a"] * 10, weights["b"] * 30, weights["c"] * 5] == pytest.approx([15, 15, 15], abs=1e-4)


def test_the_classes_are_in_alphabetical_order() -> None:
    assert list(weigh(labels(zebra=1, ant=2, Émeu=1, cat=3), "balanced")) == ["ant", "cat", "zebra", "Émeu"]


def test_without_a_method_all_weigh_one() -> None:
    assert weigh(labels(a=10, b=30), "none") == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(("method", "expected"), [("balanced", {"01": 2.0, "NA": 0.666667}), ("none", {"01": 1.0, "NA": 1.0})])
def test_only_training_rows_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, expected: dict) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(f"weigh: {{method: {method}}}\narchitectures: {{cnn_a: {{}}}}\n")
    rows = (
        [("01", "training")]
        + 3 * [("NA", "training")]
        + 5 * [("01", "test")]
        + 7 * [("01", "withheld")]
        + 2 * [("NA", "validation")]
    )
    write_table(pd.DataFrame(rows, columns=["label", "split"]), Path("splits.csv"))
    main(Path("splits.csv"), Path("weights.json"))
    assert json.loads(Path("weights.json").read_text()) == expected


def test_the_weights_of_the_pipeline(pipeline: Path) -> None:
    weights = json.loads((pipeline / "data/class_weights.json").read_text())
    splits = read_table(pipeline / "data/splits.csv").query("split == 'training'")
    assert list(weights) == CLASSES
    expected = {label: len(splits) / (4 * count) for label, count in splits.label.value_counts().items()}
    assert weights == pytest.approx(expected, abs=1e-6)
