"""The MLflow run of an architecture's training, which later stages add to.

The store is the one that `tasks/tracking/store.py` finds; the experiment is `MLFLOW_EXPERIMENT_NAME`,
by default `image-classification`. A run is found again by the hash of the predictions that the
training wrote, so no output needs a run id.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DatabaseError

from tasks.errors import UserError
from tasks.tracking import servers, store
from tasks.tracking.hashes import file_sha256
from tasks.tracking.keys import make_key

DEFAULT_EXPERIMENT = "image-classification"
PREDICTIONS = "predictions_sha256"
TRAINING = "training_key"
BUSY = "TEMPORARILY_UNAVAILABLE"  # what MLflow calls a database that another process is writing

log = logging.getLogger(__name__)


class AwayError(UserError):
    """Nothing answers where MLFLOW_TRACKING_URI points to; that may pass by itself."""


class RefusedError(UserError):
    """MLflow's store answers, and did not take what was logged: a right, a key or a name is wrong."""


def open_store() -> str:
    """Open, and where needed create, the store and the experiment; return the experiment's id.

    Raises `AwayError` where no server answers, and `UserError` for a store that cannot be used.
    """
    uri = store.find_uri()
    refuse_silence(store.VARIABLE)
    mlflow.set_tracking_uri(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    try:
        experiment = _have_experiment(
            name, str(store.ARTIFACTS) if uri == store.DEFAULT_URI else None
        )
    except (MlflowException, DatabaseError) as error:
        raise UserError(describe_refusal(uri, str(error))) from error
    store.make_places_relative()  # MLflow makes even a relative one absolute
    return experiment


def _have_experiment(name: str, artifacts: str | None) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        return mlflow.create_experiment(name, artifacts)
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"the experiment {name} is deleted: `mlflow experiments restore -x {found.experiment_id}` brings it back, "
            "MLFLOW_EXPERIMENT_NAME names another"
        )
    return found.experiment_id


def refuse_silence(*names: str) -> None:
    """Raise `AwayError` where nothing answers at what the user set: MLflow itself would ask for minutes.

    Without names, who uses the registry asks for that too; runs are recorded without it.
    """
    for name in names or (store.VARIABLE, "MLFLOW_REGISTRY_URI"):
        address = os.environ.get(name, "")
        if why := servers.why_silent(address):
            told = servers.describe_silence(name, address, "environment", why)
            raise AwayError(
                f"{told}. Start that server, or `unset {name}`: runs and registry are in mlflow.db then"
            )


def describe_refusal(uri: str, said: str) -> str:
    """Return in words why a store that is there cannot be used, and what to do."""
    shown, first = servers.masked(uri), said.strip().partition("\n")[0]
    revision = re.search(r"found version (\w+)|Can't locate revision identified by '(\w+)'", said)
    if revision is None:
        return f"MLflow's store {shown} cannot be used: {servers.masked(first)}"
    if servers.knows("mlflow", revision[1] or revision[2]):
        return f"{shown} is of an older MLflow: copy it, then `mlflow db upgrade '{shown}'`"
    file = uri.removeprefix("sqlite:///")
    aside = f"set it aside (mv {file} {file}.newer): the next run begins a new one"
    another = f"have {store.VARIABLE} name another store"
    return servers.describe_newer(shown, "mlflow", another if file == uri else aside)


@contextmanager
def recorded(start: Callable[[], object]) -> Iterator[None]:
    """Have an MLflow run open, or none where the store is away: that costs a warning, never the training.

    Raises `RefusedError` where the store answers and refuses.
    """
    try:
        start()
    except (AwayError, MlflowException) as error:
        if not isinstance(error, AwayError) and not is_away():
            raise RefusedError(_describe_refused(error)) from error
        why = (
            str(error)
            if isinstance(error, AwayError)
            else "MLflow's store does not answer any more"
        )
        leave_store(f"{why}. The stage `register` will need it")
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        record(lambda: mlflow.end_run(status), live=True)


def leave_store(why: str) -> None:
    """Go on without a store: say so once, and forget the run that may be open."""
    log.info("warn: %s. This goes on; it is not recorded", why)
    with suppress(MlflowException):
        mlflow.end_run()


def is_away() -> bool:
    """Say whether it is the store that does not answer, rather than a thing that it refused."""
    return servers.why_silent(mlflow.get_tracking_uri()) is not None


def find_run(experiment_id: str, predictions_sha256: str) -> Run | None:
    """Return the newest run whose training wrote these predictions."""
    return _newest(experiment_id, f"tags.{PREDICTIONS} = '{predictions_sha256}'")


def find_unfinished_run(experiment_id: str, training_key: str) -> Run | None:
    """Return the newest run of this training if it was killed before its end."""
    run = _newest(experiment_id, f"tags.{TRAINING} = '{training_key}'")
    return run if run is not None and PREDICTIONS not in run.data.tags else None


def continue_run(architecture: str, predictions: Path) -> mlflow.ActiveRun:
    """Open the run that wrote `predictions`; a store that has none, as a fresh one, gets a new run."""
    experiment_id = open_store()
    sha256 = file_sha256(predictions)
    run = find_run(experiment_id, sha256)
    if run is not None:
        return mlflow.start_run(run_id=run.info.run_id)
    return mlflow.start_run(
        experiment_id=experiment_id, run_name=architecture, tags={PREDICTIONS: sha256}
    )


def record(log_something: Callable[[], object], live: bool = False) -> None:
    """Log to the run that is open, if one is; where the store has gone away, close it, so that nothing more waits for it.

    Raises `RefusedError` where the store refuses; in a training (`live`) that costs a warning, since hours hang on it.
    """
    if mlflow.active_run() is None:
        return
    try:
        log_something()
    except MlflowException as error:
        if is_away():
            leave_store("MLflow's store does not answer any more")
        elif live or error.error_code == BUSY:
            log.info("warn: %s", _describe_refused(error))
        else:
            raise RefusedError(_describe_refused(error)) from error


def attempt(log_something: Callable[[], object]) -> None:
    """Log to MLflow, with or without a run; what it does not take costs a warning."""
    try:
        log_something()
    except (MlflowException, RefusedError) as error:
        log.info("warn: %s", error if isinstance(error, RefusedError) else _describe_refused(error))


def _describe_refused(error: MlflowException) -> str:
    return f"MLflow did not take this: {servers.masked(str(error).partition(chr(10))[0])}"


def flatten(section: dict, prefix: str = "") -> dict[str, object]:
    """Return nested keys joined by dots, as MLflow takes them: some of them are names of classes."""
    flat: dict[str, object] = {}
    for name, value in section.items():
        flat |= (
            flatten(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {make_key(f"{prefix}{name}"): value}
        )
    return flat


def _newest(experiment_id: str, query: str) -> Run | None:
    runs = mlflow.search_runs([experiment_id], query, max_results=1, output_format="list")
    return runs[0] if runs else None
