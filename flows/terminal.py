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
from pathlib import Path

import prefect
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.states import State
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from flows.progress import (
    LOGS,
    describe_seconds,
    log_file,
    parse_bar,
    parse_epoch,
)
from flows.stage_outcome import DVC_CHATTER
from flows.stage_table import STATES, Row, draw_table
from tasks.terminal import is_terminal, make_console

LAST = 8  # lines of a failed stage
WARNINGS = 4  # warnings below the table
# Lines of DVC and of libraries that say nothing to a person; the log file has them.
NOISE = re.compile(
    r"Updating lock file|'.*' didn't change, skipping|Stage '.*' is cached|Use `dvc|"
    r".*(oneDNN|TF-TRT|cudart_stub|absl::|rebuild TensorFlow|All log messages before)|"
    r"\d{4}[-/]\d\d[-/]\d\d .*(INFO|WARNING) (mlflow|alembic)|(🏃|🧪) View |"
    r"Successfully registered model|Created version '|.*\[\d\d:\d\d, +[\d.?]+ ?\w+/s\]|\s*$"
)
PREFECT = Path(prefect.__file__).parent


class Display:
    """Keep the state of each stage, and write its lines to its log file."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.failed: list[str] = []
        self.is_over = False
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
        """Note a line of a stage. A progress bar of tqdm moves its bar, and is not logged."""
        if bar := parse_bar(line):
            self.rows[stage].training = bar
            return
        with log_file(stage).open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        if line.startswith("warn: "):
            self.warn(f"{stage}: {line.removeprefix('warn: ')}")
        elif not (line.startswith(DVC_CHATTER) or NOISE.match(line)):
            row = self.rows[stage]
            row.last = line.strip()
            row.training = parse_epoch(line, time.time() - row.started)
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
            return Text("" if self.is_over else "reading the pipeline …", style="dim")
        warnings = [
            Text(f"! {text}", style="yellow", overflow="ellipsis", no_wrap=True)
            for text in self.warnings
        ]
        space = max(3, self.console.height - len(warnings) - 5)
        table = draw_table(dict(self.rows), self.console.width, space)
        return Group(table, *warnings, self.draw_footer())

    def draw_footer(self) -> Text:
        """Return how far the run is, and where the logs are."""
        ended = sum(row.state not in ("Waiting", "Running") for row in self.rows.values())
        text = f"{ended} of {len(self.rows)} stages ended"
        text += f"   {describe_seconds(time.time() - self.began)}   logs: {LOGS}/<stage>.log"
        return Text(text, style="dim", overflow="ellipsis", no_wrap=True)


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
            try:
                yield display
            finally:
                display.is_over = True
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
