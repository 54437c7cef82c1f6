"""One file a person can read, `data/report/report.html`, and its short form `report.md` for pull requests.

Everything in it is taken from the tables of the other stages. Run by hand: `dvc repro --single-item report`.
"""

import json
import logging
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, select_autoescape

from tasks.command import run
from tasks.params import load_params
from tasks.scoring import figures
from tasks.tables import read_table

SHOWN = (
    "rank", "question", "architecture", "kind", "backbone", "filters", "kernel", "dropout", "batch_size", "train_accuracy",
    "val_accuracy", "val_macro_f1", "test_accuracy", "test_interval", "test_macro_f1", "parameters", "epochs", "seconds",
    "overfitting",
)  # fmt: skip

log = logging.getLogger(__name__)


def main(
    validation_json: Path,
    quarantine_csv: Path,
    split_json: Path,
    comparison_csv: Path,
    shared_csv: Path,
    results: Path,
    registration_json: Path,
    report: Path,
) -> None:
    """Fill the two templates beside this module."""
    comparison = with_interval(read_scores(comparison_csv))
    facts = {
        "title": load_params().report.title,
        "validation": json.loads(validation_json.read_text()),
        "quarantine": read_table(quarantine_csv),
        "split": json.loads(split_json.read_text()),
        "comparison": comparison,
        "columns": SHOWN,
        "shared": read_scores(shared_csv),
        "winner": comparison.iloc[0],
        "registration": json.loads(registration_json.read_text()),
        "architectures": [describe(name, results / name) for name in comparison.architecture],
        "cell": cell,
    }
    report.mkdir(parents=True, exist_ok=True)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("report.html", "report.md"):
        (report / name).write_text(templates.get_template(name).render(facts), encoding="utf-8")
        log.info("%s", report / name)


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores; names stay the text that they are, and blank cells blank."""
    return pd.read_csv(path, dtype=dict.fromkeys(("question", "architecture", "asked", "filters"), str), keep_default_na=False)


def with_interval(comparison: pd.DataFrame) -> pd.DataFrame:
    """Add the interval of the test accuracy as one column of text."""
    bounds = zip(comparison.test_accuracy_low, comparison.test_accuracy_high, strict=True)
    return comparison.assign(test_interval=[f"{low:.3f} to {high:.3f}" for low, high in bounds])


def describe(name: str, results: Path) -> dict[str, object]:
    """Return an architecture's tables and figures."""
    confusion = read_table(results / "confusion.csv").astype({"count": int, "share": float})
    return {
        "name": name,
        "history": figures.svg(figures.history(pd.read_csv(results / "history.csv"))),
        "confusion": figures.svg(figures.confusion(confusion)),
        "per_class": pd.read_csv(results / "per_class.csv", dtype={"label": str}, keep_default_na=False, na_values={"roc_auc": ""}),
        "errors": error_sentences(confusion),
    }


def error_sentences(confusion: pd.DataFrame) -> list[str]:
    """Say in words, class by class, what the test images were taken for."""
    sentences = []
    for actual, rows in confusion.groupby("actual", sort=False):
        wrong = rows[(rows.predicted != actual) & (rows["count"] > 0)].sort_values("count", ascending=False, kind="stable")
        taken = ", ".join(f"{row.count_} for {row.predicted}" for row in wrong.rename(columns={"count": "count_"}).itertuples())
        sentences.append(f"{wrong['count'].sum()} of {rows['count'].sum()} {actual} wrong" + (f": taken {taken}" if taken else ""))
    return sentences


def cell(value: object) -> str:
    """Return a table's cell: three decimals for scores, separators for large numbers."""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    run(main)
