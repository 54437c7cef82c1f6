"""The most confident predictions of each class get heat maps, compared with random weights."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.explain import COLUMNS, SIDE, choose
from tasks.params.explain import Explain
from tasks.tables import read_table
from tests.support.pipeline import CLASSES, run_stage

pytestmark = pytest.mark.slow

FOLDER = Path("data/explanations/tiny")


@pytest.fixture(scope="module")
def table(pipeline: Path) -> pd.DataFrame:
    return read_table(pipeline / FOLDER / "explanations.csv")


def test_each_row_is_a_prediction_with_its_kind_and_two_pictures(
    pipeline: Path, table: pd.DataFrame
) -> None:
    predictions = read_table(pipeline / "data/results/tiny/predictions.csv").set_index("path")
    assert list(table) == [*COLUMNS, "picture", "overlay"]
    assert set(table.label) == set(CLASSES)
    for row in table.itertuples():
        known = predictions.loc[row.path]
        assert (row.label, row.predicted, row.split) == (known.label, known.predicted, known.split)
        assert float(row.confidence) == known[f"p_{row.predicted}"]
        assert row.kind == ("right" if row.label == row.predicted else "wrong")
        picture, overlay = (
            Image.open(pipeline / FOLDER / name) for name in (row.picture, row.overlay)
        )
        assert picture.format == overlay.format == "JPEG"
        assert max(picture.size) == SIDE
        assert overlay.size == picture.size
        assert np.ptp(np.asarray(overlay), axis=2).max() > 50  # colours over a grey picture


def test_the_sanity_check_tells_that_random_weights_change_the_maps(
    pipeline: Path, table: pd.DataFrame
) -> None:
    sanity = json.loads((pipeline / FOLDER / "sanity.json").read_text())
    assert sanity["reason"] is None
    assert sanity["images"] == len(table)
    assert sanity["grid"] == [8, 10]  # half of 16 x 20, before the second pooling
    assert all(abs(sanity[f"correlation_random_{what}"]) < 0.9 for what in ("head", "network"))


def test_the_surest_are_chosen_once_of_each_group() -> None:
    rows = [
        ("a", "cat", "cat", "test", 0.8), ("b", "cat", "cat", "validation", 0.9),
        ("c", "cat", "cat", "test", 0.7), ("d", "cat", "cat", "training", 1.0),
        ("e", "cat", "dog", "test", 0.2), ("f", "cat", "dog", "test", 0.1),
        ("g", "dog", "dog", "test", 0.4), ("h", "dog", "dog", "test", 0.4),
    ]  # fmt: skip
    predictions = pd.DataFrame(
        rows, columns=["path", "label", "predicted", "split", "p_cat"]
    ).assign(p_dog=lambda t: 1 - t.p_cat)
    splits = pd.DataFrame({"path": list("abcdefgh"), "group": list("aacdaffh")})
    chosen = choose(predictions, splits, Explain(right=2, wrong=1))
    assert chosen.path.tolist() == ["b", "c", "f", "g", "h"]
    assert chosen.kind.tolist() == ["right", "right", "wrong", "right", "right"]
    assert chosen.confidence.tolist() == pytest.approx([0.9, 0.7, 0.9, 0.6, 0.6])


def test_again_gives_the_same_bytes(workspace: Path, pipeline: Path) -> None:
    for file in FOLDER.iterdir():
        file.unlink()
    run_stage("explain@tiny")
    names = sorted(file.name for file in FOLDER.iterdir())
    assert names == sorted(file.name for file in (pipeline / FOLDER).iterdir())
    for name in names:
        assert (FOLDER / name).read_bytes() == (pipeline / FOLDER / name).read_bytes(), name


def rerun(old: str, new: str) -> pd.DataFrame:
    """Return the table after a change of params, in an empty folder as from DVC."""
    params = Path("params.yaml").read_text()
    assert old in params
    Path("params.yaml").write_text(params.replace(old, new))
    for file in FOLDER.iterdir():
        file.unlink()
    run_stage("explain@tiny")
    return read_table(FOLDER / "explanations.csv")


def test_without_thumbnails_no_picture_is_written(workspace: Path, table: pd.DataFrame) -> None:
    shown = rerun("report: {", "report: {thumbnails: false, ")
    assert sorted(file.name for file in FOLDER.iterdir()) == ["explanations.csv", "sanity.json"]
    pd.testing.assert_frame_equal(shown[COLUMNS], table[COLUMNS])
    assert not shown.picture.any() and not shown.overlay.any()


def test_none_asked_for_gives_an_empty_table(workspace: Path) -> None:
    assert rerun("report: {", "explain: {right: 0, wrong: 0}\nreport: {").empty
    assert "explain.right" in json.loads((FOLDER / "sanity.json").read_text())["reason"]


def test_a_model_without_feature_maps_gives_an_empty_table_and_the_reason(workspace: Path) -> None:
    model = Path("data/models/tiny")
    (model / "model.keras").rename(model / "model.skops")
    run_stage("explain@tiny")
    table = read_table(FOLDER / "explanations.csv")
    assert table.empty
    assert list(table) == [*COLUMNS, "picture", "overlay"]
    assert "scikit-learn" in json.loads((FOLDER / "sanity.json").read_text())["reason"]
