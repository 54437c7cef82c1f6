"""Compare the architectures that params list, and name the winner: `data/comparison.csv`, `data/comparison.json`.

Ranked by a validation score alone, among those that answer the same question; test scores stand beside it, with a 95 %
interval of the accuracy. `data/shared_questions.csv` compares models of different questions on those that several can
answer. Run by hand: `dvc repro --single-item compare`.
"""

import json
import logging
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from tasks.command import run
from tasks.modeling.architectures import Classical, Cnn, Transfer
from tasks.params import Architecture, load_params
from tasks.questions import ALL_CLASSES, Question
from tasks.scoring.metrics import score, verdict
from tasks.scoring.predictions import arrays, collapse
from tasks.tables import read_table, write_table

BY_KIND = [
    "architecture", "train_accuracy", "val_accuracy", "val_macro_f1", "val_log_loss", "test_accuracy", "test_macro_f1",
    "test_log_loss", "parameters", "overfitting",
]  # fmt: skip
SHARED_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")
SHARED = [
    "question", "architecture", "asked", *(f"{prefix}_{name}" for prefix in ("val", "test") for name in SHARED_SCORES),
    "test_accuracy_low", "test_accuracy_high",
]  # fmt: skip

log = logging.getLogger(__name__)


def main(splits_csv: Path, results: Path, comparison_csv: Path, comparison_json: Path, shared_csv: Path) -> None:
    """Write one row per architecture, the winner, and the scores on shared questions."""
    params = load_params()
    rank_by, gap = params.compare.rank_by, params.compare.overfitting_gap
    predictions = {name: read_table(results / name / "predictions.csv") for name in params.architectures}
    rows = [describe(name, section, results / name, predictions[name], gap) for name, section in params.architectures.items()]
    table = rank(pd.DataFrame(rows), rank_by, params.compare.question)
    write_table(table, comparison_csv)
    comparison = summarise(table, rank_by)
    comparison_json.write_text(json.dumps(comparison, indent=2) + "\n")
    questions = {name: section.question for name, section in params.architectures.items()}
    shared = share(questions, predictions, sorted(set(read_table(splits_csv).label)), rank_by)
    write_table(shared, shared_csv)
    tell(table, comparison, shared)


def describe(name: str, section: Architecture, results: Path, predictions: pd.DataFrame, gap: float) -> dict[str, object]:
    """Return an architecture's row: question, structure, scores, interval, cost and overfitting verdict."""
    scores = json.loads((results / "metrics.json").read_text())
    timing = json.loads((results / "timing.json").read_text())
    low, high = accuracy_interval(predictions)
    return {
        "question": section.question.name,
        "architecture": name,
        **columns_of(section.structure),
        "batch_size": "" if isinstance(section.structure, Classical) else section.train.batch_size,
        "train_accuracy": scores["train_accuracy"],
        "val_accuracy": scores["val_accuracy"],
        "val_balanced_accuracy": scores["val_balanced_accuracy"],
        "val_macro_f1": scores["val_macro_f1"],
        "val_log_loss": scores["val_log_loss"],
        "test_accuracy": scores["test_accuracy"],
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_macro_f1": scores["test_macro_f1"],
        "test_log_loss": scores["test_log_loss"],
        "parameters": timing["parameters"],
        "epochs": len(timing["epoch_seconds"]),
        "seconds": timing["train_seconds"],
        "overfitting": verdict(scores["train_accuracy"], scores["val_accuracy"], gap),
    }


def columns_of(structure: Cnn | Transfer | Classical) -> dict[str, object]:
    """Return kind, backbone, filters, kernel and dropout, "" where there is none; of a transfer model the head's dropouts."""
    columns = {"kind": type(structure).__name__.lower()} | dict.fromkeys(("backbone", "filters", "kernel", "dropout"), "")
    if isinstance(structure, Cnn):
        return columns | {
            "filters": " ".join(map(str, structure.filters)),
            "kernel": structure.kernel if structure.filters else "",
            "dropout": structure.dropout,
        }
    if isinstance(structure, Transfer):
        rates = (structure.head.dropout, *(dense.dropout for dense in structure.head.dense))
        return columns | {"backbone": structure.backbone, "dropout": " ".join(f"{rate:g}" for rate in rates if rate)}
    return columns | {"backbone": structure.features.backbone if structure.features else ""}


