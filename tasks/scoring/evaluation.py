"""The numbers and tables of one model, an architecture or an ensemble, from its predictions alone. Needs no TensorFlow.

Training, validation and test are scored alike and kept apart by the prefix of each metric; only validation may choose.
The test is scored a second time without the images that have a copy in training (`test_without_copies_`).
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd

from tasks.errors import UserError
from tasks.params.evaluate import Evaluate
from tasks.results import METRICS_JSON, THRESHOLDS_JSON
from tasks.scoring import figures, metrics, thresholds
from tasks.scoring.calibration import before_scaling, brier, calibration, coverage
from tasks.scoring.predictions import arrays, class_names, with_groups
from tasks.scoring.review import errors, suspects
from tasks.scoring.statistics import intervals
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.keys import make_key

PREFIXES = {"train": "training", "val": "validation", "test": "test"}
HELD_OUT = ("validation", "test")

log = logging.getLogger(__name__)


def evaluate(
    name: str, splits_csv: Path, predictions_csv: Path, results: Path, temperature: float, wanted: Evaluate,
    trained: dict[str, int], history: pd.DataFrame | None,
) -> None:  # fmt: skip
    """Write metrics.json and the tables that `tables` names, for whatever made the predictions.

    `trained` and `history` tell of its training, if it had one.
    """
    predictions, bins = (
        with_groups(read_table(predictions_csv), read_table(splits_csv)),
        wanted.calibration_bins,
    )
    scores = score(predictions, temperature, bins) | trained | {"temperature": temperature}
    scores = {
        name: value if isinstance(value, int) else float(f"{value:.7g}")
        for name, value in scores.items()
    }
    (results / METRICS_JSON).write_text(json.dumps(scores, indent=2) + "\n")
    written = tables(predictions, temperature, bins)
    for table, rows in written.items():
        write_table(rows, results / f"{table}.csv")
    chosen = thresholds.choose(
        predictions,
        wanted.abstain.accuracy if wanted.abstain else None,
        wanted.unfamiliar.false_alarms if wanted.unfamiliar else None,
    )
    (results / THRESHOLDS_JSON).write_text(json.dumps(chosen, indent=2) + "\n")
    track(name, predictions_csv, scores, written["confusion"], history)
    tell(name, scores, written["per_class"])
    for line in thresholds.in_words(chosen):
        log.info("%s %s", name, line)


def read_temperature(calibration_json: Path) -> float:
    """Return the temperature that training fitted. Raises `UserError` where there is none."""
    found = json.loads(calibration_json.read_text()) if calibration_json.is_file() else "no file"
    temperature = found.get("temperature") if isinstance(found, dict) else None
    if not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
        raise UserError(
            f'{calibration_json}: expected {{"temperature": T}} with T above 0, received {found}; training writes it: dvc repro'
        )
    return float(temperature)


def score(predictions: pd.DataFrame, temperature: float, bins: int) -> dict[str, float]:
    """Return flat metrics, such as `test_macro_f1` and `test_recall_<class>`. What is not defined is left out.

    `predictions` have the columns of `with_groups`.
    """
    scores: dict[str, float] = {}
    for prefix, part in PREFIXES.items():
        rows = predictions[predictions.split == part]
        numbers = score_part(rows, temperature, bins)
        if part in HELD_OUT:
            numbers |= bounds(rows)
        scores |= {f"{prefix}_{name}": value for name, value in numbers.items()}
    rest = predictions[(predictions.split == "test") & ~predictions.copied]
    return scores | {
        f"test_without_copies_{name}": value for name, value in score_rest(rest).items()
    }


def score_part(predictions: pd.DataFrame, temperature: float, bins: int) -> dict[str, float]:
    """Return the scores of one part; those that end in `_before` are of the probabilities before temperature scaling."""
    labels, probabilities = arrays(predictions)
    scores = metrics.score(labels, probabilities)
    for suffix, shares in (
        ("", probabilities),
        ("_before", before_scaling(probabilities, temperature)),
    ):
        scores[f"calibration_error{suffix}"], _ = calibration(labels, shares, bins)
        scores[f"brier{suffix}"] = brier(labels, shares)
    recalls = (
        metrics.per_class(labels, probabilities, class_names(predictions)).set_index("label").recall
    )
    return scores | {f"recall_{label}": value for label, value in recalls.dropna().items()}


def bounds(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the ends of the 95 % intervals of accuracy and macro F1."""
    labels, probabilities = arrays(predictions)
    return intervals(
        labels, probabilities.argmax(axis=1), probabilities.shape[1], predictions.group
    )


