"""A moved project keeps its registry, a copy has its own, a configured store stays as it is."""

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tasks.errors import UserError
from tasks.registry import versions
from tasks.tracking import runs, store
from tasks.tracking.hashes import file_sha256, folder_sha256
from tests.support import toy_registry
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow

NAME = "toy"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with one version and MLflow's absolute paths. Tests only read it."""
    root = tmp_path_factory.mktemp("places") / "My Projects" / "tumor #1"
    root.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        work_in(root, monkeypatch)
        toy_registry.register(root, {"a": "cat"}, ["cat", "dog"], [])
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, column in store.COLUMNS:
            relative = f"{column} LIKE 'mlartifacts%' OR {column} LIKE 'mlruns%'"
            database.execute(
                f"UPDATE {table} SET {column} = ? || {column} WHERE {relative}",
                (f"{root.as_uri()}/",),
            )
    return root


def work_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a project without settings.

    MLflow keeps databases open by URI, so the default store has an absolute URI here.
    """
    enter(root, monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(store, "DEFAULT_URI", f"sqlite:///{root}/mlflow.db")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def copy(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the project, which is the current folder."""
    root = tmp_path / "copy"
    shutil.copytree(project, root)
    work_in(root, monkeypatch)
    return root


@pytest.fixture
def hidden(project: Path) -> Iterator[None]:
    """Hide the original project, as if it had moved."""
    away = project.with_name("away")
    project.rename(away)
    yield
    away.rename(project)


def paths(root: Path) -> list[str]:
    with sqlite3.connect(root / "mlflow.db") as database:
        rows = [
            database.execute(f"SELECT {column} FROM {table}") for table, column in store.COLUMNS
        ]
        return [place for of_column in rows for (place,) in of_column]


def test_a_project_that_was_moved_finds_its_versions(
    project: Path, copy: Path, hidden: None
) -> None:
    runs.open_store()
    with versions.fetch(MlflowClient().get_model_version(NAME, "1")) as folder:
        assert (folder / "MLmodel").exists()
    with mlflow.start_run(experiment_id=runs.open_store()) as run:
        mlflow.log_text("new", "note.txt")
    assert [path.parts[-3] for path in copy.rglob("note.txt")] == [
        run.info.run_id
    ] and not project.exists()


def test_a_copy_never_writes_into_the_first_project(
    project: Path, copy: Path, tmp_path: Path
) -> None:
    before = folder_sha256(project)
    runs.open_store()
    client = MlflowClient()
    client.set_registered_model_alias(NAME, "champion", "1")
    (tmp_path / "thresholds.json").write_text("{}")
    versions.replace_artifact(
        client, client.get_model_version(NAME, "1"), tmp_path / "thresholds.json"
    )
    assert any(copy.rglob("thresholds.json")) and folder_sha256(project) == before


def test_paths_stay_relative_and_others_are_left_alone(copy: Path) -> None:
    elsewhere = ["s3://bucket/mlartifacts/1", "file:///mnt/big/results"]
    runs.open_store()
    for number, place in enumerate(elsewhere):
        mlflow.create_experiment(f"elsewhere {number}", place)
    runs.open_store()
    own = ("mlartifacts", "mlruns", "models:/m-")
    assert {place for place in paths(copy) if not place.startswith(own)} == set(elsewhere)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_the_user_gave_an_experiment_stays(
    there: bool, copy: Path, tmp_path: Path
) -> None:
    """The folder of a disk that is not mounted does not exist."""
    disk = tmp_path / "big disk"
    if there:
        disk.mkdir()
    runs.open_store()
    number = mlflow.create_experiment("big", f"{disk}/mlartifacts")
    with mlflow.start_run(experiment_id=number):
        pass
    before = [place for place in paths(copy) if "big" in place]
    runs.open_store()
    assert [place for place in paths(copy) if "big" in place] == before and len(before) == 2


def test_artifacts_that_an_older_version_left_behind_stay_readable(
    project: Path, copy: Path, hidden: None
) -> None:
    """It logged there after the move. New artifacts go to the present folder."""
    (moved,) = copy.glob("mlartifacts/models/*")
    there = project / moved.relative_to(copy)
    shutil.move(moved, there)
    try:
        runs.open_store()
        with versions.fetch(MlflowClient().get_model_version(NAME, "1")) as folder:
            assert (folder / "MLmodel").exists()
        assert mlflow.get_experiment(runs.open_store()).artifact_location == "mlartifacts"
    finally:
        shutil.rmtree(project)


def test_a_configured_store_is_never_changed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = (copy / "mlflow.db").rename(copy / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own}")
    before = file_sha256(own)
    runs.open_store()
    assert file_sha256(own) == before


def test_a_file_that_is_no_database_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("mlflow.db").write_text("not a database, and longer than the head of one " * 20)
    with pytest.raises(
        UserError, match="mlflow.db: expected MLflow's database, .*: file is not a database"
    ):
        store.make_paths_relative()


def test_a_writer_is_waited_for_only_if_a_path_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with closing(sqlite3.connect("mlflow.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE runs (artifact_uri)")
        other.execute("BEGIN IMMEDIATE")
        store.make_paths_relative()
        other.execute("INSERT INTO runs VALUES (?)", [f"{tmp_path}/mlartifacts/1"])
        other.execute("COMMIT")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"another process is writing mlflow.db .* run again"):
            store.make_paths_relative()
        other.execute("COMMIT")
        store.make_paths_relative()
        assert other.execute("SELECT * FROM runs").fetchall() == [("mlartifacts/1",)]


def test_a_percent_sign_in_the_path_of_the_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "tumor (50%)" / "site-packages"
    (packages / "mlflow").mkdir(parents=True)
    (packages / "mlflow/__init__.py").touch()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "mlflow")
    with pytest.raises(
        UserError, match="expected a path without a percent sign.* Rename the folder"
    ):
        store.refuse_percent_sign()
