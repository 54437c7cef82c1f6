"""A stage takes its paths from the command line; a user's mistake ends in one message, ours keeps its traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stage import explain
from tests.conftest import ROOT

STAGE = """
from pathlib import Path
from tasks.stage import run

def main(name: str, source: Path, target: Path) -> None:
    {body}

run(main)
"""


def call(tmp_path: Path, body: str, *arguments: str, level: str = "INFO") -> subprocess.CompletedProcess[str]:
    script = tmp_path / "stage.py"
    script.write_text(STAGE.format(body=body))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LOG_LEVEL": level}
    return subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_arguments_arrive_as_annotated(tmp_path: Path) -> None:
    result = call(tmp_path, "print(repr(name), repr(source), repr(target))", "01", "data/raw", "data/files.csv")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "'01' PosixPath('data/raw') PosixPath('data/files.csv')\n"


@pytest.mark.parametrize("arguments", [[], ["one"], ["one", "two", "three", "four"]])
def test_a_wrong_number_of_arguments_is_told(tmp_path: Path, arguments: list[str]) -> None:
    result = call(tmp_path, "print('ran')", *arguments)
    assert result.returncode == 1
    expected = f"error: expected 3 arguments (NAME SOURCE TARGET), received {len(arguments)}; dvc.yaml has the paths\n"
    assert result.stdout + result.stderr == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no class folders')", "error: no class folders\n"),
        ("source.read_text()", "error: [Errno 2] No such file or directory: 'b'\n"),
    ],
)
def test_a_mistake_of_the_user_is_one_message(tmp_path: Path, body: str, message: str) -> None:
    result = call(tmp_path, body, "a", "b", "c")
    assert (result.returncode, result.stdout, result.stderr) == (1, message, "")
    with_traceback = call(tmp_path, body, "a", "b", "c", level="DEBUG")
    assert with_traceback.returncode == 1
    assert "Traceback" in with_traceback.stdout and message in with_traceback.stdout


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    result = call(tmp_path, "{}['key']", "a", "b", "c")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "KeyError: 'key'" in result.stderr


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    result = call(tmp_path, "target.write_text('x')", "a", "b", "/dev/full")
    assert result.returncode == 1
    assert "no space left on the device while writing an output: free some and run again" in result.stdout
    error = OSError(errno.ENOSPC, "No space left on device", "data/files.csv")
    assert "while writing data/files.csv" in explain(error)


def test_libraries_are_told_not_to_report_home() -> None:
    code = "import os, tasks; print([os.environ[n] for n in ('DO_NOT_TRACK', 'GX_ANALYTICS_ENABLED', 'MLFLOW_DISABLE_TELEMETRY')])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=True)
    assert result.stdout == "['1', 'false', 'true']\n"
