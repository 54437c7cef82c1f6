"""A CSV file of answers that an interrupted run goes on with: one row per file, of which bytes, and by which model.

The rows of a batch are written at once. What a kill leaves half written has no line end or lacks cells, and is made again.
In the end the rows stand in the order of the files, so a run that was interrupted leaves the same bytes as one that was not.
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
from tasks.tables import printable

FIRST, LAST = ("path", "sha256"), ("model",)  # columns before and behind those of an answer

Row = list[str]


@dataclass(frozen=True)
class Rows:
    """An open file and its whole rows by path: the last, where a path has several."""

    file: Path
    target: TextIO
    header: Row
    before: dict[str, Row]

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows at the end, at once."""
        self.target.write(_text(rows))
        self.target.flush()

    def put_in_order(self, paths: Sequence[str]) -> list[Row]:
        """Leave one row for each of `paths`, in this order, and return them; rows of other files stay before them."""
        self.target.seek(0)
        content = self.target.read()
        rows, wanted = _whole(content, self.header), set(paths)
        others = [row for path, row in rows.items() if path not in wanted]
        asked = [rows[path] for path in paths]
        ordered = _text([self.header, *others, *asked])
        if ordered != content:
            part = self.file.with_name(self.file.name + ".part")
            part.write_text(ordered, encoding="utf-8", errors="surrogateescape", newline="")
            part.replace(self.file)
        return asked


@contextmanager
def opened(file: Path, columns: Sequence[str]) -> Iterator[Rows]:
    """Open a file to append to, made where needed; a half-written end is cut off. No other process may write it meanwhile.

    Raises `UserError` for a file with other columns, and where another process writes it.
    """
    header = make_header(columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8", errors="surrogateescape", newline="") as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{file} is being written by another run: wait for it, or name another --output"
            ) from None
        target.seek(0)
        content, first = target.read(), _text([header])
        if not content.startswith(first) and not first.startswith(content):
            raise UserError(
                f"{file} is no output of this model: expected the columns {first.strip()}, received "
                f"{content[:200].splitlines()[0]!r}. Name another --output, or remove that file"
            )
        whole = content[: content.rfind("\n") + 1]
        target.truncate(len(whole.encode(errors="surrogateescape")))
        if not whole:
            target.write(first)
        yield Rows(file, target, header, _whole(whole, header))


def make_header(columns: Sequence[str]) -> Row:
    """Return the names of all columns, each on one line: an interrupted run is cut off at the end of a line."""
    return [*FIRST, *map(printable, columns), *LAST]


def row(path: Path, sha256: str, record: Mapping[str, object], model: str) -> Row:
    """Return the cells of one file: numbers of seven digits, true and false, nothing for None."""
    return [printable(path), sha256, *map(_cell, record.values()), model]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:.7g}" if isinstance(value, float) else printable(value)


def _text(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _whole(content: str, header: Row) -> dict[str, Row]:
    lines = list(csv.reader(io.StringIO(content)))[1:]
    return {line[0]: line for line in lines if len(line) == len(header)}
