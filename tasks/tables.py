"""CSV tables: those that stages hand on, read without guessing and written the same way each time, and those people bring."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasks.errors import UserError

SEPARATORS = ",;\t|"

NUMBERS = ("bytes", "width", "height", "mean", "std", "levels", "peak", "correlation", "distance")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; all columns are text ("01" and "NA" are class names like any other) but the numeric `NUMBERS`.

    Columns that begin with `p_` are probabilities, hence numeric too.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numeric = [column for column in table if column in NUMBERS or column.startswith("p_")]
    return table.assign(**{column: pd.to_numeric(table[column]) for column in numeric})


def read_foreign_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the text of `columns` of a table that a person brings, without blanks around it.

    Excel's byte order mark, its separators, columns in upper case and more columns are fine. Raises `UserError` that
    names file, line and encoding.
    """
    text = _decode(path)
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: is no CSV ({error}); expected columns {', '.join(columns)}"
        ) from error
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    if any(names.count(column) != 1 for column in columns):
        received = ", ".join(names) or "an empty file"
        raise UserError(
            f"{path}, line 1: expected the columns {', '.join(columns)}, each once; received {received}"
        )
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {line}: expected {len(names)} cells as in the first line, received {len(row)}"
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
            f"{path}, line {line}: byte {content[error.start]:#04x} is not {encoding.removesuffix('-sig').upper()}; "
            "save the table as UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def write_table(table: pd.DataFrame, path: Path, numbers: str = "%.7g") -> None:
    """Write a table, by default with seven significant digits, making its folder where needed.

    A name may hold a carriage return, which readers take for the end of a line unless it is quoted.
    """
    texts = [*table.columns, *table.select_dtypes(exclude="number").to_numpy(object).ravel()]
    quoting = (
        csv.QUOTE_NONNUMERIC if any("\r" in str(text) for text in texts) else csv.QUOTE_MINIMAL
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format=numbers, lineterminator="\n", quoting=quoting)


def printable(text: object) -> str:
    """Return a text as one line without control signs: those become escapes such as `\\n`, and a backslash becomes two.

    Two different texts stay different.
    """
    return "".join(
        sign if sign.isprintable() and sign != "\\" else _escape(sign) for sign in str(text)
    )


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
