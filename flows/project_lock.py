"""The lock that lets one run at a time work in a project folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from prefect import get_run_logger

from tasks.errors import UserError

LOCK = Path(".dvc/tmp/retrain.lock")


class OverlapError(UserError):
    """Another run is at work in this folder, and this run was told not to wait for it."""


@contextmanager
def hold_lock(overlap: Literal["wait", "refuse"]) -> Iterator[None]:
    """Hold the lock of this folder. The operating system releases it however the run ends."""
    lock = FileLock(LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if overlap == "refuse":
            raise OverlapError(
                "another run is at work in this folder, and this run does not wait for it"
            ) from None
        get_run_logger().info("another run is at work in this folder; waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
