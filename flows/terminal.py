"""Show a run to a person: a live table on a terminal, plain lines in a pipe, in CI or with PLAIN=1.

A flow reports to `current()`: `begin`, `start`, `show`, `end`, `say` and `warn`. A run that a
Prefect worker starts shows nothing here; Prefect's pages have its log. The lines of a stage always
go to `.cache/logs/<stage>.log`.
"""

import io
import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import prefect
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.states import State
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.progress import (
    LOGS,
    Training,
    describe_seconds,
    log_file,
    parse_epoch,
    read_training,
    read_usage,
)
from flows.stage_outcome import DVC_CHATTER
from tasks.terminal import NARROW, is_terminal, make_console

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
LAST = 8  # lines of a failed stage
WARNINGS = 4  # warnings below the table
# Lines of DVC and of libraries that say nothing to a person; the log file has them.
NOISE = re.compile(
    r"Updating lock file|'.*' didn't change, skipping|Stage '.*' is cached|Use `dvc|"
    r".*(oneDNN|TF-TRT|cuda|absl::|rebuild TensorFlow|All log messages before)|"
    r"\d{4}[-/]\d\d[-/]\d\d .*(INFO|WARNING) (mlflow|alembic)|(🏃|🧪) View |\s*$"
)
PREFECT = Path(prefect.__file__).parent


@dataclass
class Row:
    """A stage of the run."""

    state: str = "Waiting"
    started: float = 0.0
    seconds: float = 0.0
    last: str = ""
    training: Training | None = None


class Display:
    """Keep the state of each stage, and write its lines to its log file."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.failed: list[str] = []
        self.lock = threading.Lock()

    def begin(self, stages: list[str]) -> None:
        """Add stages, in the order of their rows."""
        for stage in stages:
            self.rows.setdefault(stage, Row())

    def start(self, stage: str) -> None:
        """Note that a stage runs from now on, and begin its log file."""
        self.rows[stage] = Row("Running", time.time())
        LOGS.mkdir(parents=True, exist_ok=True)
        log_file(stage).write_text("")

    def show(self, stage: str, line: str) -> None:
        """Note a line of a stage."""
        with log_file(stage).open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        if line.startswith("warn: "):
            self.warn(f"{stage}: {line.removeprefix('warn: ')}")
        elif not (line.startswith(DVC_CHATTER) or NOISE.match(line)):
            row = self.rows[stage]
            row.last = line.strip()
            row.training = parse_epoch(line, time.time() - row.started) or row.training
            self.tell_line(stage, line)

    def end(self, stage: str, state: State) -> None:
        """Note the outcome of a stage."""
        row = self.rows.setdefault(stage, Row())
        row.seconds = time.time() - row.started if row.started else 0.0
        row.state = state.name or "Completed"
        if row.state == "Failed" and stage not in self.failed:
            self.failed.append(stage)
        self.tell_state(stage, row)

    def tell_line(self, stage: str, line: str) -> None:
        """Tell a person a line of a stage."""

    def tell_state(self, stage: str, row: Row) -> None:
        """Tell a person the outcome of a stage."""

    def say(self, text: str) -> None:
        """Tell a person about the run."""

    def warn(self, text: str) -> None:
        """Tell a person a warning."""

    def print(self, *renderables: RenderableType) -> None:
        """Print tables and texts."""


class PlainDisplay(Display):
    """Print a line for each change of a state and for each line of a stage."""

    def start(self, stage: str) -> None:
        """Note and print that a stage runs from now on."""
        super().start(stage)
        self.say(f"{stage}: started")

    def tell_line(self, stage: str, line: str) -> None:
        """Print the line."""
        self.say(f"{stage}: {line}")

    def tell_state(self, stage: str, row: Row) -> None:
        """Print the state and the time; unchanged stages print nothing."""
        if row.state != "Skipped":
            seconds = f" after {describe_seconds(row.seconds)}" if row.seconds else ""
            self.say(f"{stage}: {STATES.get(row.state, (row.state,))[0]}{seconds}")

    def say(self, text: str) -> None:
        """Print a line at once; several stages print at the same time."""
        with self.lock:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.say(f"warning: {text}")

    def print(self, *renderables: RenderableType) -> None:
        """Print tables and texts."""
        make_console().print(*renderables)


class LiveDisplay(Display):
    """Draw the table of stages again and again, with warnings below it."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.time()
        self.warnings: deque[str] = deque(maxlen=WARNINGS)
        self.console = make_console()
        self.live = Live(
            get_renderable=self.draw,
            console=self.console,
            refresh_per_second=4,
            vertical_overflow="crop",
            redirect_stderr=False,
        )

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(Text(text), style="dim")

    def warn(self, text: str) -> None:
        """Show a warning below the table."""
        if text not in self.warnings:
            self.warnings.append(text)

    def print(self, *renderables: RenderableType) -> None:
        """Print tables and texts above the table of stages."""
        self.console.print(*renderables)

    def draw(self) -> RenderableType:
        """Return the table, the warnings and the footer for the terminal as it is now."""
        if not self.rows:
            return Text("reading the pipeline …", style="dim")
        warnings = [
            Text(f"! {text}", style="yellow", overflow="ellipsis", no_wrap=True)
            for text in self.warnings
        ]
        space = max(3, self.console.height - len(warnings) - 5)
        return Group(self.draw_rows(space), *warnings, self.draw_footer())

    def draw_rows(self, space: int) -> Table:
        """Return a table of at most `space` rows; running and failed stages are among them."""
        wide = self.console.width >= NARROW
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True)
        table.add_column("", width=1)
        table.add_column("stage", no_wrap=True, max_width=28 if wide else 20)
        table.add_column("time", justify="right", no_wrap=True)
        if wide:
            table.add_column("left", justify="right", no_wrap=True)
        table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
        rows = dict(self.rows)
        shown = select_rows(rows, space)
        if shown.before:
            table.add_row("", f"{len(shown.before)} more finished", style="dim")
        for stage in shown.stages:
            self.add_stage(table, stage, rows[stage], wide)
        if shown.after:
            table.add_row("", f"{len(shown.after)} more waiting", style="dim")
        return table

    def add_stage(self, table: Table, stage: str, row: Row, wide: bool) -> None:
        """Add the row of a stage."""
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
        table.add_row(*cells)

    def draw_footer(self) -> Text:
        """Return how far the run is, and where the logs are."""
        ended = sum(row.state not in ("Waiting", "Running") for row in self.rows.values())
        text = f"{ended} of {len(self.rows)} stages ended"
        text += f"   {describe_seconds(time.time() - self.began)}   logs: {LOGS}/<stage>.log"
        return Text(text, style="dim", overflow="ellipsis", no_wrap=True)


