"""Compare the architectures that params list, and name the winner: `data/comparison.csv`, `data/comparison.json`.

Ranked by a validation score alone; test scores stand beside it, with a 95 % interval of the accuracy.
Run by hand: `dvc repro --single-item compare`.
"""

import json
import logging
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from tasks.command import run
from tasks.params import Architecture, load_params
from tasks.scoring.metrics import verdict
from tasks.tables import read_table, write_table

log = logging.getLogger(__name__)


def main(results: Path, comparison_csv: Path, comparison_json: Path) -> None:
    """Write one row per architecture, the best on validation first, and the winner."""
    params = load_params()
    gap = params.compare.overfitting_gap
    rows = [describe(name, section, results, gap) for name, section in params.architectures.items()]
    table = rank(pd.DataFrame(rows), params.compare.rank_by)
    write_table(table, comparison_csv)
    best = table.iloc[0]
    winner = {
        "winner": best.architecture,
        "ranked_by": params.compare.rank_by,
        "architectures": list(table.architecture),
        **{name: best[name] for name in table if name.startswith(("val_", "test_"))},
    }
    comparison_json.write_text(json.dumps(winner, indent=2) + "\n")
    log.info("%s\nwinner by %s: %s", to_text(table), params.compare.rank_by, best.architecture)


def describe(name: str, section: Architecture, results: Path, gap: float) -> dict[str, object]:
    """Return an architecture's row: structure, scores, interval, cost and overfitting verdict."""
    scores = json.loads((results / name / "metrics.json").read_text())
    timing = json.loads((results / name / "timing.json").read_text())
    low, high = accuracy_interval(read_table(results / name / "predictions.csv"))
    structure = section.structure
    return {
        "architecture": name,
        "filters": " ".join(map(str, structure.filters)),
        "kernel": structure.kernel,
        "dropout": structure.dropout,
        "batch_size": section.train.batch_size,
        "train_accuracy": scores["train_accuracy"],
        "val_accuracy": scores["val_accuracy"],
        "val_balanced_accuracy": scores["val_balanced_accuracy"],
        "val_macro_f1": scores["val_macro_f1"],
        "test_accuracy": scores["test_accuracy"],
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_macro_f1": scores["test_macro_f1"],
        "parameters": timing["parameters"],
        "epochs": len(timing["epoch_seconds"]),
        "seconds": timing["train_seconds"],
        "overfitting": verdict(scores["train_accuracy"], scores["val_accuracy"], gap),
    }


def accuracy_interval(predictions: pd.DataFrame) -> tuple[float, float]:
    """Return the 95 % Wilson interval of the test accuracy (Wilson 1927)."""
    test = predictions[predictions.split == "test"]
    right = int((test.label == test.predicted).sum())
    interval = binomtest(right, len(test)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rank(table: pd.DataFrame, rank_by: str) -> pd.DataFrame:
    """Sort by the validation score; between equals the smaller model wins, then the name."""
    return table.sort_values([rank_by, "parameters", "architecture"], ascending=[False, True, True]).reset_index(drop=True)


def to_text(table: pd.DataFrame) -> str:
    """Return the columns that fit a terminal."""
    shown = table[["architecture", "train_accuracy", "val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1"]].copy()
    shown["test_interval"] = [
        f"{low:.3f}-{high:.3f}" for low, high in zip(table.test_accuracy_low, table.test_accuracy_high, strict=True)
    ]
    shown[["parameters", "seconds", "overfitting"]] = table[["parameters", "seconds", "overfitting"]]
    return shown.to_string(index=False, formatters={"parameters": "{:,}".format, "seconds": "{:.0f}".format}, float_format="%.3f")


if __name__ == "__main__":
    run(main)
