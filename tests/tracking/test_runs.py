"""Later stages find a training's run by its predictions; no training fails for lack of a store."""

import logging
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from tasks.errors import UserError
from tasks.tracking import runs
from tasks.tracking.hashes import git_revision
from tasks.tracking.keys import make_key
from tasks.tracking.servers import find_free_port
from tests.support.names import ODD
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the experiment of the default store in the current folder."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        yield runs.open_store()


def test_without_settings_everything_is_in_the_current_folder(experiment: str) -> None:
    with mlflow.start_run(experiment_id=experiment):
        mlflow.log_text("kept", "note.txt")
    assert sorted(path.name for path in Path().iterdir() if "db-" not in path.name) == [
        "mlartifacts",
        "mlflow.db",
    ]
    assert [path.read_text() for path in Path().rglob("note.txt")] == ["kept"]
    assert mlflow.get_experiment(experiment).name == "image-classification"
    assert runs.open_store() == experiment


def test_the_experiment_may_be_named(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    another = runs.open_store()
    assert another != experiment and mlflow.get_experiment(another).name == "another"


def test_a_run_is_found_by_its_predictions(experiment: str) -> None:
    for name in ("first", "second"):
        with mlflow.start_run(
            experiment_id=experiment, run_name=name, tags={runs.PREDICTIONS: "abc"}
        ):
            pass
    assert runs.find_run(experiment, "abc").info.run_name == "second"
    assert runs.find_run(experiment, "abd") is None


def test_only_a_training_that_did_not_end_is_unfinished(experiment: str) -> None:
    assert runs.find_unfinished_run(experiment, "key") is None
    with mlflow.start_run(experiment_id=experiment, tags={runs.TRAINING: "key"}) as run:
        pass
    assert runs.find_unfinished_run(experiment, "key").info.run_id == run.info.run_id
    assert runs.find_unfinished_run(experiment, "other") is None
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.set_tag(runs.PREDICTIONS, "abc")
    assert runs.find_unfinished_run(experiment, "key") is None


def test_a_later_stage_goes_on_in_the_run_of_the_training(experiment: str, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions.csv"
    predictions.write_text("path,label\n")
    with runs.continue_run("tiny", predictions) as first:
        pass
    with runs.continue_run("tiny", predictions) as again:
        pass
    assert first.info.run_id == again.info.run_id and first.info.run_name == "tiny"
    predictions.write_text("path,label\na,b\n")
    with runs.continue_run("tiny", predictions) as other:
        assert other.info.run_id != first.info.run_id


def test_the_store_accepts_a_metric_and_a_parameter_of_every_name(experiment: str) -> None:
    keys = {make_key(f"test_recall_{name}") for name in ODD}
    asked = runs.flatten({"labels": dict.fromkeys(ODD, "x")})
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_metrics(dict.fromkeys(keys, 0.5))
        mlflow.log_params(asked)
    data = mlflow.get_run(run.info.run_id).data
    assert (
        set(data.metrics) == keys
        and set(data.params) == set(asked)
        and len(keys) == len(asked) == len(ODD)
    )


def test_a_store_that_does_not_answer_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise MlflowException("the store is gone")

    with caplog.at_level(logging.INFO):
        runs.attempt(fail)
    assert "warn: MLflow refused this: the store is gone" in caplog.text


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server that is gone."""
    address = f"http://me:secret@127.0.0.1:{find_free_port('127.0.0.1', 20_000)}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    yield address
    mlflow.set_tracking_uri(None)


def test_an_unreachable_server_costs_a_warning_and_no_training(
    experiment: str, unreachable: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = tmp_path / "predictions.csv"
    predictions.write_text("path,label\n")
    with (
        caplog.at_level(logging.INFO),
        runs.record_run(lambda: runs.continue_run("tiny", predictions)),
    ):
        runs.record(lambda: mlflow.log_metric("loss", 1))
        assert mlflow.active_run() is None
    assert (
        caplog.text.count("warn: ") == 1
        and "`unset MLFLOW_TRACKING_URI`" in caplog.text
        and "secret" not in caplog.text
    )


def test_a_stage_that_needs_the_store_fails_at_once(experiment: str, unreachable: str) -> None:
    with pytest.raises(
        runs.UnreachableError,
        match=r"MLFLOW_TRACKING_URI \(environment\) is http://\*\*\*@.*no server answers",
    ):
        runs.open_store()


def test_a_store_that_stops_answering_is_left(
    experiment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the training does not wait for it again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runs.open_store()
    with (
        caplog.at_level(logging.INFO),
        runs.record_run(lambda: mlflow.start_run(experiment_id=experiment)),
    ):
        mlflow.set_tracking_uri(f"http://me:secret@127.0.0.1:{find_free_port('127.0.0.1', 20_000)}")
        for _ in range(2):
            runs.record(lambda: mlflow.log_metric("loss", 1))
    mlflow.set_tracking_uri(None)
    assert "secret" not in caplog.text
    assert caplog.text.count("does not answer any more. Going on") == 1


def test_a_refusal_is_an_error_except_in_a_training(
    experiment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """For example, the server no longer knows the key."""

    def refuse() -> None:
        raise MlflowException("token=abc is no key", error_code="PERMISSION_DENIED")

    with (
        caplog.at_level(logging.INFO),
        runs.record_run(lambda: mlflow.start_run(experiment_id=experiment)),
    ):
        runs.record(refuse, live=True)
        assert "warn: MLflow refused this" in caplog.text and mlflow.active_run() is not None
        with pytest.raises(runs.RefusedError, match="MLflow refused this"):
            runs.record(refuse)
    with pytest.raises(runs.RefusedError), runs.record_run(refuse):
        pass


def test_runs_are_recorded_without_the_registry(
    experiment: str, unreachable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", unreachable)
    assert runs.open_store() == experiment
    with pytest.raises(runs.UnreachableError, match="MLFLOW_REGISTRY_URI"):
        runs.refuse_unreachable()


def test_a_newer_store_on_a_server_cannot_be_set_aside() -> None:
    told = runs.describe_refusal(
        "postgresql://me:secret@db/mlflow", "Can't locate revision identified by 'ffffffffffff'"
    )
    assert (
        "set MLFLOW_TRACKING_URI to another store" in told
        and "mv " not in told
        and "secret" not in told
    )
    assert "(mv own.db own.db.newer)" in runs.describe_refusal(
        "sqlite:///own.db", "found version ffffffffffff"
    )


def test_a_run_ends_with_the_status_of_its_block(experiment: str) -> None:
    for error, status in ((None, "FINISHED"), (UserError("diverged"), "FAILED")):
        with (
            suppress(UserError),
            runs.record_run(lambda: mlflow.start_run(experiment_id=experiment)),
        ):
            run = mlflow.active_run().info.run_id
            if error:
                raise error
        assert mlflow.get_run(run).info.status == status


def test_a_newer_or_an_older_store_is_reported_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = "0a8213491aaa"  # an early revision of MLflow
    for revision, remedy in (
        ("ffffffffffff", "was written by a newer mlflow than"),
        (known, "`mlflow db upgrade 'sqlite:///"),
    ):
        enter(tmp_path, monkeypatch)
        with closing(sqlite3.connect("mlflow.db")) as database, database:
            database.execute("update alembic_version set version_num = ?", [revision])
        with pytest.raises(UserError, match=remedy):
            runs.open_store()


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(KeyError):
        runs.attempt(lambda: {}["key"])


def test_the_revision_is_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() == ""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    (tmp_path / "a").write_text("a")
    for command in (["init", "-q"], ["add", "a"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert git_revision() == commit
    (tmp_path / "a").write_text("b")
    assert git_revision() == f"{commit}-dirty"
