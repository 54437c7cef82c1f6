"""MLflow's store as runs need it: opened once before stages log to it side by side, and filled again where it was lost."""

import os
import sys
from pathlib import Path

from prefect import get_run_logger

from flows.process import stream
from flows.stage_outcome import reason
from tasks.errors import UserError
from tasks.tracking.store import DEFAULT_FILE

RECEIPT = Path("data/registration.json")
TRACKING = Path("tasks/tracking/runs.py")


def forget_lost_registry() -> None:
    """Remove the receipt of a default registry that is gone, so that DVC registers again."""
    if "MLFLOW_TRACKING_URI" not in os.environ and RECEIPT.exists() and not DEFAULT_FILE.exists():
        get_run_logger().info("%s is gone: the winner is registered again", DEFAULT_FILE)
        RECEIPT.unlink()


def open_store() -> None:
    """Have MLflow create its store once, before stages that log to it run side by side."""
    if not TRACKING.exists() or ("MLFLOW_TRACKING_URI" not in os.environ and DEFAULT_FILE.exists()):
        return
    lines: list[str] = []
    if stream([sys.executable, "-c", "from tasks.tracking import runs; runs.open_store()"], lines.append) != 0:
        raise UserError(f"MLflow's store cannot be opened: {reason(lines)}")
