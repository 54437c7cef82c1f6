"""Write predictions to a CSV file, one row per file; an interrupted run continues it.

Each row names the file, its SHA-256 and the model. The rows of a batch are written at once. A row
that a kill left half written has no line end or too few cells, and is written again. At the end the
rows are sorted like the files, so an interrupted run leaves the same bytes as an uninterrupted one.
"""

import csv
import fcntl
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tasks.errors import UserError
from tasks.tables import escape_controls

FIRST, LAST = ("path", "sha256"), ("model",)  # columns before and after those of a prediction

Row = list[str]


@dataclass(frozen=True)
class Rows:
    """An open file, and its complete rows by path. Of several rows of a path, the last counts."""

    file: Path
    target: TextIO
    header: Row
    before: dict[str, Row]

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows to the file, and flush them."""
        self.target.write(_format(rows))
        self.target.flush()

    def sort(self, paths: Sequence[str]) -> list[Row]:
        """Keep one row per path: first the rows of other files, then `paths` in their order.

        Returns the rows of `paths`.
        """
        self.target.seek(0)
        content = self.target.read()
        rows, wanted = _parse(content, self.header), set(paths)
        others = [row for path, row in rows.items() if path not in wanted]
        own = [rows[path] for path in paths]
        ordered = _format([self.header, *others, *own])
        if ordered != content:
            part = self.file.with_name(self.file.name + ".part")
            part.write_text(ordered, encoding="utf-8", errors="surrogateescape", newline="")
            part.replace(self.file)
        return own


@contextmanager
def open_rows(file: Path, columns: Sequence[str]) -> Iterator[Rows]:
    """Open or create a file to append to, and cut off a half-written end.

    Raises `UserError` if the file has other columns, or if another process is writing it.
    """
    header = make_header(columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8", errors="surrogateescape", newline="") as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{file} is being written by another run: wait for it, or choose another --output"
            ) from None
        target.seek(0)
        content, first = target.read(), _format([header])
        if not content.startswith(first) and not first.startswith(content):
            raise UserError(
                f"{file} is not an output of this model: expected the columns {first.strip()}, "
                f"received {content[:200].splitlines()[0]!r}. Choose another --output, or remove "
                "that file"
            )
        complete = content[: content.rfind("\n") + 1]
        target.truncate(len(complete.encode(errors="surrogateescape")))
        if not complete:
            target.write(first)
        yield Rows(file, target, header, _parse(complete, header))


def make_header(columns: Sequence[str]) -> Row:
    """Return the names of all columns, each without line breaks: a line end completes a row."""
    return [*FIRST, *map(escape_controls, columns), *LAST]


def make_row(path: Path, sha256: str, record: Mapping[str, object], model: str) -> Row:
    """Return the cells of a file: numbers have seven digits, and None is empty."""
    return [escape_controls(path), sha256, *map(_cell, record.values()), model]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        ""
        if value is None
        else f"{value:.7g}"
        if isinstance(value, float)
        else escape_controls(value)
    )


def _format(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _parse(content: str, header: Row) -> dict[str, Row]:
    lines = list(csv.reader(io.StringIO(content)))[1:]
    return {line[0]: line for line in lines if len(line) == len(header)}
