"""MLflow's store: what `MLFLOW_TRACKING_URI` names, by default `mlflow.db` and `mlartifacts/`.

MLflow writes down the absolute place of each artifact. In the default store the places are made
relative to the project's folder. So a project that was renamed, moved or copied finds its own
files, and a copy never writes into the first project. A store that a person set is left as it is,
and so is a folder that a person gave an experiment.
"""

import importlib.util
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from tasks.errors import UserError
from tasks.tracking import servers

VARIABLE = "MLFLOW_TRACKING_URI"
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
# A project's folder, and a place in it.
PLACE = re.compile(r"(?:file://)?(/.*)?/((?:mlartifacts|mlruns)(?:/.*)?)")


def find_uri() -> str:
    """Return the store's URI. Raises `UserError` where MLflow could open no database from here."""
    uri = os.environ.get(VARIABLE) or DEFAULT_URI
    if not uri.startswith("http"):
        refuse_percent_sign()
    return uri


def refuse_percent_sign() -> None:
    """Raise `UserError` where the path that MLflow is installed in has a percent sign.

    MLflow hands the path of its migrations to Alembic, which takes the sign for a variable.
    """
    packages = Path(importlib.util.find_spec("mlflow").origin).parent
    if "%" in str(packages):
        raise UserError(
            f"{packages}: expected a path without a percent sign, since MLflow is installed there "
            "and opens no database otherwise. Rename the folder that has the sign, and run again"
        )


def make_places_relative() -> None:
    """Make the places of artifacts in the default store relative, where there is one.

    What was logged to the place that the project had before stays readable there. What is logged
    from now on comes here. Raises `UserError` where the database cannot be used.
    """
    if find_uri() != DEFAULT_URI or not DEFAULT_FILE.exists():
        return
    try:
        connected = sqlite3.connect(DEFAULT_FILE, PATIENCE, isolation_level="IMMEDIATE")
        with closing(connected) as store, store:
            names = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in names}
            chosen = _find_chosen(store) if "experiments" in tables else set()
            for table, column in COLUMNS:
                if table in tables:
                    _make_column_relative(store, table, column, chosen)
    except sqlite3.OperationalError as error:
        said = servers.describe_unusable(str(DEFAULT_FILE), error)
        raise UserError(": ".join(said)) from error
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{DEFAULT_FILE}: expected MLflow's database, received: {error}. Bring it back from a back-up"
        ) from error


def _find_chosen(store: sqlite3.Connection) -> set[Path]:
    """Return the folders that a person gave experiments, as on a big disk: they are no project's.

    Where MLflow puts an experiment by itself tells which folder the project had, which may be gone.
    """
    rows = store.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
    found = [(number, PLACE.fullmatch(place or "")) for number, place in rows]
    folders = {_folder(place) for _, place in found if place}
    own = {_folder(place) for number, place in found if place and place[2] == f"mlruns/{number}"}
    return {folder for folder in folders - own if not (folder / DEFAULT_FILE).exists()}


def _folder(place: re.Match) -> Path:
    return Path(unquote(place[1] or "/"))


def _make_column_relative(
    store: sqlite3.Connection, table: str, column: str, chosen: set[Path]
) -> None:
    absolute = f"{column} LIKE 'file:%' OR {column} LIKE '/%'"
    rows = store.execute(f"SELECT rowid, {column} FROM {table} WHERE {absolute}").fetchall()
    relative = []
    for row, place in rows:
        found = PLACE.fullmatch(place)
        if found is None or _folder(found) in chosen:
            continue
        if table == "experiments" or not _lies_alone(found):
            relative.append((found[2], row, place))
    if relative:  # or else nobody is waited for
        change = f"UPDATE {table} SET {column} = ? WHERE rowid = ? AND {column} = ?"
        store.executemany(change, relative)


def _lies_alone(found: re.Match) -> bool:
    """Say whether files are in no project, as what was logged after a move to the place of before."""
    folder, place = _folder(found), Path(found[2])
    return (folder / place).exists() and not place.exists() and not (folder / DEFAULT_FILE).exists()