@dataclass(frozen=True)
class Selection:
    """The stages that a table shows, and the ended and waiting stages that it only counts."""

    stages: list[str]
    before: list[str]
    after: list[str]


def select_rows(rows: dict[str, Row], space: int) -> Selection:
    """Select the rows for a table of `space` lines.

    Ended stages are left out first, the oldest before the others. Then waiting stages are left out.
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


class _Handler(logging.Handler):
    """Pass on what our code logs to a run, and warnings of others; Prefect's own lines go."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        is_engine = Path(record.pathname).is_relative_to(PREFECT)
        if is_engine and record.levelno < logging.CRITICAL and "engine" in record.module:
            return
        if record.levelno >= logging.WARNING:
            self.display.warn(record.getMessage())
        elif not is_engine and not hasattr(record, "stage_line"):
            self.display.say(record.getMessage())


class _Lines(io.TextIOBase):
    """Standard error of a run, as lines for the display. Libraries draw no bars on it."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.rest = ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if not NOISE.match(line):
                self.display.say(line)
        return len(text)


_current = Display()


def current() -> Display:
    """Return the display of this process."""
    return _current


@contextmanager
def open_display() -> Iterator[Display]:
    """Show runs until the block ends, in place of Prefect's lines.

    At the end the last lines of failed stages are printed.
    """
    global _current
    before, _current = _current, LiveDisplay() if is_terminal() else PlainDisplay()
    display, root = _current, logging.getLogger()
    handlers = root.handlers[:]
    root.handlers[:] = [one for one in handlers if not isinstance(one, PrefectConsoleHandler)]
    root.addHandler(_Handler(display))
    live = display.live if isinstance(display, LiveDisplay) else nullcontext()
    try:
        with live, redirect_stderr(_Lines(display)):
            yield display
    finally:
        root.handlers[:] = handlers
        _current = before
        sys.stdout.flush()
        if isinstance(display, LiveDisplay):
            for stage in display.failed:
                print_failure(stage, display.rows[stage])


def print_failure(stage: str, row: Row) -> None:
    """Print the last lines of a stage that failed, and its log file."""
    file = log_file(stage)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    own = [line for line in lines if line.strip() and not line.startswith(DVC_CHATTER)]
    title = f"{stage} {STATES[row.state][0]} after {describe_seconds(row.seconds)}"
    body = Text("\n".join(own[-LAST:]) or "it printed nothing")
    console = make_console()
    console.print(Panel(body, title=title, subtitle=str(file), border_style="red"))
