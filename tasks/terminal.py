"""Tables for a person: rendered on a terminal, plain text in a pipe or with PLAIN=1."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100  # columns of a plain table
NARROW = 60  # columns below which a table hides its optional columns


def is_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a person watches the output on a terminal, and PLAIN is not set."""
    plain = os.environ.get("PLAIN", "").strip().lower() not in ("", "0", "false", "no")
    stream = stream or sys.stdout
    return not plain and stream.isatty() and os.environ.get("TERM") not in ("dumb", "")


def make_console(stream: TextIO | None = None) -> Console:
    """Return a console: as wide as the terminal, or 100 columns without colours."""
    stream = stream or sys.stdout
    if is_terminal(stream):
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, width=WIDTH, no_color=True, force_terminal=False)


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", best: int | None = None
) -> Table:
    """Return a table. Numbers are right-aligned, and the row number `best` is bold.

    A name of a column may have several lines. Only the first and the last column wrap.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    texts = [[str(cell) for cell in row] for row in rows]
    for number, name in enumerate(columns):
        cells = [row[number] for row in texts if row[number]]
        are_numbers = bool(cells) and all(cell[0] in "0123456789-+." for cell in cells)
        table.add_column(
            Text(name),
            justify="right" if are_numbers else "left",
            overflow="fold",
            no_wrap=0 < number < len(columns) - 1,
        )
    for number, row in enumerate(texts):
        table.add_row(*map(Text, row), style="bold" if number == best else None)
    return table


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", best: int | None = None
) -> None:
    """Print a table that fits the terminal, or 100 columns in a pipe."""
    make_console().print(make_table(columns, rows, title, best))
