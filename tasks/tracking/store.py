"""MLflow's store: what `MLFLOW_TRACKING_URI` names, by default `mlflow.db` and `mlartifacts/` in the project's folder.

MLflow writes down the absolute place of each artifact. In the default store they are made relative to the project. So a
project that was renamed, moved or copied finds its own files, and a copy never writes into the first. A store that was
set is left as it is.
"""

import importlib.util
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from tasks.errors import UserError

DEFAULT_FILE = Path("mlflow.db")
DEFAULT_URI = f"sqlite:///{DEFAULT_FILE}"
ARTIFACTS = Path("mlartifacts")
PATIENCE = 60.0  # seconds that one process waits for another to write
# Where MLflow writes places down.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
PLACE = re.compile(r"(?:file://)?(/.*)?/((?:mlartifacts|mlruns)(?:/.*)?)")  # a project's folder, and what lies in it


def find_uri() -> str:
    """Return the store's URI. Raises `UserError` where MLflow could open no database from here."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_URI)
    if not uri.startswith("http"):
        refuse_percent_sign()
    return uri


def refuse_percent_sign() -> None:
    """Raise `UserError` where MLflow is installed below a folder with a percent sign: it cannot open its database then."""
    packages = Path(importlib.util.find_spec("mlflow").origin).parent
    if "%" in str(packages):
        raise UserError(
            f"{packages}: expected a path without a percent sign, since MLflow, which is installed there, cannot open a "
            "database otherwise. Rename the project's folder, or the one that has the sign, and run again"
        )


def make_places_relative() -> None:
    """Make the places of artifacts in the default store relative to the project, where there is one. Raises `UserError`.

    Files of an older MLflow run that lie elsewhere, but in no other project, keep their place. New ones come here.
    """
    if find_uri() != DEFAULT_URI or not DEFAULT_FILE.exists():
        return
    try:
        with closing(sqlite3.connect(DEFAULT_FILE, timeout=PATIENCE)) as store, store:
            tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, column in COLUMNS:
                if table in tables:
                    _make_column_relative(store, table, column)
    except sqlite3.Error as error:
        raise UserError(
            f"{DEFAULT_FILE}: expected MLflow's database, to be read and written by this user, received: {error}. "
            "Give the right to write, or bring it back from a back-up"
        ) from error


def _make_column_relative(store: sqlite3.Connection, table: str, column: str) -> None:
    absolute = f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE 'file:%' OR {column} LIKE '/%'"
    places = {row: PLACE.fullmatch(place) for row, place in store.execute(absolute)}
    own = [
        (found[2], row)
        for row, found in places.items()
        if found and (table == "experiments" or not _lies_alone(Path(unquote(found[1] or "/")), found[2]))
    ]
    store.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", own)


def _lies_alone(folder: Path, place: str) -> bool:
    """Say whether files are there alone, as MLflow left them in the place that a project had before it was moved."""
    return (folder / place).exists() and not Path(place).exists() and not (folder / DEFAULT_FILE).exists()
