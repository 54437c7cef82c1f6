"""Run a command in its own process group, stream its lines, and end it cleanly, whoever dies first.

Between the flow and the command stands a keeper, `python -m flows.process COMMAND…`, which holds one end of a pipe.
When the pipe closes it ends the command's whole group: the flow closes it on a time limit or a signal, and the
operating system closes it when the flow is killed.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

PATIENCE = 5.0  # seconds between asking a group to end and killing it

_running: set[subprocess.Popen] = set()


class EndedError(RuntimeError):
    """A command that was ended from outside: by a time limit, a cancel or an interrupt."""


def stream(command: Sequence[str], on_line: Callable[[str], None], limit: float | None = None) -> int:
    """Run `command`, hand each line it prints to `on_line`, and return its exit status.

    Raises `EndedError` after `limit` seconds, or when `end_all` was called.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-m", "flows.process", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    timer = threading.Timer(limit, keeper.stdin.close) if limit else None
    _running.add(keeper)
    try:
        if timer:
            timer.start()
        for line in keeper.stdout:
            on_line(line.rstrip("\n"))
        status = keeper.wait()
    finally:
        _running.discard(keeper)
        if timer:
            timer.cancel()
        ended = keeper.stdin.closed
        keeper.stdin.close()
    if ended:
        raise EndedError(
            f"ended after its time limit of {limit:g} s" if limit and not _ending.is_set() else "ended by an interrupt"
        )
    return status


_ending = threading.Event()


def end_all() -> None:
    """End every command that runs, and let none start any more."""
    _ending.set()
    for keeper in list(_running):
        keeper.stdin.close()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While open, an interrupt or a termination ends all commands before it takes its course."""
    _ending.clear()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, frame: object) -> None:
        end_all()
        handler = before[number]
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep(command: Sequence[str]) -> int:
    """Run `command` in a group of its own until it ends or standard input closes; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_when_closed, args=(child,), daemon=True).start()
    return child.wait()


def _end_when_closed(child: subprocess.Popen) -> None:
    sys.stdin.buffer.read()
    os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE)
    os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