def accuracy_interval(predictions: pd.DataFrame) -> tuple[float, float]:
    """Return the 95 % Wilson interval of the test accuracy (Wilson 1927)."""
    test = predictions[predictions.split == "test"]
    right = int((test.label == test.predicted).sum())
    interval = binomtest(right, len(test)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rank(table: pd.DataFrame, rank_by: str, question: str | None) -> pd.DataFrame:
    """Number each question's rows by the validation score; between equals the smaller model wins, then the name.

    The main question comes first: `question`, or else that of all classes, or else that of the first row.
    """
    first = question or (ALL_CLASSES if ALL_CLASSES in set(table.question) else table.question.iloc[0])
    order = list(dict.fromkeys([first, *table.question]))
    ranked = table.assign(order=table.question.map(order.index)).sort_values(
        ["order", rank_by, "parameters", "architecture"], ascending=[True, False, True, True], ignore_index=True
    )
    ranked.insert(0, "rank", ranked.groupby("order").cumcount() + 1)
    return ranked.drop(columns="order")


def summarise(table: pd.DataFrame, rank_by: str) -> dict[str, object]:
    """Return the winner of the main question with its scores, the winners of all questions, and the best of each kind."""
    best = table.iloc[0]
    main_rows = table[table.question == best.question]
    firsts = table[table["rank"] == 1]
    return {
        "winner": best.architecture,
        "question": best.question,
        "ranked_by": rank_by,
        "architectures": list(main_rows.architecture),
        "winners": dict(zip(firsts.question, firsts.architecture, strict=True)),
        **{name: best[name] for name in table if name.startswith(("val_", "test_"))},
        **best_by_kind(main_rows),
    }


def best_by_kind(ranked: pd.DataFrame) -> dict[str, object]:
    """Return the best CNN beside the best transfer model, and which of them ranks higher; {} where one kind is missing."""
    best = ranked[ranked.kind.isin(["cnn", "transfer"])].drop_duplicates("kind")
    if len(best) < 2:
        return {}
    return {"best_by_kind": {"winner": best.architecture.iloc[0], **best.set_index("kind")[BY_KIND].to_dict("index")}}


def share(asked: dict[str, Question], predictions: dict[str, pd.DataFrame], folders: list[str], rank_by: str) -> pd.DataFrame:
    """Return, of each question but that of all classes, one row per model that can answer it, the best on validation first.

    A model answers a coarser question by the sums of its probabilities. Without rows where all were asked the same.
    """
    questions = {question.name: question for question in asked.values()}
    if len(questions) == 1:
        return pd.DataFrame(columns=SHARED)
    rows: list[dict[str, object]] = []
    for question in (question for name, question in questions.items() if name != ALL_CLASSES):
        answered = [
            {"question": question.name, "architecture": architecture, "asked": own.name}
            | shared_scores(collapse(predictions[architecture], groups, question.classes(folders)))
            for architecture, own in asked.items()
            if (groups := own.coarsen(question, folders)) is not None
        ]
        rows += sorted(answered, key=lambda row: (-row[rank_by], row["architecture"]))
    return pd.DataFrame(rows, columns=SHARED)


def shared_scores(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the scores of validation and test by prefixed name, and the interval of the test accuracy."""
    scores: dict[str, float] = {}
    for prefix, part in (("val", "validation"), ("test", "test")):
        scores |= {f"{prefix}_{name}": value for name, value in score(*arrays(predictions[predictions.split == part])).items()}
    low, high = accuracy_interval(predictions)
    return scores | {"test_accuracy_low": low, "test_accuracy_high": high}


def tell(table: pd.DataFrame, comparison: dict[str, object], shared: pd.DataFrame) -> None:
    """Log the ranking of each question, the winners, and what is shared."""
    for question, rows in table.groupby("question", sort=False):
        log.info("%s\n%s\nwinner by %s: %s", question, to_text(rows), comparison["ranked_by"], rows.architecture.iloc[0])
    if kinds := comparison.get("best_by_kind"):
        log.info(
            "the best CNN %s against the best transfer model %s: %s wins by %s",
            kinds["cnn"]["architecture"], kinds["transfer"]["architecture"], kinds["winner"], comparison["ranked_by"],
        )  # fmt: skip
    for question, rows in shared.groupby("question", sort=False):
        log.info("all models that can answer: %s\n%s", question, to_text(rows.drop(columns="question")))


def to_text(table: pd.DataFrame) -> str:
    """Return the columns that fit a terminal, without those that are blank in every row."""
    bounds = zip(table.test_accuracy_low, table.test_accuracy_high, strict=True)
    shown = table.assign(test_interval=[f"{low:.3f}-{high:.3f}" for low, high in bounds]).filter(
        ["architecture", "asked", "kind", "backbone", "train_accuracy", "val_accuracy", "val_macro_f1", "test_accuracy",
         "test_interval", "test_macro_f1", "test_roc_auc", "parameters", "seconds", "overfitting"]
    )  # fmt: skip
    formats = {"parameters": "{:,}".format, "seconds": "{:.0f}".format}
    return shown.loc[:, (shown != "").any()].to_string(index=False, formatters=formats, float_format="%.3f", na_rep="")


if __name__ == "__main__":
    run(main)
