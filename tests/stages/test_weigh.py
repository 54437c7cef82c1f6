"""Balanced weights are n / (number of classes * n of the class), from training rows only."""

import json
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from tasks.errors import UserError
from tasks.tables import read_table, write_table
from tasks.weigh import main, weigh
from tests.support.pipeline import CLASSES


def labels(**counts: int) -> pd.Series:
    return pd.Series([label for label, count in counts.items() for _ in range(count)])


def test_the_weights_of_the_brain_tumour_set() -> None:
    counts = {"glioma": 826, "meningioma": 822, "no": 395, "pituitary": 827}
    weights = weigh(labels(**counts), list(counts), "balanced")
    assert {label: round(weight, 2) for label, weight in weights.items()} == {
        "glioma": 0.87, "meningioma": 0.87, "no": 1.82, "pituitary": 0.87,
    }  # fmt: skip


def test_weighted_counts_are_equal() -> None:
    weights = weigh(labels(a=10, b=30, c=5), ["a", "b", "c"], "balanced")
    assert [weights["a"] * 10, weights["b"] * 30, weights["c"] * 5] == pytest.approx(
        [15, 15, 15], abs=1e-4
    )


def test_the_classes_keep_their_order() -> None:
    weights = weigh(labels(photo=1, not_photo=3), ["not_photo", "photo"], "balanced")
    assert list(weights.items()) == [("not_photo", 0.666667), ("photo", 2.0)]


def test_without_a_method_all_weights_are_one() -> None:
    assert weigh(labels(a=10, b=30), ["a", "b"], "none") == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("method", "expected"),
    [("balanced", {"01": 2.0, "NA": 0.666667}), ("none", {"01": 1.0, "NA": 1.0})],
)
def test_only_training_rows_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, expected: dict
) -> None:
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
    main(Path("splits.csv"), Path("weights"))
    assert json.loads(Path("weights/cnn_a.json").read_text()) == expected


def weigh_folders(folders: str, architectures: str) -> dict[str, list[tuple[str, float]]]:
    """Return the weights of each architecture. `folders` has one letter for each training image."""
    Path("params.yaml").write_text(
        f"architectures:\n{textwrap.indent(textwrap.dedent(architectures), '  ')}\n"
    )
    write_table(
        pd.DataFrame([(folder, "training") for folder in folders], columns=["label", "split"]),
        Path("splits.csv"),
    )
    main(Path("splits.csv"), Path("weights"))
    return {
        file.stem: list(json.loads(file.read_text()).items())
        for file in sorted(Path("weights").iterdir())
    }


def test_every_architecture_has_weights_in_the_order_of_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 images 6 are in a, 3 in b, 2 in c and 1 in d. `groups` and `same` are one question."""
    monkeypatch.chdir(tmp_path)
    weights = weigh_folders(
        "aaaaaabbbccd",
        """
        all: {like: cnn_a}
        binary: {like: cnn_a, positive: c}
        groups: {like: cnn_a, labels: {z: [a], y: [d, b, c]}}
        same: {like: cnn_b, labels: {y: [b, c, d], z: [a]}}
        """,
    )
    assert weights == {
        "all": [("a", 0.5), ("b", 1.0), ("c", 1.5), ("d", 3.0)],
        "binary": [("not_c", 0.6), ("c", 3.0)],
        "groups": [("y", 1.0), ("z", 1.0)],
        "same": [("y", 1.0), ("z", 1.0)],
    }


def test_all_questions_that_do_not_fit_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        weigh_folders(
            "abc",
            """
            fine: {like: cnn_a, labels: {x: [a], y: [b, c]}}
            other: {like: cnn_a, labels: {x: [a, b], y: [c]}}
            binary: {like: cnn_a, positive: f}
            groups: {like: cnn_a, labels: {z: [a, a], w: [b, d]}}
            """,
        )
    assert str(caught.value).splitlines() == [
        "params.yaml has 5 mistakes:",
        "  architectures.other.labels: another architecture groups other folders as x, y; "
        "give one class another name",
        "  architectures.binary.positive: received 'f'; expected one of a, b, c",
        "  architectures.groups.labels: the folder 'a' is listed twice; list it under one class",
        "  architectures.groups.labels: received 'd'; expected one of a, b, c",
        "  architectures.groups.labels: the folder 'c' belongs to no class; add it to one of z, w",
    ]
    assert not Path("weights").exists()


def test_the_weights_of_the_pipeline(pipeline: Path) -> None:
    weights = json.loads((pipeline / "data/class_weights/tiny.json").read_text())
    splits = read_table(pipeline / "data/splits.csv").query("split == 'training'")
    assert list(weights) == CLASSES
    expected = {
        label: len(splits) / (4 * count) for label, count in splits.label.value_counts().items()
    }
    assert weights == pytest.approx(expected, abs=1e-6)
