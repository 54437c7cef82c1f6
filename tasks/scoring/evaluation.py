"""Write the scores and tables of one architecture or ensemble, from its predictions. No TensorFlow.

Training, validation and test images are scored alike. The prefix of a metric names the part. Only
validation scores may choose anything. The test images are scored a second time without those that
have a copy in training (`test_without_copies_`).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd

from tasks.params.evaluate import Evaluate
from tasks.results import METRICS_JSON, PREDICTIONS_CSV, THRESHOLDS_JSON
from tasks.scoring import calibration, figures, metrics, thresholds
from tasks.scoring.predictions import add_groups, list_classes, to_arrays
from tasks.scoring.review import find_suspects, list_errors
from tasks.scoring.statistics import bootstrap_intervals
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.keys import make_key

PREFIXES = {"train": "training", "val": "validation", "test": "test"}
HELD_OUT = ("validation", "test")
TEST_CLASSES_COLUMNS = {
    "actual": "Class of the test image.",
    "predicted": "Class that the model predicts. `dvc plots` draws the confusion matrix from both.",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """The model that is evaluated. `results` holds its predictions and receives its tables.

    An ensemble has no `best_epoch` and no `history`: it is not trained itself.
    """

    name: str
    results: Path
    temperature: float
    best_epoch: int | None = None
    history: pd.DataFrame | None = None


def evaluate(model: Evaluated, splits_csv: Path, wanted: Evaluate) -> None:
    """Write metrics.json, thresholds.json and all tables of the model, and log them to MLflow."""
    predictions = add_groups(read_table(model.results / PREDICTIONS_CSV), read_table(splits_csv))
    bins = wanted.calibration_bins
    scores = score_predictions(predictions, model.temperature, bins)
    if model.best_epoch is not None:
        scores["best_epoch"] = model.best_epoch
    scores["temperature"] = model.temperature
    scores = {
        name: value if isinstance(value, int) else float(f"{value:.7g}")
        for name, value in scores.items()
    }
    _write_json(scores, model.results / METRICS_JSON)
    tables = make_tables(predictions, model.temperature, bins)
    for name, rows in tables.items():
        write_table(rows, model.results / f"{name}.csv")
    chosen = thresholds.choose_thresholds(predictions, wanted)
    _write_json(chosen, model.results / THRESHOLDS_JSON)
    track(model, scores, tables["confusion"])
    log_scores(model.name, scores, tables["per_class"])
    for line in thresholds.describe_thresholds(chosen):
        log.info("%s %s", model.name, line)


def score_predictions(predictions: pd.DataFrame, temperature: float, bins: int) -> dict[str, float]:
    """Return metrics such as `test_macro_f1` and `test_recall_<class>`, except undefined metrics.

    `predictions` must have the columns that `add_groups` adds.
    """
    scores: dict[str, float] = {}
    for prefix, part in PREFIXES.items():
        rows = predictions[predictions.split == part]
        numbers = score_part(rows, temperature, bins)
        if part in HELD_OUT:
            numbers |= measure_intervals(rows)
        scores |= {f"{prefix}_{name}": value for name, value in numbers.items()}
    rest = predictions[(predictions.split == "test") & ~predictions.copied]
    return scores | {
        f"test_without_copies_{name}": value for name, value in score_rest(rest).items()
    }


def score_part(predictions: pd.DataFrame, temperature: float, bins: int) -> dict[str, float]:
    """Return the scores of one part. Names in `_before` are scores before temperature scaling."""
    labels, probabilities = to_arrays(predictions)
    scores = metrics.score(labels, probabilities)
    for suffix, shares in (
        ("", probabilities),
        ("_before", calibration.undo_scaling(probabilities, temperature)),
    ):
        error, _ = calibration.measure_calibration(labels, shares, bins)
        scores[f"calibration_error{suffix}"] = error
        scores[f"brier{suffix}"] = calibration.measure_brier(labels, shares)
    per_class = metrics.score_classes(labels, probabilities, list_classes(predictions))
    recalls = per_class.set_index("label").recall.dropna()
    return scores | {f"recall_{label}": value for label, value in recalls.items()}


def measure_intervals(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the ends of the 95 % intervals of accuracy and macro F1."""
    labels, probabilities = to_arrays(predictions)
    return bootstrap_intervals(
        labels, probabilities.argmax(axis=1), probabilities.shape[1], predictions.group
    )


