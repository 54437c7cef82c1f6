"""Print the result of a run: winner, honest score, comparison, gate, and where to look."""

import csv
import json
from pathlib import Path
from typing import Any

from rich.text import Text

from flows.progress import describe_seconds
from tasks.terminal import make_console, make_table

COMPARISON_CSV, COMPARISON_JSON = Path("data/comparison.csv"), Path("data/comparison.json")
RECEIPT = Path("data/registration.json")
# Name, place or command, and the file without which there is nothing to see.
PLACES = (
    ("report", "data/report/report.html", "data/report/report.html"),
    ("models", "data/models", "data/models"),
    ("runs", "make ui", "data/models"),
    ("try it", "make web", "data/registration.json"),
)
SHOWN = 12  # models in the table


def print_result(message: str) -> None:
    """Print the result, as far as there is one, and the outcome of the run."""
    console = make_console()
    comparison, receipt = _read(COMPARISON_JSON), _read(RECEIPT)
    if comparison and COMPARISON_CSV.exists():
        console.print(describe_winner(comparison))
        with COMPARISON_CSV.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        ranked_by = comparison["ranked_by"]
        score = name_metric(ranked_by).replace(" ", "\n", 1)
        columns = ["model", score, "test\naccuracy", "95 %\ninterval", "without\ncopies"]
        columns += ["parameters", "training\ntime", "overfitting"]
        several = len({row["question"] for row in rows}) > 1
        for question in dict.fromkeys(row["question"] for row in rows):
            of_question = [row for row in rows if row["question"] == question]
            cells = [describe_model(row, ranked_by) for row in of_question[:SHOWN]]
            console.print(make_table(columns, cells, question if several else "", best=0))
            if len(of_question) > SHOWN:
                console.print(f"… and {len(of_question) - SHOWN} more models in {COMPARISON_CSV}")
    if receipt:
        console.print(describe_gate(receipt))
    console.print(Text(f"\n{message}"))
    for name, place, needed in PLACES:
        if Path(needed).exists():
            console.print(Text.assemble((f"{name:>8}  ", "dim"), place))


def describe_winner(comparison: dict[str, Any]) -> Text:
    """Return the winner, its accuracy on the test images, and the interval."""
    accuracy, low, high = (
        float(comparison[f"test_accuracy{end}"]) for end in ("", "_low", "_high")
    )
    return Text.assemble(
        "\n",
        (comparison["winner"], "bold green"),
        f" wins: the highest {name_metric(comparison['ranked_by'])}.\n",
        "On the test images, which chose nothing: accuracy ",
        (f"{accuracy:.1%}", "bold"),
        f", 95 % interval {low:.1%} to {high:.1%}.",
    )


def name_metric(column: str) -> str:
    """Return a column of scores in words: "validation macro F1" for val_macro_f1."""
    split, _, metric = column.partition("_")
    words = metric.replace("_", " ").replace("f1", "F1").replace("roc auc", "ROC AUC")
    return f"{ {'val': 'validation'}.get(split, split) } {words}"


def describe_model(row: dict[str, str], ranked_by: str) -> list[str]:
    """Return a row of the comparison as the cells of the table."""
    low, high = row.get("test_accuracy_low"), row.get("test_accuracy_high")
    seconds, parameters = row.get("seconds"), row.get("parameters")
    return [
        row["architecture"],
        _number(row.get(ranked_by)),
        _number(row.get("test_accuracy")),
        f"{_number(low)} to {_number(high)}" if low and high else "",
        _number(row.get("test_without_copies_accuracy")),
        f"{int(float(parameters)):,}" if parameters else "",
        describe_seconds(float(seconds)) if seconds else "",
        row.get("overfitting", ""),
    ]


def describe_gate(receipt: dict[str, Any]) -> Text:
    """Return the decision of the gate and its checks."""
    champion = f"version {receipt['champion']}" if receipt.get("champion") else "none"
    lines = Text.assemble(
        f"Version {receipt['version']} of {receipt['model']} ({receipt['architecture']}): ",
        (str(receipt["verdict"]), "bold"),
        f"; the champion is {champion}.",
    )
    for check in receipt.get("checks", []):
        sign, style = ("✓", "green") if check["met"] else ("✗", "red")
        lines.append(f"\n  {sign} ", style=style).append(check["text"])
    return lines


def _number(text: str | None) -> str:
    return f"{float(text):.3f}" if text else ""


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
