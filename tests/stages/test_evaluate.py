"""The scores and tables of an architecture need its predictions only, and no TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks.errors import UserError
from tasks.params.train import EarlyStopping, Train, select_epoch
from tasks.results import read_temperature
from tasks.scoring import calibration, review
from tasks.scoring import metrics as tables_of
from tasks.scoring.evaluation import TEST_CLASSES_COLUMNS, make_tables, score_predictions
from tasks.scoring.predictions import add_groups
from tasks.tables import read_table, write_table
from tests.support import ROOT
from tests.support.pipeline import CLASSES, run_stage

TABLES = [
    "calibration",
    "confusion",
    "coverage",
    "errors",
    "per_class",
    "pr",
    "roc",
    "suspects",
    "test_classes",
]
BOUNDS = {f"{name}_{end}" for name in ("accuracy", "macro_f1") for end in ("low", "high")}


@pytest.fixture(scope="module")
def predictions(pipeline: Path) -> pd.DataFrame:
    return add_groups(
        read_table(pipeline / "data/results/tiny/predictions.csv"),
        read_table(pipeline / "data/splits.csv"),
    )


@pytest.fixture(scope="module")
def metrics(pipeline: Path) -> dict[str, float]:
    return json.loads((pipeline / "data/results/tiny/metrics.json").read_text())


@pytest.mark.parametrize(
    ("prefix", "part"), [("train", "training"), ("val", "validation"), ("test", "test")]
)
def test_the_tables_of_each_part(
    prefix: str, part: str, predictions: pd.DataFrame, metrics: dict[str, float]
) -> None:
    rows = predictions[predictions.split == part]
    right = rows.label == rows.predicted
    assert metrics[f"{prefix}_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    for label in CLASSES:
        assert metrics[f"{prefix}_recall_{label}"] == pytest.approx(
            right[rows.label == label].mean(), abs=1e-6
        )
    assert metrics[f"{prefix}_balanced_accuracy"] == pytest.approx(
        right.groupby(rows.label).mean().mean(), abs=1e-6
    )
    assert 0 <= metrics[f"{prefix}_calibration_error"] <= 1


def test_every_score_stands_for_each_part(metrics: dict[str, float]) -> None:
    whole = {name for name in metrics if name.startswith("test_without_copies_")}
    names = {
        prefix: {
            name.removeprefix(prefix) for name in metrics.keys() - whole if name.startswith(prefix)
        }
        for prefix in ("train_", "val_", "test_")
    }
    assert names["val_"] == names["test_"] == names["train_"] | BOUNDS and len(
        names["train_"]
    ) == 15 + len(CLASSES)
    assert whole == {
        f"test_without_copies_{name}"
        for name in {"images", "classes", "accuracy", "macro_f1"} | BOUNDS
    }
    assert len(metrics) == sum(map(len, names.values())) + len(whole) + len(
        ["best_epoch", "temperature"]
    )


def test_a_score_lies_in_its_interval(metrics: dict[str, float]) -> None:
    for name in (
        "val_accuracy",
        "val_macro_f1",
        "test_accuracy",
        "test_macro_f1",
        "test_without_copies_accuracy",
    ):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
        assert metrics[f"{name}_low"] < metrics[f"{name}_high"]


def test_changing_the_test_rows_leaves_the_other_scores(predictions: pd.DataFrame) -> None:
    changed = predictions.copy()
    test = changed.split == "test"
    changed.loc[test, "label"] = changed.label[test].to_numpy()[::-1]
    before, after = score_predictions(predictions, 1.5, 5), score_predictions(changed, 1.5, 5)
    assert {name for name in before if before[name] != after[name]} <= {
        name for name in before if name.startswith("test_")
    }
    assert before["test_log_loss"] != after["test_log_loss"]


def rows(test: list[tuple[str, str, float, str, bool]]) -> pd.DataFrame:
    """Predict these test images (path, label, p_x, group, copied), and two of each other part."""
    rest = [
        (f"{part}{label}", label, 0.5, part + label, False, part)
        for part in ("training", "validation")
        for label in "xy"
    ]
    columns = ["path", "label", "p_x", "group", "copied", "split"]
    table = pd.DataFrame([(*row, "test") for row in test] + rest, columns=columns)
    return table.assign(predicted=["x" if p >= 0.5 else "y" for p in table.p_x], p_y=1 - table.p_x)


def test_the_test_without_copies_by_hand() -> None:
    """Four of six images are right. Two of them have a copy in training: without, two of four."""
    test = [
        ("1", "x", 0.9, "g", True), ("2", "y", 0.1, "g", True),
        ("3", "x", 0.8, "3", False), ("4", "x", 0.2, "4", False),
        ("5", "y", 0.7, "5", False), ("6", "y", 0.3, "6", False),
    ]  # fmt: skip
    scores = score_predictions(rows(test), 1.0, 5)
    assert scores["test_accuracy"] == scores["test_macro_f1"] == pytest.approx(4 / 6)
    assert (scores["test_without_copies_images"], scores["test_without_copies_classes"]) == (4, 2)
    assert scores["test_without_copies_accuracy"] == scores["test_without_copies_macro_f1"] == 0.5
    assert (
        scores["test_without_copies_accuracy_low"] < 0.2
        and scores["test_without_copies_accuracy_high"] > 0.8
    )


def test_without_copies_both_numbers_are_equal() -> None:
    scores = score_predictions(
        rows(
            [("1", "x", 0.9, "1", False), ("2", "y", 0.8, "2", False), ("3", "y", 0.3, "3", False)]
        ),
        1.0,
        5,
    )
    for name in ("accuracy", "macro_f1", *BOUNDS):
        assert scores[f"test_{name}"] == scores[f"test_without_copies_{name}"]


def test_a_class_that_copies_take_away_leaves_the_macro_f1() -> None:
    """Two images of x are left, one right and one predicted as y. The F1 of x is 2 / 3."""
    test = [("1", "x", 0.9, "1", False), ("2", "x", 0.2, "2", False), ("3", "y", 0.1, "3", True)]
    scores = score_predictions(rows(test), 1.0, 5)
    assert scores["test_without_copies_classes"] == 1 and scores[
        "test_without_copies_macro_f1"
    ] == pytest.approx(2 / 3)


def test_where_all_have_copies_nothing_is_claimed() -> None:
    scores = score_predictions(
        rows([("1", "x", 0.9, "1", True), ("2", "y", 0.1, "2", True)]), 1.0, 5
    )
    left = {
        name.removeprefix("test_without_copies_"): scores[name]
        for name in scores
        if "without_copies" in name
    }
    assert left == {"images": 0, "classes": 0} and scores["test_accuracy"] == 1


@pytest.mark.slow
def test_groups_widen_the_interval() -> None:
    """Ten images of two patients, one all right, one all wrong."""
    test = [
        (str(number), "x", 0.9 if number < 5 else 0.1, str(number), False) for number in range(10)
    ]
    patients = [(path, label, p, str(int(path) // 5), False) for path, label, p, _, _ in test]
    alone, together = (
        score_predictions(rows(test), 1.0, 5),
        score_predictions(rows(patients), 1.0, 5),
    )
    assert together["test_accuracy"] == alone["test_accuracy"] == 0.5
    assert together["test_accuracy_low"] < alone["test_accuracy_low"] - 0.1


def test_calibration_before_and_after() -> None:
    """Before a temperature of 2, 0.9 was 0.9^2 / (0.9^2 + 0.1^2). Two of three are right."""
    table = rows(
        [("1", "x", 0.9, "1", False), ("2", "x", 0.9, "2", False), ("3", "y", 0.9, "3", False)]
    )
    scores, sure = score_predictions(table, 2.0, 10), 0.81 / 0.82
    assert scores["test_calibration_error"] == pytest.approx(0.9 - 2 / 3)
    assert scores["test_calibration_error_before"] == pytest.approx(sure - 2 / 3)
    assert scores["test_brier"] == pytest.approx((2 * 2 * 0.1**2 + 2 * 0.9**2) / 3)
    assert scores["test_brier_before"] == pytest.approx((2 * 2 * (1 - sure) ** 2 + 2 * sure**2) / 3)
    bins = make_tables(table, 2.0, 10)["calibration"]
    assert bins.when.tolist() == ["before", "after"] and bins.confidence.tolist() == pytest.approx(
        [sure, 0.9]
    )
    assert bins.accuracy.tolist() == pytest.approx([2 / 3] * 2) and bins["count"].tolist() == [3, 3]


@pytest.mark.parametrize(
    "text",
    [None, "{}", "[1]", '{"temperature": "1"}', '{"temperature": 0}', '{"temperature": NaN}'],
)
def test_a_missing_temperature_is_an_error(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(
        UserError, match=r'calibration.json: expected {"temperature": T} with T above 0, received'
    ):
        read_temperature(file)


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    scores = zip([0.9, 0.5, 0.5, 0.6], [0.1, 0.5, 0.7, 0.7], strict=True)
    history = [{"val_loss": loss, "val_accuracy": accuracy} for loss, accuracy in scores]
    by_accuracy = Train(early_stopping=EarlyStopping(monitor="val_accuracy"))
    assert [
        select_epoch(history, train) for train in (Train(), by_accuracy, Train(keep="last"))
    ] == [1, 2, 3]
    assert select_epoch(history, Train(), "val_accuracy") == 2
    close = [{"val_loss": 0.123456789}, {"val_loss": 0.123456788}]  # history.csv has seven digits
    assert select_epoch(close, Train()) == 0


@pytest.mark.parametrize("architecture", ["tiny", "plain"])
def test_the_weights_of_the_best_epoch_were_kept(architecture: str, pipeline: Path) -> None:
    results = pipeline / "data/results" / architecture
    scores = json.loads((results / "metrics.json").read_text())
    row = pd.read_csv(results / "history.csv").set_index("epoch").loc[scores["best_epoch"]]
    table = read_table(results / "predictions.csv").query("split == 'validation'")
    assert row.val_accuracy == pytest.approx((table.label == table.predicted).mean(), abs=1e-6)


def test_the_tables_are_of_the_test_images(pipeline: Path, predictions: pd.DataFrame) -> None:
    results = pipeline / "data/results/tiny"
    assert sorted(make_tables(predictions, 1.0, 5)) == TABLES
    test = predictions[predictions.split == "test"]
    confusion = read_table(results / "confusion.csv")
    counted = pd.crosstab(test.label, test.predicted).reindex(
        index=CLASSES, columns=CLASSES, fill_value=0
    )
    assert confusion["count"].astype(int).tolist() == counted.to_numpy().ravel().tolist()
    assert confusion.actual.tolist() == [label for label in CLASSES for _ in CLASSES]
    classes = read_table(results / "test_classes.csv")
    assert (
        classes.actual.tolist() == test.label.tolist()
        and classes.predicted.tolist() == test.predicted.tolist()
    )
    per_class = read_table(results / "per_class.csv")
    assert per_class.label.tolist() == CLASSES and per_class.support.tolist() == ["5"] * 4
    assert (
        set(read_table(results / "roc.csv").label)
        == set(read_table(results / "pr.csv").label)
        == set(CLASSES)
    )
    counts = (
        read_table(results / "calibration.csv")
        .astype({"count": int})
        .groupby("when")["count"]
        .sum()
    )
    assert counts.to_dict() == {"before": len(test), "after": len(test)}
    ends = read_table(results / "coverage.csv").groupby("split").last()
    for part in ("validation", "test"):
        of_part = predictions[predictions.split == part]
        right = (of_part.label == of_part.predicted).mean()
        assert ends.loc[part, ["coverage", "images"]].tolist() == ["1", str(len(of_part))]
        assert float(ends.accuracy[part]) == pytest.approx(right, abs=1e-6)
    found = read_table(results / "errors.csv")
    assert set(found.path[found.kind == "worst"]) == set(test.path[test.label != test.predicted])
    assert set(read_table(results / "suspects.csv").split) <= {"validation", "test"}


def test_every_column_is_described(predictions: pd.DataFrame) -> None:
    described = {
        "per_class": tables_of.PER_CLASS_COLUMNS, "confusion": tables_of.CONFUSION_COLUMNS,
        "roc": tables_of.ROC_COLUMNS, "pr": tables_of.PR_COLUMNS,
        "calibration": calibration.CALIBRATION_COLUMNS, "coverage": calibration.COVERAGE_COLUMNS,
        "errors": review.ERRORS_COLUMNS, "test_classes": TEST_CLASSES_COLUMNS,
        "suspects": review.SUSPECTS_COLUMNS.keys() - {"disagree", "models"},
    }  # fmt: skip
    tables = make_tables(predictions, 1.0, 5)
    assert {name: set(table) for name, table in tables.items()} == {
        name: set(columns) for name, columns in described.items()
    }


def test_a_forest_that_tells_photos_from_the_rest(workspace: Path) -> None:
    """One row of history without a learning rate, and two columns of one probability."""
    rows = [("a", 0.1), ("b", 0.2), ("c", 0.7), ("d", 0.4), ("e", 0.9)]
    parts = [
        (
            f"{part}/{path}",
            "photo" if path in "de" else "not_photo",
            part,
            "photo" if p > 0.5 else "not_photo",
            p,
            1 - p,
            p,
        )
        for part in ("training", "validation", "test")
        for path, p in rows
    ]
    results = Path("data/results/forest")
    columns = ["path", "label", "split", "predicted", "distance", "p_not_photo", "p_photo"]
    table = pd.DataFrame(parts, columns=columns)
    write_table(table, results / "predictions.csv")
    write_table(table.assign(group=table.path), Path("data/splits.csv"))
    Path("params.yaml").write_text(
        "architectures: {forest: {like: random_forest, positive: photo}}\n"
    )
    Path("data/models/forest").mkdir()
    Path("data/models/forest/calibration.json").write_text('{"temperature": 2}')
    (results / "history.csv").write_text(
        "epoch,loss,accuracy,val_loss,val_accuracy\n1,0.5,0.6,0.5,0.6\n"
    )
    run_stage("evaluate@forest")
    metrics = json.loads((results / "metrics.json").read_text())
    assert (
        metrics["test_accuracy"],
        metrics["val_recall_photo"],
        metrics["train_recall_not_photo"],
    ) == (0.6, 0.5, 0.6666667)
    assert metrics["test_roc_auc"] == 0.8333333
    assert read_table(results / "per_class.csv").label.tolist() == ["not_photo", "photo"]
    assert read_table(results / "confusion.csv")["count"].tolist() == ["2", "1", "1", "1"]
    assert metrics["best_epoch"] == 1 and metrics["test_brier_before"] > metrics["test_brier"]
    assert read_table(results / "errors.csv").query("kind == 'worst'").path.tolist() == [
        "test/c",
        "test/d",
    ]
    assert (
        set(read_table(results / "roc.csv").label)
        == set(read_table(results / "pr.csv").label)
        == {"not_photo", "photo"}
    )


def test_the_run_of_the_training_carries_the_scores(
    pipeline: Path, metrics: dict[str, float]
) -> None:
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
        assert (workspace / "data/results/tiny" / name).read_bytes() == (
            pipeline / "data/results/tiny" / name
        ).read_bytes()


@pytest.mark.slow
def test_what_starts_without_tensorflow() -> None:
    """A run without ensembles imports nothing heavy at all."""
    code = (
        "import sys, tasks.combine\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'matplotlib', 'sklearn'}\n"
        "print(*heavy & set(sys.modules))\n"
        "import tasks.evaluate, tasks.compare, tasks.report\n"
        "print(*{'tensorflow', 'keras'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "\n\n"
