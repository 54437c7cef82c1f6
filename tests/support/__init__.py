"""Toy data, toy pipelines and the test oracle, for the tests of all rooms."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder, made by the first process that needs it."""
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            make(folder)
            done.touch()
    return folder
