"""MLflow's store as runs need it: opened once before stages log to it side by side, and filled again where it was lost."""

import os
import sqlite3
import sys
from pathlib import Path

from prefect import get_run_logger

from flows.process import stream
from flows.stage_outcome import reason
from tasks import machine
from tasks.errors import UserError
from tasks.tracking import servers
from tasks.tracking.store import DEFAULT_FILE, VARIABLE

RECEIPT = Path("data/registration.json")
TRACKING = Path("tasks/tracking/runs.py")
OPEN = """
from tasks.errors import exit_with_message
from tasks.tracking import runs
with exit_with_message():
    runs.open_store()
"""
AWAY = (
    "%s.\nTrainings go on and are not recorded; the stage `register` will fail until it answers, and the next run goes on from "
    "there. Or end this run, `unset MLFLOW_TRACKING_URI` (runs and registry are in mlflow.db then), and run again"
)


def forget_lost_registry() -> None:
    """Remove the receipt of a default registry that is gone, so that DVC registers again."""
    if VARIABLE not in os.environ and RECEIPT.exists() and not DEFAULT_FILE.exists():
        get_run_logger().info("%s is gone: the winner is registered again", DEFAULT_FILE)
        RECEIPT.unlink()


def open_store() -> None:
    """Have MLflow create its store once, before stages that log to it run side by side.

    Raises `UserError` for a store that does not answer or cannot be used, before anything is trained.
    """
    if not TRACKING.exists():
        return
    refuse_newer_store()
    if VARIABLE not in os.environ and DEFAULT_FILE.exists():
        return
    lines: list[str] = []
    if stream([sys.executable, "-c", OPEN], lines.append) != 0:
        raise UserError(reason(lines).removeprefix("error: "))


def tell_away() -> bool:
    """Say whether MLflow's server is away, to the log too, before hours of training.

    They go on all the same: they do without it, and it may be back when the winner is registered.
    """
    address = os.environ.get(VARIABLE, "")
    why = servers.why_unreachable(address)
    if why is not None:
        get_run_logger().warning(
            AWAY, servers.describe_unreachable(VARIABLE, address, "environment", why)
        )
    return why is not None


def refuse_newer_store() -> None:
    """Raise `UserError` where the default store is one of a newer MLflow, or no database."""
    if VARIABLE not in os.environ:
        refuse_newer(
            DEFAULT_FILE,
            "mlflow",
            f"set it aside (mv {DEFAULT_FILE} {DEFAULT_FILE}.newer): a new one is begun",
        )


def refuse_newer(file: Path, package: str, remedy: str) -> None:
    """Raise `UserError` where a newer version of a package wrote a database, or it is none."""
    shown = machine.shorten_home(file)
    try:
        revision = servers.find_newer_revision(file, package)
    except sqlite3.OperationalError as error:
        raise UserError(": ".join(servers.describe_unusable(shown, error))) from error
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{shown} is no database that can be read ({error}): bring back a copy, or {remedy}"
        ) from error
    if revision is not None:
        raise UserError(servers.describe_newer(shown, package, remedy))
