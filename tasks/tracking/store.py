"""Find MLflow's store: `MLFLOW_TRACKING_URI`, by default `mlflow.db` and `mlartifacts/`.

MLflow stores the absolute path of each artifact. This module makes the paths in the default store
relative to the project's folder. So a project that was renamed, moved or copied finds its own
files, and a copy never writes into the original project. A store that the user configured stays as
it is, and so does an artifact folder that the user gave an experiment.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from tasks.errors import UserError
from tasks.tracking import servers

VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
DEFAULT_FILE = Path("mlflow.db")
DEFAULT_URI = f"{SQLITE}{DEFAULT_FILE}"
ARTIFACTS = Path("mlartifacts")
PATIENCE = 60.0  # seconds that one process waits for another to write
LEAST = 200_000_000  # free bytes: a small model in its folder, in DVC's cache and in the registry
# Where MLflow stores paths of artifacts.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# A project's folder, and a path in it.
PLACE = re.compile(r"(?:file://)?(/.*)?/((?:mlartifacts|mlruns)(?:/.*)?)")


def find_uri() -> str:
    """Return the store's URI. Raises `UserError` if MLflow can open no database here."""
    uri = os.environ.get(VARIABLE) or DEFAULT_URI
    if not uri.startswith("http"):
        refuse_percent_sign()
    return uri


def refuse_percent_sign() -> None:
    """Raise `UserError` if MLflow is installed in a path with a percent sign.

    MLflow passes the path of its migrations to Alembic, which reads the sign as a variable.
    """
    packages = servers.find_package("mlflow").parent
    if "%" in str(packages):
        raise UserError(
            f"{packages}: expected a path without a percent sign. MLflow is installed there, and "
            "cannot open a database from such a path. Rename the folder, and run again"
        )


def check_writable(tracking_uri: str, artifacts: str) -> None:
    """Raise `UserError` unless the store's folders can be written and have room for a model.

    Checks folders of this machine only: a server reports its own problems.
    """
    if tracking_uri.startswith(SQLITE):
        _check_folder(Path(tracking_uri.removeprefix(SQLITE)).parent)
    if artifacts.startswith("file:"):
        _check_folder(Path(unquote(urlparse(artifacts).path)))
    elif not urlparse(artifacts).scheme:
        _check_folder(Path(artifacts))


def _check_folder(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        raise UserError(
            f"MLflow's store needs {folder}: expected a folder that can be written, but for "
            f"{existing} the system reports: {error.strerror}. Give this user the right to write "
            f"there, or set {VARIABLE} to another store"
        ) from error
    if free < LEAST:
        raise UserError(
            f"MLflow's store needs {folder}: expected at least {LEAST / 1e6:.0f} MB of free disk "
            f"space for the models, received {free / 1e6:.0f} MB. Free some, or set {VARIABLE} to "
            "another store"
        )


def make_paths_relative() -> None:
    """Make the paths of artifacts in the default store relative, if that store exists.

    Artifacts that are still in a former folder of the project stay readable there. New artifacts
    go to the present folder. Raises `UserError` if the database cannot be used.
    """
    if find_uri() != DEFAULT_URI or not DEFAULT_FILE.exists():
        return
    try:
        connected = sqlite3.connect(DEFAULT_FILE, PATIENCE, isolation_level="IMMEDIATE")
        with closing(connected) as store, store:
            names = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in names}
            chosen = _find_chosen_folders(store) if "experiments" in tables else set()
            for table, column in COLUMNS:
                if table in tables:
                    _make_column_relative(store, table, column, chosen)
    except sqlite3.OperationalError as error:
        problem = servers.describe_unusable(str(DEFAULT_FILE), error)
        raise UserError(": ".join(problem)) from error
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{DEFAULT_FILE}: expected MLflow's database, received: {error}. Restore a back-up"
        ) from error


def _find_chosen_folders(store: sqlite3.Connection) -> set[Path]:
    """Return the artifact folders that a user gave experiments, for example on a big disk.

    An experiment in MLflow's own folder, `mlruns/<number>`, shows where the project was before.
    """
    rows = store.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
    found = [(number, PLACE.fullmatch(path or "")) for number, path in rows]
    folders = {_folder(path) for _, path in found if path}
    own = {_folder(path) for number, path in found if path and path[2] == f"mlruns/{number}"}
    return {folder for folder in folders - own if not (folder / DEFAULT_FILE).exists()}


def _folder(path: re.Match) -> Path:
    return Path(unquote(path[1] or "/"))


def _make_column_relative(
    store: sqlite3.Connection, table: str, column: str, chosen: set[Path]
) -> None:
    absolute = f"{column} LIKE 'file:%' OR {column} LIKE '/%'"
    rows = store.execute(f"SELECT rowid, {column} FROM {table} WHERE {absolute}").fetchall()
    relative = []
    for row, path in rows:
        found = PLACE.fullmatch(path)
        if found is None or _folder(found) in chosen:
            continue
        if table == "experiments" or not _is_left_behind(found):
            relative.append((found[2], row, path))
    if relative:  # an update without rows would still wait for other processes
        change = f"UPDATE {table} SET {column} = ? WHERE rowid = ? AND {column} = ?"
        store.executemany(change, relative)


def _is_left_behind(found: re.Match) -> bool:
    """Return whether the files exist only in a folder that no project is in any more.

    An older version logged there after the project had moved away.
    """
    folder, path = _folder(found), Path(found[2])
    return (folder / path).exists() and not path.exists() and not (folder / DEFAULT_FILE).exists()
