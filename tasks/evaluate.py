"""Score one architecture from its predictions: numbers and tables in `data/results/<architecture>`.

Training, validation and test are scored alike and kept apart by the prefix of each metric; only validation may choose.
Needs no TensorFlow. Run by hand: `dvc repro --single-item evaluate@cnn_a`.
"""

import json
import logging
from pathlib import Path

import mlflow
import pandas as pd

from tasks import tracking
from tasks.command import run
from tasks.params import load_params
from tasks.scoring import figures, metrics, thresholds
from tasks.scoring.predictions import arrays, class_names
from tasks.tables import read_table, write_table

PREFIXES = {"train": "training", "val": "validation", "test": "test"}

log = logging.getLogger(__name__)


def main(architecture: str, history_csv: Path, predictions_csv: Path, results: Path) -> None:
    """Write metrics.json and, of the test images, the tables that `tables` names."""
    wanted = load_params().evaluate
    bins = wanted.calibration_bins
    predictions = read_table(predictions_csv)
    scores = score(predictions, bins)
    (results / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")
    test = tables(predictions[predictions.split == "test"], bins)
    for name, table in test.items():
        write_table(table, results / f"{name}.csv")
    chosen = thresholds.choose(
        predictions,
        wanted.abstain.accuracy if wanted.abstain else None,
        wanted.unfamiliar.false_alarms if wanted.unfamiliar else None,
    )
    (results / "thresholds.json").write_text(json.dumps(chosen, indent=2) + "\n")
    track(architecture, history_csv, predictions_csv, scores, test["confusion"])
    tell(architecture, scores, test["per_class"])
    for line in thresholds.in_words(chosen):
        log.info("%s %s", architecture, line)


def score(predictions: pd.DataFrame, bins: int) -> dict[str, float]:
    """Return flat metrics, such as `test_macro_f1` and `test_recall_<class>`, to seven digits."""
    scores: dict[str, float] = {}
    classes = class_names(predictions)
    for prefix, part in PREFIXES.items():
        labels, probabilities = arrays(predictions[predictions.split == part])
        numbers = metrics.score(labels, probabilities)
        numbers["calibration_error"], _ = metrics.calibration(labels, probabilities, bins)
        recalls = metrics.per_class(labels, probabilities, classes).set_index("label").recall
        numbers |= {f"recall_{label}": value for label, value in recalls.items()}
        scores |= {f"{prefix}_{name}": float(f"{value:.7g}") for name, value in numbers.items()}
    return scores


def tables(predictions: pd.DataFrame, bins: int) -> dict[str, pd.DataFrame]:
    """Return the tables of one part's predictions by name."""
    labels, probabilities = arrays(predictions)
    classes = class_names(predictions)
    roc, pr = metrics.curves(labels, probabilities, classes)
    return {
        "per_class": metrics.per_class(labels, probabilities, classes),
        "confusion": metrics.confusion(labels, probabilities, classes),
        "roc": roc,
        "pr": pr,
        "calibration": metrics.calibration(labels, probabilities, bins)[1],
        "errors": errors(predictions),
        "test_classes": predictions[["label", "predicted"]].rename(columns={"label": "actual"}),
    }


def errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the wrong ones, the most confident first: path, label, predicted, confidence."""
    wrong = predictions[predictions.label != predictions.predicted]
    confidence = wrong[[f"p_{label}" for label in class_names(predictions)]].max(axis=1)
    return (
        wrong[["path", "label", "predicted"]]
        .assign(confidence=confidence)
        .sort_values(["confidence", "path"], ascending=[False, True])
    )


def track(architecture: str, history_csv: Path, predictions_csv: Path, scores: dict[str, float], confusion: pd.DataFrame) -> None:
    """Add the scores, the curves and the confusion matrix to the training's MLflow run."""
    with tracking.continue_run(architecture, predictions_csv):
        mlflow.log_metrics({tracking.metric_name(name): value for name, value in scores.items()})
        history = pd.read_csv(history_csv)
        mlflow.log_figure(figures.history(history), "history.png")
        mlflow.log_figure(figures.confusion(confusion), "confusion.png")


def tell(architecture: str, scores: dict[str, float], per_class: pd.DataFrame) -> None:
    """Log what a person wants to know."""
    for prefix in PREFIXES:
        log.info(
            "%s %-5s accuracy %.3f  balanced %.3f  macro F1 %.3f  log loss %.3f",
            architecture, prefix, scores[f"{prefix}_accuracy"], scores[f"{prefix}_balanced_accuracy"],
            scores[f"{prefix}_macro_f1"], scores[f"{prefix}_log_loss"],
        )  # fmt: skip
    log.info("on the test images:\n%s", per_class.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    run(main)
