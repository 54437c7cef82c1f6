"""Run one worker of a search for better values of an architecture: one trial after another.

All workers share one study. A trial trains on the training images and is scored on the validation
images or, with `tune.folds`, on folds of both. The test images are not even opened. A worker that
was killed resumes at the epoch of its trial. No stage's output changes: the values stay in
`tune.db` until they are written to params.yaml. Run by hand: `python -m flows.tune cnn_a`.
"""

import json
import logging
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from numpy.typing import NDArray
from optuna.trial import TrialState
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

from tasks.errors import UserError
from tasks.imaging.bit_depth import read_bit_depth
from tasks.modeling import checkpoints
from tasks.modeling.checkpoints import Checkpoint, Row
from tasks.modeling.epoch_log import EpochLog
from tasks.modeling.images import load_images
from tasks.modeling.kinds import train
from tasks.modeling.training import DivergedError, Watch, use_threads
from tasks.params.architectures import Architecture
from tasks.params.train import select_epoch
from tasks.params.whole import load_params
from tasks.stage import run
from tasks.tables import read_table
from tasks.tracking import runs
from tasks.tracking.hashes import git_revision
from tasks.tuning import study
from tasks.tuning.search import KINDS, Inputs, Search, define
from tasks.tuning.study import Claim

STUDY = "tune_study"  # the tag of the MLflow run of a whole search

log = logging.getLogger(__name__)


class OutOfTimeError(Exception):
    """The time for the search is over; the trial resumes at the next start."""


@dataclass(frozen=True)
class Options:
    """The architecture, the files to read, the kind of search, and its limits.

    `trials` is the number of trials over all workers and starts, by default `tune.trials`.
    `minutes` limits this worker.
    """

    architecture: str
    clean: Path
    splits_csv: Path
    class_weights: Path
    decoding_json: Path
    kind: str = KINDS[0]
    trials: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Data:
    """The training and validation images, the weights of their classes, and their grey bits."""

    clean: Path
    splits: pd.DataFrame
    weights: dict[str, float]
    bits: int | None


@dataclass(frozen=True)
class Worker:
    """The facts that all trials of a worker share: `parent` is the MLflow run of the search."""

    study: optuna.Study
    search: Search
    data: Data
    parent: str
    deadline: float


@dataclass
class FoldWatcher:
    """Reports the scores of one fold to the study, and ends a trial that is poor or out of time."""

    trial: optuna.Trial
    search: Search
    fold: int
    before: list[float]  # the scores of the folds before
    deadline: float
    since: float
    log: EpochLog

    def report(self, row: Row, epochs: int) -> None:
        """Report one epoch. Raises `TrialPruned` and `OutOfTimeError`."""
        step = self.fold * self.search.epochs + int(row["epoch"])
        self.trial.report(statistics.fmean([*self.before, row[self.search.tune.objective]]), step)
        self.log.write_epoch(row | {"epoch": step}, self.search.steps)
        now = time.monotonic()
        seconds = self.trial.user_attrs.get("seconds", 0.0) + now - self.since
        self.trial.set_user_attr("seconds", round(seconds, 2))
        self.since = now
        if step == self.search.steps:
            return
        if self.trial.should_prune():
            raise optuna.TrialPruned
        if now > self.deadline:
            raise OutOfTimeError


def main(options: Options) -> None:
    """Run trials until there are enough, or until the time is over."""
    minutes = math.inf if options.minutes is None else options.minutes
    deadline = time.monotonic() + minutes * 60
    params, bits = load_params(), read_bit_depth(options.decoding_json)
    inputs = Inputs(options.splits_csv, options.class_weights, bits)
    search = define(params, options.architecture, options.kind, inputs)
    data = load_data(options, search.section, bits)
    check_folds(data.splits, search.tune.folds)
    use_threads(search.section.train.threads)
    shared = study.open_study(search)
    worker = Worker(shared, search, data, open_search_run(search), deadline)
    try:
        run_trials(worker, options.trials or search.tune.trials)
    finally:
        close_search_run(worker)


