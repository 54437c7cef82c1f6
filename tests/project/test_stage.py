"""A stage takes options by name. A user's mistake is one message; a bug keeps its traceback."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.errors import UserError, describe_error
from tasks.registry import requirements
from tasks.stage import call as call_stage
from tasks.stage import check_ahead, read_arguments
from tests.support import ROOT

PATHS = ("--raw", "data/raw", "--files-csv", "data/files.csv")
STAGE = """
from pathlib import Path
from tasks.errors import UserError
from tasks.stage import run

def main(name: str, raw: Path, files_csv: Path) -> None:
    {body}

run(main)
"""


def call(
    tmp_path: Path, body: str, *arguments: str, level: str = "INFO"
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "stage.py"
    script.write_text(STAGE.replace("{body}", body))
    params = tmp_path / "params.yaml"
    if not params.exists():
        params.write_text("architectures: {plain_cnn: {}}\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LOG_LEVEL": level}
    return subprocess.run(
        [sys.executable, script, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Options:
    raw: Path
    count: int = 3


def test_a_stage_may_take_its_options_as_a_dataclass() -> None:
    received: list[Options] = []

    def stage(options: Options) -> None:
        received.append(options)

    call_stage(stage, read_arguments(stage, ["--raw", "data/raw"]))
    assert received == [Options(Path("data/raw"), 3)]


def test_options_arrive_as_annotated(tmp_path: Path) -> None:
    result = call(tmp_path, "print(repr(name), repr(raw), repr(files_csv))", "--name", "01", *PATHS)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "'01' PosixPath('data/raw') PosixPath('data/files.csv')\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "01"], "the following arguments are required: --raw, --files-csv"),
        (
            ["--name", "01", *PATHS, "--clean", "data/clean"],
            "unrecognized arguments: --clean data/clean",
        ),
        (["01", "data/raw", "data/files.csv"], "required: --name, --raw, --files-csv"),
    ],
)
def test_a_wrong_option_lists_the_known_ones(
    tmp_path: Path, words: list[str], message: str
) -> None:
    result = call(tmp_path, "print('ran')", *words)
    assert result.returncode == 1 and result.stderr == ""
    assert message in result.stdout and "the options are --name --raw --files-csv" in result.stdout


@pytest.mark.parametrize("raw", ["data/clean", "data/files.csv", "raw/data/clean", "data/raw/a/b"])
def test_a_path_has_the_name_of_its_option(raw: str) -> None:
    def stage(raw: Path) -> None: ...

    for right in ("data/raw", "data/raw/cnn_a", "/elsewhere/raw"):
        assert read_arguments(stage, ["--raw", right]) == {"raw": Path(right)}
    with pytest.raises(UserError, match="--raw: expected a path named like the option, received"):
        read_arguments(stage, ["--raw", raw])
    assert read_arguments(stage, ["--raw", raw], names_of_paths=False) == {"raw": Path(raw)}


def test_options_with_a_default_may_be_left_out() -> None:
    def stage(count: int = 3, name: str | None = None, seconds: float | None = None) -> None: ...

    assert read_arguments(stage, []) == {"count": 3, "name": None, "seconds": None}
    assert read_arguments(stage, ["--count", "4", "--seconds", "0.5"]) == {
        "count": 4,
        "name": None,
        "seconds": 0.5,
    }


def test_a_mistake_of_the_user_is_one_message(tmp_path: Path) -> None:
    body, words = "raise UserError('no class folders')", ("--name", "a", *PATHS)
    result = call(tmp_path, body, *words)
    assert (result.returncode, result.stdout, result.stderr) == (1, "error: no class folders\n", "")
    with_traceback = call(tmp_path, body, *words, level="DEBUG")
    assert with_traceback.returncode == 1
    assert "Traceback" in with_traceback.stdout and result.stdout in with_traceback.stdout


def test_a_missing_input_is_one_message(tmp_path: Path) -> None:
    result = call(tmp_path, "(raw / 'cat').read_text()", "--name", "a", *PATHS)
    assert result.returncode == 1 and result.stdout.startswith(
        "error: data/raw/cat is missing: an earlier stage writes it"
    )


def test_a_file_without_permission_is_one_message() -> None:
    assert describe_error(
        PermissionError(errno.EACCES, "Permission denied", "data/raw")
    ).startswith("data/raw: Permission denied")


def test_a_wrong_key_of_another_section_stops_a_stage(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "architectures: {plain_cnn: {}}\nreport: {titel: Heads}\n"
    )
    result = call(tmp_path, "print('ran')", "--name", "a", *PATHS)
    assert (
        result.returncode == 1
        and "report.titel: unknown key; did you mean title?" in result.stdout
        and "ran" not in result.stdout
    )


def test_a_missing_package_of_a_later_stage_stops_a_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("architectures: {plain_cnn: {}}\n")
    check_ahead()
    monkeypatch.setattr(requirements, "PACKAGES", ("numpy", "no-such-package", "nor-this"))
    with pytest.raises(
        UserError,
        match="not installed: no-such-package, nor-this. Install them from requirements.txt",
    ):
        check_ahead()


@pytest.mark.parametrize(
    "raised", ["ValueError('broadcast')", "OSError('socket')", "FileNotFoundError(2, 'no', 'ours')"]
)
def test_a_bug_keeps_its_traceback(tmp_path: Path, raised: str) -> None:
    result = call(tmp_path, f"raise {raised}", "--name", "a", *PATHS)
    assert result.returncode == 1
    assert "Traceback" in result.stderr and raised.partition("(")[0] in result.stderr


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    result = call(tmp_path, "Path('/dev/full').write_text('x')", "--name", "a", *PATHS)
    assert result.returncode == 1
    assert (
        "no space left on the device while writing an output: free some and run again"
        in result.stdout
    )
    error = OSError(errno.ENOSPC, "No space left on device", "data/files.csv")
    assert "while writing data/files.csv" in describe_error(error)


def test_libraries_do_not_report_home() -> None:
    names = ("DO_NOT_TRACK", "GX_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY")
    code = f"import os, tasks; print([os.environ[name] for name in {names}])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )
    assert result.stdout == "['1', 'false', 'true']\n"
