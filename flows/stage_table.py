"""Draw the stages of a run as a table that fits the terminal."""

import time
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.progress import Training, describe_seconds, read_training, read_usage
from tasks.terminal import NARROW

# The state of a task run -> its word, sign and colour.
STATES = {
    "Waiting": ("waiting", "·", "dim"),
    "Running": ("running", "▸", "bold cyan"),
    "Completed": ("done", "✓", "green"),
    "Skipped": ("unchanged", "✓", "dim"),
    "Cached": ("from the cache", "✓", "green"),
    "Incomplete": ("done in part", "✓", "yellow"),
    "Failed": ("failed", "✗", "bold red"),
    "Unavailable": ("failed, may be tried again", "↻", "yellow"),
    "Ended": ("ended", "✗", "yellow"),
    "NotRun": ("not run", "·", "yellow"),
}


@dataclass
class Row:
    """A stage of the run."""

    state: str = "Waiting"
    started: float = 0.0
    seconds: float = 0.0
    last: str = ""
    training: Training | None = None


def draw_table(rows: dict[str, Row], width: int, space: int) -> Table:
    """Return a table of at most `space` rows; running and failed stages are among them."""
    wide = width >= NARROW
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True)
    table.add_column("", width=1)
    table.add_column("stage", no_wrap=True, max_width=28 if wide else 20)
    table.add_column("time", justify="right", no_wrap=True)
    if wide:
        table.add_column("left", justify="right", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    shown = select_rows(rows, space)
    if shown.before:
        table.add_row("", f"{len(shown.before)} more finished", style="dim")
    for stage in shown.stages:
        table.add_row(*draw_stage(stage, rows[stage], wide))
    if shown.after:
        table.add_row("", f"{len(shown.after)} more waiting", style="dim")
    return table


def draw_stage(stage: str, row: Row, wide: bool) -> list[RenderableType]:
    """Return the cells of a stage."""
    word, sign, style = STATES.get(row.state, (row.state, "?", ""))
    running = row.state == "Running"
    seconds = time.time() - row.started if running else row.seconds
    training = (read_training(stage, row.started) or row.training) if running else None
    left = find_left(stage, seconds, training) if running else None
    cells: list[RenderableType] = [
        Text(sign, style=style),
        Text(stage, style="dim" if row.state in ("Waiting", "Skipped") else ""),
        Text(describe_seconds(seconds) if seconds else ""),
    ]
    if wide:
        cells.append(Text(describe_seconds(left) if left is not None else "", style="dim"))
    cells.append(draw_detail(row, training, word, style, bar=wide))
    return cells


@dataclass(frozen=True)
class Selection:
    """The stages that a table shows, and the ended and waiting ones that it only counts."""

    stages: list[str]
    before: list[str]
    after: list[str]


def select_rows(rows: dict[str, Row], space: int) -> Selection:
    """Select the rows for a table of `space` lines.

    The ended stages give way first, the oldest before the others, and then the waiting ones.
    """
    if len(rows) <= space:
        return Selection(list(rows), [], [])
    ended = [name for name, row in rows.items() if row.state in ("Completed", "Skipped", "Cached")]
    waiting = [name for name, row in rows.items() if row.state == "Waiting"]
    too_many = len(rows) - space + 2  # each summary takes a line too
    before = ended[: min(too_many, len(ended))]
    after = waiting[len(waiting) - min(too_many - len(before), len(waiting)) :]
    hidden = {*before, *after}
    return Selection([name for name in rows if name not in hidden], before, after)


def draw_detail(
    row: Row, training: Training | None, word: str, style: str, *, bar: bool
) -> RenderableType:
    """Return the last column: progress of a training, the last line of a stage, or its state."""
    if training is None:
        return Text(row.last if row.state == "Running" else word, style="dim")
    if not bar:
        return Text(training.text)
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=16)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(ProgressBar(total=1, completed=training.share, width=16), Text(training.text))
    return grid


def find_left(stage: str, seconds: float, training: Training | None) -> float | None:
    """Return the seconds that a stage still needs: from its progress, else from its last run."""
    if training is not None:
        return training.left
    usual = read_usage(stage).get("seconds")
    return max(0.0, usual - seconds) if usual else None