def run_trials(worker: Worker, limit: int) -> None:
    """Run trials until the search has `limit` of them, or until the deadline."""
    while time.monotonic() < worker.deadline:
        claim = study.claim(worker.study, worker.search, limit)
        if claim is None:
            return
        try:
            run_trial(worker, claim)
        except OutOfTimeError:
            log.info("the time is over: trial %d resumes at the next start", claim.trial.number)
            return
        finally:
            claim.lock.release()


def load_data(options: Options, section: Architecture, bits: int | None) -> Data:
    """Read the rows of training and validation images, with the classes of the question."""
    splits = read_table(options.splits_csv)
    splits = splits.assign(label=splits.label.map(section.question.map_folders(splits.label)))
    usable = splits.query("split in ('training', 'validation')").reset_index(drop=True)
    return Data(options.clean, usable, json.loads(options.class_weights.read_text()), bits)


def check_folds(splits: pd.DataFrame, folds: int | None) -> None:
    """Raise `UserError` if a class has fewer groups of images than there are folds."""
    groups = splits.groupby("label").group.nunique()
    if folds and groups.min() < folds:
        raise UserError(
            f"tune.folds: received {folds}, expected at most {groups.min()}: the class "
            f"{groups.idxmin()} has no more images that are neither duplicates nor of one patient"
        )


def split_folds(splits: pd.DataFrame, search: Search) -> list[pd.DataFrame]:
    """Return the splits of each fold; without folds, the given splits.

    Each group of images validates in one fold and trains in the others.
    """
    if search.tune.folds is None:
        return [splits]
    folds = StratifiedGroupKFold(search.tune.folds, shuffle=True, random_state=search.tune.seed)
    held_out = [rows for _, rows in folds.split(splits.path, splits.label, splits.group)]
    return [
        splits.assign(split=np.where(splits.index.isin(rows), "validation", "training"))
        for rows in held_out
    ]


def run_trial(worker: Worker, claim: Claim) -> None:
    """Train and score one trial, and report the result to the study.

    Raises `OutOfTimeError`, and `UserError` if no training is possible with the values.
    """
    search, trial = worker.search, claim.trial
    values = ", ".join(f"{path} {value}" for path, value in claim.values.items())
    log.info("trial %d: %s", trial.number, values)
    keras.backend.clear_session()
    with open_trial_run(worker, claim):
        try:
            score, epochs = score_trial(worker, claim)
        except (optuna.TrialPruned, DivergedError) as reason:
            why = f": {reason}" if str(reason) else ""
            log.info("trial %d is stopped early%s", trial.number, why)
            worker.study.tell(trial, state=TrialState.PRUNED)
            runs.record(lambda: mlflow.end_run("KILLED"), live=True)
        except UserError as error:
            worker.study.tell(trial, state=TrialState.FAIL)
            remove_checkpoints(search, trial)
            raise UserError(
                f"{search.architecture}, trial {trial.number} ({values}): {error}"
            ) from error
        else:
            trial.set_user_attr("epochs", epochs)
            worker.study.tell(trial, score)
            needed = f", {epochs} epochs" if epochs else ""
            log.info("trial %d: %s %.4f%s", trial.number, search.tune.objective, score, needed)
            runs.record(lambda: mlflow.log_metric("objective", score), live=True)
    remove_checkpoints(search, trial)


def score_trial(worker: Worker, claim: Claim) -> tuple[float, int | None]:
    """Return the mean score over the folds, and the epochs that a training needs.

    The score of a fold is the score of its selected epoch. The epochs are None for a model that is
    not trained in epochs.
    """
    search, data = worker.search, worker.data
    section, objective = search.apply(claim.values), search.tune.objective
    form = replace(section.train.form, bits=data.bits)
    images = load_images(data.clean, data.splits, data.weights, form)
    epochs, selected = EpochLog(f"tune@{search.architecture}", objective), list[Row]()
    for fold, splits in enumerate(split_folds(data.splits, search)):
        before = [row[objective] for row in selected]
        now = time.monotonic()
        watcher = FoldWatcher(claim.trial, search, fold, before, worker.deadline, now, epochs)
        watch = Watch(watcher.report, macro_f1 if objective == "val_macro_f1" else None)
        checkpoint = find_checkpoint(search, claim.trial, fold)
        history = train(section, images, splits, checkpoint, watch).history
        selected.append(select_row(history, search, section))
    score = statistics.fmean(row[objective] for row in selected)
    if not section.structure.in_epochs:
        return score, None
    return score, count_epochs([row["epoch"] for row in selected], section)


