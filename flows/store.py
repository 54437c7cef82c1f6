"""Prepare MLflow's store for a run: open it once before stages log to it side by side.

A registry that was lost is filled again.
"""

import os
import sqlite3
import sys
from pathlib import Path

from prefect import get_run_logger

from flows.process import stream
from flows.stage_outcome import find_reason
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
    "%s.\nModels are trained and not recorded. The stage `register` fails until the server "
    "answers, and the next run continues there. To record in mlflow.db instead, end this run, "
    "`unset MLFLOW_TRACKING_URI`, and run again"
)


def forget_lost_registry() -> None:
    """Remove the receipt of a default registry that is gone, so that DVC registers again."""
    if VARIABLE not in os.environ and RECEIPT.exists() and not DEFAULT_FILE.exists():
        get_run_logger().info("%s is gone: the winner is registered again", DEFAULT_FILE)
        RECEIPT.unlink()


def open_store() -> None:
    """Let MLflow create its store once, before stages log to it side by side.

    Raises `UserError` before any training if the store does not answer or cannot be used.
    """
    if not TRACKING.exists():
        return
    refuse_newer_store()
    if VARIABLE not in os.environ and DEFAULT_FILE.exists():
        return
    lines: list[str] = []
    if stream([sys.executable, "-c", OPEN], lines.append) != 0:
        raise UserError(find_reason(lines).removeprefix("error: "))


def warn_if_away() -> bool:
    """Return whether MLflow's server is away, and warn of it before hours of training.

    The run continues: the server may be back when the winner is registered.
    """
    address = os.environ.get(VARIABLE, "")
    why = servers.explain_unreachable(address)
    if why is not None:
        silence = servers.describe_unreachable(VARIABLE, address, "environment", why)
        get_run_logger().warning(AWAY, silence)
    return why is not None


def refuse_newer_store() -> None:
    """Raise `UserError` if the default store was written by a newer MLflow, or is damaged."""
    if VARIABLE not in os.environ:
        refuse_newer(DEFAULT_FILE, "mlflow", ": MLflow creates a new one")


def refuse_newer(file: Path, package: str, consequence: str) -> None:
    """Raise `UserError` if a newer version of a package wrote a database, or if it is damaged."""
    shown = machine.shorten_home(file)
    remedy = f"{servers.advise_aside(shown)}{consequence}"
    try:
        revision = servers.find_newer_revision(file, package)
    except sqlite3.OperationalError as error:
        raise UserError(": ".join(servers.describe_unusable(shown, error))) from error
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{shown} is not a readable database ({error}): restore a copy of it, or {remedy}"
        ) from error
    if revision is not None:
        raise UserError(servers.describe_newer(shown, package, remedy))
