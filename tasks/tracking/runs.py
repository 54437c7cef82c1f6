"""The MLflow run of an architecture's training. Later stages log to the same run.

`tasks/tracking/store.py` finds the store. The experiment is `MLFLOW_EXPERIMENT_NAME`, by default
`image-classification`. A later stage finds the run by the SHA-256 of the training's predictions,
so that no output of a stage holds a run id.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DatabaseError

from tasks.errors import UserError
from tasks.tracking import servers, store
from tasks.tracking.hashes import file_sha256
from tasks.tracking.keys import make_key

DEFAULT_EXPERIMENT = "image-classification"
REGISTRY_VARIABLE = "MLFLOW_REGISTRY_URI"
PREDICTIONS = "predictions_sha256"
TRAINING = "training_key"
NOTE = "mlflow.note.content"  # the tag that MLflow shows as description
EXPERIMENT_NOTE = "Each run is one training of an architecture. Later stages log to the same run."
RUN_NOTE = """\
| metrics | meaning |
|---|---|
| `epoch/…` | one point per epoch, on training and validation images |
| `train_…`, `val_…`, `test_…` | scores of the kept epoch, after calibration |
| `…_low`, `…_high` | 95 % interval of a score |
| `…_before` | before calibration |
| `test_without_copies_…` | without test images that copy training images |

The report of the run has the figures and explanations.
"""
BUSY = "TEMPORARILY_UNAVAILABLE"  # MLflow's code for a database that another process is writing

log = logging.getLogger(__name__)


class UnreachableError(UserError):
    """No server answers at MLFLOW_TRACKING_URI; it may be back later."""


class RefusedError(UserError):
    """MLflow's store answered, but refused the data: a permission, a key or a name is wrong."""