def select_row(history: list[Row], search: Search, section: Architecture) -> Row:
    """Return the epoch that scores the trial: the best, or the last if training keeps that."""
    return history[select_epoch(history, section.train, search.tune.objective)]


def count_epochs(best: list[float], section: Architecture) -> int:
    """Return how many epochs to train: usually the median of the folds' `best` epochs.

    With a cosine schedule or with phases, the epochs before the best one depend on the number of
    all epochs. So that number stays.
    """
    if section.structure.later_epochs or section.train.schedule.kind == "cosine":
        return section.train.epochs
    return math.ceil(statistics.median(best))


def macro_f1(targets: NDArray[np.int32], probabilities: NDArray[np.float32]) -> Row:
    """Return the macro F1 over the classes that have images, as evaluation computes it."""
    score = f1_score(
        targets,
        probabilities.argmax(axis=1),
        labels=np.unique(targets),
        average="macro",
        zero_division=0,
    )
    return {"val_macro_f1": float(score)}


def find_checkpoint(search: Search, trial: optuna.Trial, fold: int) -> Checkpoint:
    """Return the checkpoint of a fold, which stays until the trial ends."""
    name = f"tune-{search.name}-{trial.number}.fold{fold}"
    return Checkpoint(checkpoints.FOLDER / f"{name}.npz", f"{name} {keras.__version__}")


def remove_checkpoints(search: Search, trial: optuna.Trial) -> None:
    """Remove the checkpoints of a trial that has ended."""
    for file in checkpoints.FOLDER.glob(f"tune-{search.name}-{trial.number}.*"):
        file.unlink()


@contextmanager
def open_trial_run(worker: Worker, claim: Claim) -> Iterator[None]:
    """Open the trial's MLflow run below the search's run; an interrupted trial keeps its run."""
    known = claim.trial.user_attrs.get("run")

    def start() -> None:
        experiment = runs.open_store()
        if known:
            started = mlflow.start_run(run_id=known)
        else:
            started = mlflow.start_run(
                run_name=f"{worker.search.architecture} trial {claim.trial.number}",
                parent_run_id=worker.parent,
                experiment_id=experiment,
            )
        claim.trial.set_user_attr("run", started.info.run_id)
        mlflow.log_params({"trial": claim.trial.number, **claim.values})

    with runs.record_run(start):
        yield


def open_search_run(search: Search) -> str:
    """Return the id of the MLflow run of the search, which all workers and starts share."""
    with FileLock(study.LOCKS / "runs.lock"):
        experiment, client = runs.open_store(), MlflowClient()
        found = client.search_runs([experiment], f"tags.{STUDY} = '{search.name}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {STUDY: search.name, "git_revision": git_revision()}
        name = f"tune {search.architecture}"
        run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        space = {
            path: values.model_dump(mode="json", exclude_defaults=True)
            for path, values in search.space.items()
        }
        params = search.tune.model_dump(mode="json", exclude={"space"})
        for key, value in runs.flatten(params | {"search": search.kind, "space": space}).items():
            client.log_param(run_id, key, value)
        return run_id


def close_search_run(worker: Worker) -> None:
    """Log the best score and its trial to the run of the search, and end the run."""
    best = study.pick_best(study.rank(worker.study, worker.search))
    client = MlflowClient()
    if best is not None:
        runs.attempt(lambda: client.log_metric(worker.parent, "objective", best.score))
        runs.attempt(lambda: client.set_tag(worker.parent, "best_trial", best.number))
    runs.attempt(lambda: client.set_terminated(worker.parent))


if __name__ == "__main__":
    run(main)
