"""The commands and paths in the documentation are right.

A line `<!-- run -->` above a block marks commands that are run here, in a copy of the project whose
stages only write a metric.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support import ROOT
from tests.support.toy_pipeline import git

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(<!-- run -->\n)?```(?:bash|sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULE = re.compile(r"python -m ((?:tasks|flows|serving|bench|tests)(?:\.\w+)+)([^`\n#|]*)")
PATH = re.compile(r"`((?:tasks|flows|serving|bench|tests|recipes|docs|deploy)/[\w/.-]*)`")
TARGETS = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
RUNNABLE = {
    line.partition(" #")[0].strip(): page
    for page in PAGES
    for marked, block in BLOCK.findall(page.read_text())
    for line in block.splitlines()
    if marked
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a committed copy of the project, whose stages only write a metric."""
    root = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(ROOT / "recipes", root / "recipes")
    for name in ("Makefile", "params.yaml"):
        shutil.copy(ROOT / name, root)
    (root / "tasks").symlink_to(ROOT / "tasks")
    command = "mkdir -p data && echo '{\"val_macro_f1\": 0.8}' > data/comparison.json"
    train = {"foreach": "${architectures}", "do": {"cmd": "true", "params": ["architectures"]}}
    compare = {"cmd": command, "params": ["architectures"], "metrics": ["data/comparison.json"]}
    YAML().dump({"stages": {"train": train, "compare": compare}}, root / "dvc.yaml")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("/.dvc/tmp\n/.dvc/cache\n/tasks\n/data\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "start")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE)
def test_a_runnable_command_works(command: str, project: Path, tmp_path: Path) -> None:
    root = shutil.copytree(project, tmp_path / "project", symlinks=True)
    identity = {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = re.sub(r"^make ", "make --old-file .venv/installed ", command)
    done = subprocess.run(
        command,
        cwd=root,
        shell=True,
        env=os.environ | identity | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{RUNNABLE[command]}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_paths_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE):
        assert target in TARGETS, f"make {target}"
    for name, arguments in MODULE.findall(text):
        module = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        code = module if module.is_file() else module.with_suffix("") / "__main__.py"
        assert code.is_file(), f"python -m {name}"
        for option in re.findall(r"(?<= )--[a-z-]+", arguments):
            assert f'"{option}"' in code.read_text(), f"python -m {name} {option}"
    for path in PATH.findall(text):
        assert (ROOT / path).exists(), path
