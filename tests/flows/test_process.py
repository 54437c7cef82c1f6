"""Commands run in process groups, and none of their processes outlives its starter."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.process import EndedError, end_together, stream
from tests.support.toy_pipeline import until

pytestmark = pytest.mark.slow

STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
FAMILY = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', {child!r}])
"""
TELLS = "pathlib.Path({pids!r}).write_text(f'{{child.pid}}')\n"
WAITS = "import time; time.sleep(60)"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def family(pids: Path, before: str = "", then: str = WAITS) -> list[str]:
    """Return a command that starts a child, writes its number to `pids`, and waits as it does."""
    return [
        sys.executable,
        "-c",
        before + FAMILY.format(child=before + WAITS) + TELLS.format(pids=str(pids)) + then,
    ]


def child_of(pids: Path) -> int:
    until(lambda: pids.exists() and pids.read_text() != "")
    return int(pids.read_text())


def test_lines_come_as_they_are_printed_and_the_status_comes_last() -> None:
    times: dict[str, float] = {}
    code = (
        "import sys, time; print('one'); time.sleep(0.5); print('two', file=sys.stderr); "
        "sys.exit(3)"
    )
    assert (
        stream([sys.executable, "-c", code], lambda line: times.setdefault(line, time.monotonic()))
        == 3
    )
    assert list(times) == ["one", "two"]
    assert times["two"] - times["one"] > 0.4


@pytest.mark.parametrize("before", ["", STUBBORN], ids=["obedient", "stubborn"])
def test_a_time_limit_ends_the_whole_group_within_ten_seconds(tmp_path: Path, before: str) -> None:
    started = time.monotonic()
    with pytest.raises(EndedError, match="time limit of 2 seconds"):
        stream(family(tmp_path / "pids", before), lambda line: None, limit=2)
    assert time.monotonic() - started < 2 + 10
    until(lambda: not alive(child_of(tmp_path / "pids")), 2)


def test_what_a_finished_command_left_behind_ends_with_it(tmp_path: Path) -> None:
    assert stream(family(tmp_path / "pids", then=""), lambda line: None) == 0
    until(lambda: not alive(child_of(tmp_path / "pids")), 2)


def test_an_error_ends_all_commands_and_lets_none_start(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def run(number: int) -> None:
        try:
            stream(family(tmp_path / f"pids{number}"), lambda line: None)
        except EndedError as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    with pytest.raises(KeyboardInterrupt), end_together():
        for thread in threads:
            thread.start()
        children = [child_of(tmp_path / f"pids{number}") for number in range(2)]
        raise KeyboardInterrupt
    with pytest.raises(EndedError, match="not started"):
        stream([sys.executable, "-c", ""], print)
    for thread in threads:
        thread.join(10)
    assert [str(error) for error in raised] == ["ended by an interrupt"] * 2
    assert not any(alive(child) for child in children)
    with end_together():
        assert stream([sys.executable, "-c", ""], print) == 0


def test_lines_that_cannot_be_passed_on_end_the_command(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="line"):
        stream(family(tmp_path / "pids", then="print('line'); " + WAITS), refuse)
    until(lambda: not alive(child_of(tmp_path / "pids")), 10)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_ends_when_its_starter_is_killed(tmp_path: Path, number: int) -> None:
    code = f"from flows.process import stream; stream({family(tmp_path / 'pids')!r}, print)"
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    child = child_of(tmp_path / "pids")
    os.kill(starter.pid, number)
    starter.wait()
    until(lambda: not alive(child), 10)
