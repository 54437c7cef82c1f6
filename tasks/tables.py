"""The CSV tables that stages hand on: read without guessing, written the same way each time."""

from pathlib import Path

import pandas as pd

NUMBERS = ("bytes", "width", "height", "mean", "std", "correlation", "distance")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; all columns are text ("01" and "NA" are class names like any other) but the numeric `NUMBERS`.

    Columns that begin with `p_` are probabilities, hence numeric too.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numeric = [column for column in table if column in NUMBERS or column.startswith("p_")]
    return table.assign(**{column: pd.to_numeric(table[column]) for column in numeric})


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table with seven significant digits, making its folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.7g", lineterminator="\n")