def score_rest(predictions: pd.DataFrame) -> dict[str, float]:
    """Return accuracy and macro F1 with their intervals, and of how many images and classes; without images no score."""
    counts = {"images": len(predictions), "classes": predictions.label.nunique()}
    if predictions.empty:
        return counts
    scores = metrics.score(*arrays(predictions))
    return counts | {name: scores[name] for name in ("accuracy", "macro_f1")} | bounds(predictions)


def tables(
    predictions: pd.DataFrame, temperature: float, bins: int, held_out: Sequence[str] = HELD_OUT
) -> dict[str, pd.DataFrame]:
    """Return tables by name: of the last part of `held_out`, and where there is a column `split`, of all of them."""
    parts = {part: predictions[predictions.split == part] for part in held_out}
    test, classes = parts[held_out[-1]], class_names(predictions)
    labels, probabilities = arrays(test)
    roc, pr = metrics.curves(labels, probabilities, classes)
    scaled = {"before": before_scaling(probabilities, temperature), "after": probabilities}
    return {
        "per_class": metrics.per_class(labels, probabilities, classes),
        "confusion": metrics.confusion(labels, probabilities, classes),
        "roc": roc,
        "pr": pr,
        "calibration": stack(
            "when", {when: calibration(labels, shares, bins)[1] for when, shares in scaled.items()}
        ),
        "coverage": stack("split", {part: coverage(*arrays(rows)) for part, rows in parts.items()}),
        "errors": errors(test),
        "suspects": suspects(pd.concat(parts.values())),
        "test_classes": test[["label", "predicted"]].rename(columns={"label": "actual"}),
    }


def stack(name: str, found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return tables one below the other, with a first column that tells them apart."""
    return pd.concat(found, names=[name]).reset_index(level=0)


def track(
    name: str,
    predictions_csv: Path,
    scores: dict[str, float],
    confusion: pd.DataFrame,
    history: pd.DataFrame | None,
) -> None:
    """Add the scores, the curves and the confusion matrix to the MLflow run that the predictions are of."""
    with runs.record_run(lambda: runs.continue_run(name, predictions_csv)):
        runs.record(
            lambda: mlflow.log_metrics(
                {make_key(metric): value for metric, value in scores.items()}
            )
        )
        if history is not None:
            drawn = figures.history(history, scores["best_epoch"])
            runs.record(lambda: mlflow.log_figure(drawn, "history.png"))
        runs.record(lambda: mlflow.log_figure(figures.confusion(confusion), "confusion.png"))


def tell(name: str, scores: dict[str, float], per_class: pd.DataFrame) -> None:
    """Log what a person wants to know."""
    epoch = f"epoch {scores['best_epoch']} kept, " if "best_epoch" in scores else ""
    log.info("%s %stemperature %.3g", name, epoch, scores["temperature"])
    for prefix in PREFIXES:
        log.info(
            "%s %-5s accuracy %.3f  balanced %.3f  macro F1 %.3f  log loss %.3f",
            name, prefix, scores[f"{prefix}_accuracy"], scores[f"{prefix}_balanced_accuracy"],
            scores[f"{prefix}_macro_f1"], scores[f"{prefix}_log_loss"],
        )  # fmt: skip
    log.info(
        "on the test images:\n%s", per_class.to_string(index=False, float_format="%.3f", na_rep="")
    )
