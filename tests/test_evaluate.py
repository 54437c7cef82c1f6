"""The numbers and tables of an architecture follow from its predictions alone, and need no TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks.evaluate import errors, score, tables
from tasks.tables import read_table, write_table
from tests.conftest import CLASSES, ROOT, run_stage

TABLES = ["calibration", "confusion", "errors", "per_class", "pr", "roc", "test_classes"]


@pytest.fixture(scope="module")
def predictions(pipeline: Path) -> pd.DataFrame:
    return read_table(pipeline / "data/results/tiny/predictions.csv")


@pytest.fixture(scope="module")
def metrics(pipeline: Path) -> dict[str, float]:
    return json.loads((pipeline / "data/results/tiny/metrics.json").read_text())


@pytest.mark.parametrize(("prefix", "part"), [("train", "training"), ("val", "validation"), ("test", "test")])
def test_the_scores_of_each_part(prefix: str, part: str, predictions: pd.DataFrame, metrics: dict[str, float]) -> None:
    rows = predictions[predictions.split == part]
    right = rows.label == rows.predicted
    assert metrics[f"{prefix}_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    for label in CLASSES:
        assert metrics[f"{prefix}_recall_{label}"] == pytest.approx(right[rows.label == label].mean(), abs=1e-6)
    assert metrics[f"{prefix}_balanced_accuracy"] == pytest.approx(right.groupby(rows.label).mean().mean(), abs=1e-6)
    assert 0 <= metrics[f"{prefix}_calibration_error"] <= 1


def test_every_score_stands_for_each_part(metrics: dict[str, float]) -> None:
    names = {
        prefix: {name.removeprefix(prefix) for name in metrics if name.startswith(prefix)} for prefix in ("train_", "val_", "test_")
    }
    assert names["train_"] == names["val_"] == names["test_"] and len(names["test_"]) == 11 + len(CLASSES)
    assert len(metrics) == 3 * len(names["test_"])


def test_changing_the_test_rows_leaves_the_other_scores(predictions: pd.DataFrame) -> None:
    changed = predictions.copy()
    test = changed.split == "test"
    changed.loc[test, "label"] = changed.label[test].to_numpy()[::-1]
    before, after = score(predictions, 5), score(changed, 5)
    assert {name for name in before if before[name] != after[name]} <= {name for name in before if name.startswith("test_")}
    assert before["test_log_loss"] != after["test_log_loss"]


def test_the_tables_are_of_the_test_images(pipeline: Path, predictions: pd.DataFrame) -> None:
    results = pipeline / "data/results/tiny"
    assert sorted(tables(predictions, 5)) == TABLES
    test = predictions[predictions.split == "test"]
    confusion = read_table(results / "confusion.csv")
    counted = pd.crosstab(test.label, test.predicted).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
    assert confusion["count"].astype(int).tolist() == counted.to_numpy().ravel().tolist()
    assert confusion.actual.tolist() == [label for label in CLASSES for _ in CLASSES]
    classes = read_table(results / "test_classes.csv")
    assert classes.actual.tolist() == test.label.tolist() and classes.predicted.tolist() == test.predicted.tolist()
    per_class = read_table(results / "per_class.csv")
    assert per_class.label.tolist() == CLASSES and per_class.support.tolist() == ["5"] * 4
    assert set(read_table(results / "roc.csv").label) == set(read_table(results / "pr.csv").label) == set(CLASSES)
    assert read_table(results / "calibration.csv")["count"].astype(int).sum() == len(test)


def test_errors_begin_with_the_most_confident() -> None:
    rows = [("b", "x", "y", 0.4, 0.6), ("c", "x", "x", 0.9, 0.1), ("d", "y", "x", 0.95, 0.05), ("a", "x", "y", 0.4, 0.6)]
    table = errors(pd.DataFrame(rows, columns=["path", "label", "predicted", "p_x", "p_y"]))
    assert table.values.tolist() == [["d", "y", "x", 0.95], ["a", "x", "y", 0.6], ["b", "x", "y", 0.6]]


def test_a_forest_that_tells_photos_from_the_rest(workspace: Path) -> None:
    """One row of history without a learning rate, and two columns of one probability."""
    rows = [("a", 0.1), ("b", 0.2), ("c", 0.7), ("d", 0.4), ("e", 0.9)]
    parts = [
        (f"{part}/{path}", "photo" if path in "de" else "not_photo", part, "photo" if p > 0.5 else "not_photo", p, 1 - p, p)
        for part in ("training", "validation", "test")
        for path, p in rows
    ]
    results = Path("data/results/forest")
    columns = ["path", "label", "split", "predicted", "distance", "p_not_photo", "p_photo"]
    write_table(pd.DataFrame(parts, columns=columns), results / "predictions.csv")
    (results / "history.csv").write_text("epoch,loss,accuracy,val_loss,val_accuracy\n1,0.5,0.6,0.5,0.6\n")
    run_stage("evaluate@forest")
    metrics = json.loads((results / "metrics.json").read_text())
    assert (metrics["test_accuracy"], metrics["val_recall_photo"], metrics["train_recall_not_photo"]) == (0.6, 0.5, 0.6666667)
    assert metrics["test_roc_auc"] == 0.8333333
    assert read_table(results / "per_class.csv").label.tolist() == ["not_photo", "photo"]
    assert read_table(results / "confusion.csv")["count"].tolist() == ["2", "1", "1", "1"]
    assert read_table(results / "errors.csv").path.tolist() == ["test/c", "test/d"]
    assert set(read_table(results / "roc.csv").label) == set(read_table(results / "pr.csv").label) == {"not_photo", "photo"}


def test_the_run_of_the_training_carries_the_scores(pipeline: Path, metrics: dict[str, float]) -> None:
    client = MlflowClient(f"sqlite:///{pipeline}/mlflow.db")
    experiment = client.get_experiment_by_name("image-classification")
    (run,) = client.search_runs([experiment.experiment_id], "params.architecture = 'tiny'")
    assert run.data.metrics["test_macro_f1"] == metrics["test_macro_f1"]
    assert run.data.metrics["val_recall_tumeur née"] == metrics["val_recall_tumeur née"]
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"confusion.png", "history.png", "summary.txt"} <= artifacts


def test_again_gives_the_same_bytes(workspace: Path, pipeline: Path) -> None:
    names = ["metrics.json", "thresholds.json", *(f"{name}.csv" for name in TABLES)]
    for name in names:
        (workspace / "data/results/tiny" / name).unlink()
    run_stage("evaluate@tiny")
    for name in names:
        assert (workspace / "data/results/tiny" / name).read_bytes() == (pipeline / "data/results/tiny" / name).read_bytes()


def test_needs_no_tensorflow() -> None:
    code = (
        "import sys, tasks.evaluate, tasks.compare, tasks.report; print([n for n in sys.modules if n in ('tensorflow', 'keras')])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
