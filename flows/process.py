"""Run a command in its own process group, stream its lines, and end it cleanly, whoever dies first.

Between the flow and the command stands a keeper, `python flows/process.py COMMAND…`, which holds one end of a pipe.
When the pipe closes it ends the command's whole group: the flow closes it on a time limit, an interrupt or a cancel,
and the operating system closes it when the flow is killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PATIENCE = 4.0  # seconds between interrupting a command and killing it


class EndedError(RuntimeError):
    """A command that was ended from outside, by its time limit or because the run is ending."""


@dataclass(eq=False)
class Keeper:
    """The process that keeps a command, and why it was told to end it, if it was."""

    process: subprocess.Popen
    why: str = ""

    def end(self, why: str) -> None:
        """Have the command ended; `stream` returns soon after."""
        self.why = self.why or why
        with suppress(BrokenPipeError):
            self.process.stdin.close()


_running: set[Keeper] = set()
_ending = threading.Event()


def stream(
    command: Sequence[str],
    on_line: Callable[[str], None],
    limit: float | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run `command`, with more environment variables, hand each line it prints to `on_line`, and return its exit status.

    Raises `EndedError` when it was ended, after `limit` seconds or by an interrupt.
    """
    if _ending.is_set():
        raise EndedError("not started: the run is ending")
    keeper = start(command, variables)
    _running.add(keeper)
    if _ending.is_set():  # an interrupt came between the two
        keeper.end("ended by an interrupt")
    timer = threading.Timer(
        limit or threading.TIMEOUT_MAX,
        keeper.end,
        [f"ended after its time limit of {limit or 0:g} seconds"],
    )
    timer.daemon = True
    timer.start()
    try:
        for line in keeper.process.stdout:
            on_line(line.rstrip("\n"))
        status = keeper.process.wait()
    finally:
        timer.cancel()
        _running.discard(keeper)
        why = keeper.why
        keeper.end("its lines could not be passed on")
    if status and why:
        raise EndedError(why)
    return status


def ending(seconds: float) -> bool:
    """Wait so long, or until the run is ending, and say whether it is."""
    return _ending.wait(seconds)


def start(command: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})) -> Keeper:
    """Start `command`, with more environment variables, under a keeper that ends with this process."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True, env=environment() | variables,
    )  # fmt: skip
    return Keeper(process)


def environment() -> dict[str, str]:
    """Return this process's variables, with its Python first on the path and lines printed at once."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"}


@contextmanager
def ended_together() -> Iterator[None]:
    """Leaving it by an error, an interrupt or a cancel ends every command that runs, and lets none start any more."""
    _ending.clear()
    try:
        yield
    except BaseException:
        _ending.set()
        for keeper in list(_running):
            keeper.end("ended by an interrupt")
        raise


def keep(command: Sequence[str]) -> int:
    """Run `command` in a group of its own until it ends or standard input closes; return its exit status."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a background shell has it ignored, and children inherit that
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_when_closed, args=(child.pid,), daemon=True).start()
    status = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what it left behind
    return status if status >= 0 else 128 - status


def _end_when_closed(group: int) -> None:
    """Interrupt the group, then kill all but its first process, then that: DVC gives back its locks when its stage ends."""
    while os.read(0, 1):
        pass
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGINT)
        time.sleep(PATIENCE)
        for pid in _members(group):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PATIENCE / 2)
        os.killpg(group, signal.SIGKILL)


def _members(group: int) -> list[int]:
    """Return the processes of a group but its first; others come and go meanwhile."""
    import psutil  # needed rarely

    members = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            if pid != group and os.getpgid(pid) == group:
                members.append(pid)
    return members


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
