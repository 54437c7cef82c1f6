"""CSV tables: those that stages exchange, and those that people bring.

The tables of stages are read without guessing types. Equal tables are written as equal bytes.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasks.errors import UserError

SEPARATORS = ",;\t|"

NUMBERS = ("bytes", "width", "height", "mean", "std", "levels", "peak", "correlation", "distance")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of a stage.

    The columns `NUMBERS` and the probabilities, whose names begin with `p_`, are numeric. All
    others are text: "01" and "NA" are class names like any other.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numeric = [column for column in table if column in NUMBERS or column.startswith("p_")]
    return table.assign(**{column: pd.to_numeric(table[column]) for column in numeric})


def read_foreign_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return `columns` of a table that a person brings, as text without surrounding blanks.

    A byte order mark, the separators of Excel, column names in upper case and further columns are
    allowed. Raises `UserError` that names file, line and encoding.
    """
    text = _decode(path)
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: this is no CSV file ({error}); "
            f"expected the columns {', '.join(columns)}"
        ) from error
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    if any(names.count(column) != 1 for column in columns):
        received = ", ".join(names) or "an empty file"
        raise UserError(
            f"{path}, line 1: expected the columns {', '.join(columns)}, each once; "
            f"received {received}"
        )
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {line}: expected {len(names)} cells as in the first line, "
                f"received {len(row)}"
            )
    table = pd.DataFrame([row for _, row in rows[1:]], columns=names, dtype=str)[list(columns)]
    return table.apply(lambda column: column.str.strip())


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not "
            f"{encoding.removesuffix('-sig').upper()}; "
            "save the table as UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def write_table(table: pd.DataFrame, path: Path, numbers: str = "%.7g") -> None:
    """Write a table, by default with seven significant digits, and create its folder.

    All text is quoted if some of it has a carriage return: readers take an unquoted one for the end
    of a line.
    """
    texts = [*table.columns, *table.select_dtypes(exclude="number").to_numpy(object).ravel()]
    quote_all = any("\r" in str(text) for text in texts)
    quoting = csv.QUOTE_NONNUMERIC if quote_all else csv.QUOTE_MINIMAL
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format=numbers, lineterminator="\n", quoting=quoting)


def escape_controls(text: object) -> str:
    r"""Return a text on one line: control characters become escapes such as `\n`.

    A backslash becomes two, so different texts stay different.
    """
    return "".join(
        sign if sign.isprintable() and sign != "\\" else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )
