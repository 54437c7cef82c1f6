"""Where MLflow's store lies, and whether a training may write there: told before it begins and not after it."""

import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from tasks.errors import UserError

LEAST = 200_000_000  # free bytes: a small model in its folder, in DVC's cache and in the registry
SQLITE = "sqlite:///"


def check_place(tracking_uri: str, artifacts: str) -> None:
    """Raise `UserError` where the store's database or its artifacts lie in a folder that cannot take a model.

    Only folders of this machine are looked at: a server says itself what it refuses.
    """
    if tracking_uri.startswith(SQLITE):
        _check_folder(Path(tracking_uri.removeprefix(SQLITE)).parent)
    if artifacts.startswith("file:"):
        _check_folder(Path(unquote(urlparse(artifacts).path)))
    elif not urlparse(artifacts).scheme:
        _check_folder(Path(artifacts))


def _check_folder(folder: Path) -> None:
    exists = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=exists):
            free = shutil.disk_usage(exists).free
    except OSError as error:
        raise UserError(
            f"MLflow's store needs {folder}: expected a folder that can be written, but {exists} says {error.strerror}. "
            "Give this user the right to write there, or name another store in MLFLOW_TRACKING_URI"
        ) from error
    if free < LEAST:
        raise UserError(
            f"MLflow's store needs {folder}: expected at least {LEAST / 1e6:.0f} MB for the models, its disk has "
            f"{free / 1e6:.0f} MB left. Free some, or name another store in MLFLOW_TRACKING_URI"
        )