def score_rest(predictions: pd.DataFrame) -> dict[str, float]:
    """Return images, classes, accuracy and macro F1 with their intervals.

    The scores are absent if there are no images.
    """
    counts = {"images": len(predictions), "classes": predictions.label.nunique()}
    if predictions.empty:
        return counts
    scores = metrics.score(*to_arrays(predictions))
    return (
        counts
        | {name: scores[name] for name in ("accuracy", "macro_f1")}
        | measure_intervals(predictions)
    )


def make_tables(
    predictions: pd.DataFrame, temperature: float, bins: int, held_out: Sequence[str] = HELD_OUT
) -> dict[str, pd.DataFrame]:
    """Return all tables by name. They describe the last part of `held_out`.

    Tables with a column `split` describe all parts of `held_out`.
    """
    parts = {part: predictions[predictions.split == part] for part in held_out}
    test, classes = parts[held_out[-1]], list_classes(predictions)
    labels, probabilities = to_arrays(test)
    roc, pr = metrics.trace_curves(labels, probabilities, classes)
    scaled = {
        "before": calibration.undo_scaling(probabilities, temperature),
        "after": probabilities,
    }
    bins_of = {
        when: calibration.measure_calibration(labels, shares, bins)[1]
        for when, shares in scaled.items()
    }
    coverage = {
        part: calibration.measure_coverage(*to_arrays(rows)) for part, rows in parts.items()
    }
    return {
        "per_class": metrics.score_classes(labels, probabilities, classes),
        "confusion": metrics.count_confusions(labels, probabilities, classes),
        "roc": roc,
        "pr": pr,
        "calibration": pd.concat(bins_of, names=["when"]).reset_index(level=0),
        "coverage": pd.concat(coverage, names=["split"]).reset_index(level=0),
        "errors": list_errors(test),
        "suspects": find_suspects(pd.concat(parts.values())),
        "test_classes": test[["label", "predicted"]].rename(columns={"label": "actual"}),
    }


def track(model: Evaluated, scores: dict[str, float], confusion: pd.DataFrame) -> None:
    """Add the scores, the curves and the confusion matrix to the MLflow run of the training."""
    with runs.record_run(lambda: runs.continue_run(model.name, model.results / PREDICTIONS_CSV)):
        runs.record(
            lambda: mlflow.log_metrics(
                {make_key(metric): value for metric, value in scores.items()}
            )
        )
        if model.history is not None:
            drawn = figures.draw_history(model.history, int(scores["best_epoch"]))
            runs.record(lambda: mlflow.log_figure(drawn, "history.png"))
        runs.record(lambda: mlflow.log_figure(figures.draw_confusion(confusion), "confusion.png"))


def log_scores(name: str, scores: dict[str, float], per_class: pd.DataFrame) -> None:
    """Log the epoch, the temperature, the main scores of each part, and the scores per class."""
    epoch = f"epoch {scores['best_epoch']} kept, " if "best_epoch" in scores else ""
    log.info("%s %stemperature %.3g", name, epoch, scores["temperature"])
    for prefix in PREFIXES:
        shown = (
            scores[f"{prefix}_{metric}"]
            for metric in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
        )
        log.info(
            "%s %-5s accuracy %.3f  balanced %.3f  macro F1 %.3f  log loss %.3f",
            *(name, prefix, *shown),
        )
    log.info(
        "on the test images:\n%s", per_class.to_string(index=False, float_format="%.3f", na_rep="")
    )


def _write_json(content: dict[str, float], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")
