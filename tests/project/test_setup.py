"""`make .venv/installed` installs the lock with uv, and with pip where uv is missing or fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

# Stands for `.venv/bin/python`: it writes down how it is called, and installs nothing.
PYTHON = """#!/bin/sh
echo "python $*" >> calls.txt
case "$*" in
    *config*) exit 1 ;;
    *uv.txt*) exit {fetched} ;;
    *) echo "Collecting numpy"; exit 0 ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >> calls.txt
echo "Resolved 3 packages in 1ms"
echo "error: no route to the index" >&2
exit {status}
"""


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("uv", "fetched", "installers"),
    [
        (0, 0, ["uv"]),
        (2, 0, ["uv", "python"]),
        (None, 1, ["python"]),
    ],
)
def test_uv_installs_the_lock_and_pip_where_it_cannot(
    uv: int | None, fetched: int, installers: list[str], tmp_path: Path
) -> None:
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    write_script(tmp_path / ".venv/bin/python", PYTHON.format(fetched=fetched))
    if uv is not None:
        write_script(tmp_path / "bin/uv", UV.format(status=uv))
    environment = os.environ | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["make", "--silent", "install"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    calls = (tmp_path / "calls.txt").read_text(encoding="utf-8").splitlines()
    installs = [call for call in calls if "--requirement requirements.txt" in call]
    assert [call.split()[0] for call in installs] == installers
    assert all("--require-hashes" in call for call in installs)
    assert ("no route" in done.stdout) == ("uv" in installers)
    assert "Collecting" not in done.stdout


def test_uv_takes_the_index_that_pip_is_told(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    write_script(tmp_path / ".venv/bin/python", PYTHON.format(fetched=0))
    write_script(tmp_path / "bin/uv", "#!/bin/sh\necho $UV_DEFAULT_INDEX > index.txt\n")
    subprocess.run(
        ["make", "--silent", "install"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
            "PIP_INDEX_URL": "https://mirror.example/simple",
        },
        check=True,
    )
    assert (tmp_path / "index.txt").read_text() == "https://mirror.example/simple\n"
