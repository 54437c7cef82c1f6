"""The MLflow run of an architecture's training, which later stages add to.

The store is the one that `tasks/tracking/store.py` finds; the experiment is `MLFLOW_EXPERIMENT_NAME`,
by default `image-classification`. A run is found again by the hash of the predictions that the
training wrote, so no output needs a run id.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tasks.tracking import store
from tasks.tracking.hashes import file_sha256
from tasks.tracking.keys import make_key

DEFAULT_EXPERIMENT = "image-classification"
PREDICTIONS = "predictions_sha256"
TRAINING = "training_key"

log = logging.getLogger(__name__)


def open_store() -> str:
    """Open, and where needed create, the store and the experiment; return the experiment's id."""
    uri = store.find_uri()
    mlflow.set_tracking_uri(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    found = mlflow.get_experiment_by_name(name)
    artifacts = str(store.ARTIFACTS) if uri == store.DEFAULT_URI else None
    experiment = found.experiment_id if found else mlflow.create_experiment(name, artifacts)
    store.make_places_relative()  # MLflow makes even a relative one absolute
    return experiment


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
    return mlflow.start_run(experiment_id=experiment_id, run_name=architecture, tags={PREDICTIONS: sha256})


def attempt(log_something: Callable[[], None]) -> None:
    """Log to MLflow; a store that does not answer costs a warning, never the training."""
    try:
        log_something()
    except MlflowException as error:
        log.info("warn: MLflow did not take this: %s", error)


def flatten(section: dict, prefix: str = "") -> dict[str, object]:
    """Return nested keys joined by dots, as MLflow takes them: some of them are names of classes."""
    flat: dict[str, object] = {}
    for name, value in section.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {make_key(f"{prefix}{name}"): value}
    return flat


def _newest(experiment_id: str, query: str) -> Run | None:
    runs = mlflow.search_runs([experiment_id], query, max_results=1, output_format="list")
    return runs[0] if runs else None
