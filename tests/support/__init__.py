"""What tests share: sets that are drawn, small pipelines, a second way to every number."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Have the first process that needs a folder make it, and return it to all of them."""
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            make(folder)
            done.touch()
    return folder
