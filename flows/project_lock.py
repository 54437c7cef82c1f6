"""One run at a time in one folder: the lock of a project."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from prefect import get_run_logger

from tasks.errors import UserError

LOCK = Path(".dvc/tmp/retrain.lock")


class OverlapError(UserError):
    """Another run is at work in this folder, and this one was told not to wait."""


@contextmanager
def hold_lock(overlap: Literal["wait", "refuse"]) -> Iterator[None]:
    """Hold this folder's lock, which the operating system gives back however the run ends."""
    lock = FileLock(LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if overlap == "refuse":
            raise OverlapError(
                "another run is at work in this folder, and this one does not wait"
            ) from None
        get_run_logger().info("another run is at work in this folder; waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
