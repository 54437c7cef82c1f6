"""Read the tables of scores that the other stages write."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.tables import read_table

TEXT = frozenset(
    (
        *("path", "label", "actual", "predicted", "phase", "split", "kind", "picture", "overlay"),
        *("when", "suggested", "question", "architecture", "asked", "winner", "other"),
        *("backbone", "filters", "kernel", "dropout", "batch_size", "vote", "members", "weights"),
        "overfitting",
    )
)


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores. Columns in `TEXT` stay text, and all others become numbers.

    A blank number becomes NaN.
    """
    table = read_table(path)
    numbers = {column: pd.to_numeric(table[column]) for column in table if column not in TEXT}
    return table.assign(**numbers)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
