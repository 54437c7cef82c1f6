"""Run a command in its own process group, pass on its lines, and end all of it in every case.

A keeper process, `python flows/process.py COMMAND…`, stands between the flow and the command. It
reads from a pipe, and ends the command's whole group when the pipe closes. The flow closes the pipe
at a time limit, an interrupt or a cancel. If the flow is killed, the operating system closes it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PATIENCE = 4.0  # seconds between interrupting a command and killing it
NOTHING: Mapping[str, str] = MappingProxyType({})


class EndedError(RuntimeError):
    """A command was ended by its time limit, or because the run ends."""


@dataclass(eq=False)
class Keeper:
    """The keeper process of a command, and why the command was ended, if it was."""

    process: subprocess.Popen[str]
    why: str = ""

    @property
    def lines(self) -> Iterable[str]:
        """Return the lines of the command, as it prints them."""
        return self.process.stdout or ()

    def end(self, why: str) -> None:
        """End the command; `stream` returns soon after."""
        self.why = self.why or why
        with suppress(BrokenPipeError):
            if self.process.stdin:
                self.process.stdin.close()


_running: set[Keeper] = set()
_ending = threading.Event()


def stream(
    command: Sequence[str],
    on_line: Callable[[str], None],
    limit: float | None = None,
    variables: Mapping[str, str] = NOTHING,
) -> int:
    """Run a command, pass each line that it prints to `on_line`, and return its exit status.

    Raises `EndedError` if the command was ended, after `limit` seconds or by an interrupt.
    """
    if _ending.is_set():
        raise EndedError("not started: the run is ending")
    keeper = start(command, variables)
    _running.add(keeper)
    if _ending.is_set():  # an interrupt came between the check and the start
        keeper.end("ended by an interrupt")
    why = f"ended after its time limit of {limit or 0:g} seconds"
    timer = threading.Timer(limit or threading.TIMEOUT_MAX, keeper.end, [why])
    timer.daemon = True
    timer.start()
    try:
        for line in keeper.lines:
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


def wait_for_end(seconds: float) -> bool:
    """Wait for the end of the run for some seconds, and return whether the run is ending."""
    return _ending.wait(seconds)


def start(command: Sequence[str], variables: Mapping[str, str] = NOTHING) -> Keeper:
    """Start a command with additional environment variables; it ends with this process."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**environment(), **variables},
    )
    return Keeper(process)


def environment() -> dict[str, str]:
    """Return this process's variables, with its Python first on the path and output unbuffered."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"}


@contextmanager
def end_together() -> Iterator[None]:
    """End every running command if the block ends by an error, an interrupt or a cancel.

    From then on no command starts.
    """
    _ending.clear()
    try:
        yield
    except BaseException:
        _ending.set()
        for keeper in list(_running):
            keeper.end("ended by an interrupt")
        raise


def keep(command: Sequence[str]) -> int:
    """Run a command in a group of its own until it ends or standard input closes.

    Returns the exit status of the command.
    """
    # A shell in the background ignores interrupts, and its children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_when_closed, args=(child.pid,), daemon=True).start()
    status = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # processes that the command left behind
    return status if status >= 0 else 128 - status


def _end_when_closed(group: int) -> None:
    """Wait until standard input closes, then end the group.

    The group is interrupted first. Then its members are killed, and its first process last: that is
    DVC, which releases its locks after its stage has ended.
    """
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
    """Return the processes of a group without its first process."""
    import psutil  # needed rarely

    members = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError):  # processes come and go meanwhile
            if pid != group and os.getpgid(pid) == group:
                members.append(pid)
    return members


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