def open_store() -> str:
    """Open the store and the experiment, create them if needed, and return the experiment's id.

    Raises `UnreachableError` if no server answers, and `UserError` if the store cannot be used.
    """
    uri = store.find_uri()
    refuse_unreachable(store.VARIABLE)
    mlflow.set_tracking_uri(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    artifacts = str(store.ARTIFACTS) if uri == store.DEFAULT_URI else None
    try:
        experiment = _find_or_create_experiment(name, artifacts)
    except (MlflowException, DatabaseError) as error:
        raise UserError(describe_refusal(uri, str(error))) from error
    store.make_paths_relative()  # MLflow stores even a relative path as an absolute one
    return experiment


def _find_or_create_experiment(name: str, artifacts: str | None) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        return mlflow.create_experiment(name, artifacts, tags={NOTE: EXPERIMENT_NOTE})
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"the experiment {name} is deleted. Restore it with `mlflow experiments restore "
            f"-x {found.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return found.experiment_id


def refuse_unreachable(*names: str) -> None:
    """Raise `UnreachableError` if no server answers at an address that the user configured.

    MLflow itself would retry for minutes. `names` are environment variables, by default those of
    the store and of the registry. To record a run, the store is enough.
    """
    for name in names or (store.VARIABLE, REGISTRY_VARIABLE):
        address = os.environ.get(name, "")
        if why := servers.explain_unreachable(address):
            problem = servers.describe_unreachable(name, address, "environment", why)
            raise UnreachableError(
                f"{problem}. Start that server, or `unset {name}` to use {store.DEFAULT_FILE} of "
                "this folder for runs and registry"
            )


def describe_refusal(uri: str, message: str) -> str:
    """Describe why a store that exists cannot be used, and what to do."""
    shown, first = servers.mask_secrets(uri), message.strip().partition("\n")[0]
    found = re.search(r"found version (\w+)|Can't locate revision identified by '(\w+)'", message)
    if found is None:
        return f"MLflow's store {shown} cannot be used: {servers.mask_secrets(first)}"
    if servers.knows_revision("mlflow", found[1] or found[2]):
        return f"an older MLflow wrote {shown}: copy it, then run `mlflow db upgrade '{shown}'`"
    file = uri.removeprefix(store.SQLITE)
    remedy = (
        f"set {store.VARIABLE} to another store"
        if file == uri
        else f"{servers.advise_aside(file)}: the next run creates a new one"
    )
    return servers.describe_newer(shown, "mlflow", remedy)


@contextmanager
def record_run(start: Callable[[], object]) -> Iterator[None]:
    """Keep the MLflow run open that `start` opens, and end it with the status of the block.

    If the store cannot be reached, log a warning and go on without a run: a training never fails
    for that reason. Raises `RefusedError` if the store answers and refuses.
    """
    try:
        start()
    except (UnreachableError, MlflowException) as error:
        known = isinstance(error, UnreachableError)
        if not known and not is_unreachable():
            raise RefusedError(_describe_refused(error)) from error
        why = str(error) if known else "MLflow's store does not answer any more"
        leave_store(f"{why}. The stage `register` will need it")
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        record(lambda: mlflow.end_run(status), live=True)


def leave_store(why: str) -> None:
    """Go on without a store: log one warning, and close the open run."""
    log.info("warn: %s. Going on without a record in MLflow", why)
    with suppress(MlflowException):
        mlflow.end_run()


def is_unreachable() -> bool:
    """Return whether the store does not answer at all."""
    return servers.explain_unreachable(mlflow.get_tracking_uri()) is not None


def find_run(experiment_id: str, predictions_sha256: str) -> Run | None:
    """Return the newest run whose training wrote these predictions."""
    return _find_newest(experiment_id, f"tags.{PREDICTIONS} = '{predictions_sha256}'")


def find_unfinished_run(experiment_id: str, training_key: str) -> Run | None:
    """Return the newest run of this training if the training was killed before its end."""
    run = _find_newest(experiment_id, f"tags.{TRAINING} = '{training_key}'")
    return run if run is not None and PREDICTIONS not in run.data.tags else None


def continue_run(architecture: str, predictions: Path) -> mlflow.ActiveRun:
    """Open the run that wrote `predictions`. A new store has no such run, and gets one."""
    experiment_id = open_store()
    sha256 = file_sha256(predictions)
    run = find_run(experiment_id, sha256)
    if run is None:
        tags = {PREDICTIONS: sha256, NOTE: RUN_NOTE}
        return mlflow.start_run(experiment_id=experiment_id, run_name=architecture, tags=tags)
    continued = mlflow.start_run(run_id=run.info.run_id)
    if NOTE not in run.data.tags:
        mlflow.set_tag(NOTE, RUN_NOTE)
    return continued


def record(log_something: Callable[[], object], live: bool = False) -> None:
    """Log to the open run, if there is one.

    If the store stops answering, close the run: nothing waits for the store again. Raises
    `RefusedError` if the store refuses the data. During a training (`live`) a refusal is only a
    warning, because an error would lose hours of work.
    """
    if mlflow.active_run() is None:
        return
    try:
        log_something()
    except MlflowException as error:
        if is_unreachable():
            leave_store("MLflow's store does not answer any more")
        elif live or error.error_code == BUSY:
            log.info("warn: %s", _describe_refused(error))
        else:
            raise RefusedError(_describe_refused(error)) from error


def attempt(log_something: Callable[[], object]) -> None:
    """Log to MLflow, with or without a run. A refusal is only a warning."""
    try:
        log_something()
    except (MlflowException, RefusedError) as error:
        log.info("warn: %s", error if isinstance(error, RefusedError) else _describe_refused(error))


def _describe_refused(error: Exception) -> str:
    return f"MLflow refused this: {servers.mask_secrets(str(error).partition(chr(10))[0])}"


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return a section's nested keys joined by dots, as keys that MLflow accepts."""
    flat: dict[str, object] = {}
    for name, value in section.items():
        flat |= (
            flatten(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {make_key(f"{prefix}{name}"): value}
        )
    return flat


def _find_newest(experiment_id: str, query: str) -> Run | None:
    runs = mlflow.search_runs([experiment_id], query, max_results=1, output_format="list")
    return runs[0] if runs else None
