"""One toy pipeline that ran, which all tests of flows copy."""

import subprocess
from pathlib import Path

import pytest

from tests.support import make_once
from tests.support import toy_pipeline as toy


@pytest.fixture(scope="session")
def team(shared: Path) -> Path:
    """Return a folder with `driver`, a toy pipeline that ran once, and its Git remote `origin`.

    The pipeline is committed, and its DVC remote is `store` beside them. Tests copy the folder.
    """
    return make_once(shared / "toy", make_team)


def make_team(folder: Path) -> None:
    root = toy.make(folder / "driver")
    toy.dvc(root, "remote", "add", "--quiet", "--default", "store", "../store")
    toy.dvc(root, "repro", "--quiet")
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder / "origin")],
        check=True,
    )
    toy.git(root, "remote", "add", "origin", "../origin")
    publish(root)
    toy.ran(root)


def publish(root: Path) -> str:
    """Commit everything, push it, and return the commit."""
    toy.git(root, "add", ".")
    toy.git(root, "commit", "--quiet", "--allow-empty", "--message", "next")
    toy.git(root, "push", "--quiet", "origin", "HEAD:main")
    return toy.git(root, "rev-parse", "HEAD").strip()
