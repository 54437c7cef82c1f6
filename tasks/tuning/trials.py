"""One worker of a search for better values of an architecture: trial after trial, of a study that all workers share.

Trains on the training images and scores on the validation images, or, with `tune.folds`, on folds of both; the test images
are not even opened. Killed, it goes on at the epoch of its trial. It changes no stage's output: the values that it finds
stand in `tune.db` until they are written to params.yaml. Run by hand: `python -m flows.tune cnn_a`.
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
from optuna.trial import TrialState
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

from tasks.errors import UserError
from tasks.imaging.bit_depth import read_bit_depth
from tasks.modeling.fitting import CHECKPOINTS, Row, Watch, load_images, tell, train
from tasks.modeling.training import DivergedError, use_threads
from tasks.params.architectures import Architecture, Classical, Transfer
from tasks.params.search_space import vary
from tasks.params.train import select_epoch
from tasks.params.whole import load_params
from tasks.stage import run
from tasks.tables import read_table
from tasks.tracking import runs
from tasks.tracking.hashes import git_revision
from tasks.tuning import study
from tasks.tuning.search import KINDS, Search, define
from tasks.tuning.study import Claim

STUDY = "tune_study"  # the tag of the run of a whole search

log = logging.getLogger(__name__)


class OutOfTimeError(Exception):
    """The time for the search is over; the trial goes on at the next start."""


@dataclass(frozen=True)
class Data:
    """The images that may be used, none of the test, and the weights of their classes."""

    clean: Path
    splits: pd.DataFrame
    weights: dict[str, float]
    bits: int | None  # of grey values


@dataclass
class Watcher:
    """Hands the scores of one fold to the study and ends the trial where it is to end: not worth more, or out of time."""

    trial: optuna.Trial
    search: Search
    fold: int
    before: list[float]  # the scores of the folds before
    deadline: float
    since: float

    def after(self, row: Row, epochs: int) -> None:
        """See one epoch. Raises `TrialPruned` and `OutOfTimeError`."""
        step = self.fold * self.search.epochs + int(row["epoch"])
        self.trial.report(statistics.fmean([*self.before, row[self.search.tune.objective]]), step)
        tell(row | {"epoch": step}, self.search.steps)
        now = time.monotonic()
        self.trial.set_user_attr(
            "seconds", round(self.trial.user_attrs.get("seconds", 0.0) + now - self.since, 2)
        )
        self.since = now
        if step == self.search.steps:
            return
        if self.trial.should_prune():
            raise optuna.TrialPruned
        if now > self.deadline:
            raise OutOfTimeError


def main(
    architecture: str,
    clean: Path,
    splits_csv: Path,
    class_weights: Path,
    decoding_json: Path,
    kind: str = KINDS[0],
    trials: int | None = None,
    minutes: float | None = None,
) -> None:
    """Run trials of the `kind` of search until there are so many, by default those of params, or the time is over."""
    logging.getLogger("tensorflow").setLevel(
        logging.ERROR
    )  # it warns of one process that trains many networks
    deadline = time.monotonic() + (math.inf if minutes is None else minutes * 60)
    params = load_params()
    bits = read_bit_depth(decoding_json)
    search = define(params, architecture, kind, splits_csv, class_weights, bits)
    data = usable(
        clean, read_table(splits_csv), json.loads(class_weights.read_text()), bits, search.section
    )
    check_folds(data.splits, search.tune.folds)
    use_threads(search.section.train.threads)
    shared = study.open_study(search)
    parent = open_parent(search)
    try:
        while time.monotonic() < deadline and (
            claim := study.claim(shared, search, trials or search.tune.trials)
        ):
            try:
                run_trial(shared, search, claim, data, parent, deadline)
            finally:
                claim.lock.release()
    except OutOfTimeError:
        log.info("the time is over: trial %d goes on at the next start", claim.trial.number)
    finally:
        close_parent(parent, shared, search)


def usable(
    clean: Path,
    splits: pd.DataFrame,
    weights: dict[str, float],
    bits: int | None,
    section: Architecture,
) -> Data:
    """Return the rows of training and validation images alone, with the classes of the architecture's question."""
    splits = splits.assign(label=splits.label.map(section.question.answers(splits.label)))
    return Data(
        clean,
        splits.query("split in ('training', 'validation')").reset_index(drop=True),
        weights,
        bits,
    )


def check_folds(splits: pd.DataFrame, folds: int | None) -> None:
    """Raise `ValueError` where a class has fewer groups of images than there are folds."""
    groups = splits.groupby("label").group.nunique()
    if folds and groups.min() < folds:
        raise UserError(
            f"tune.folds: received {folds}, expected at most {groups.min()}: the class {groups.idxmin()} has no more images "
            "that are neither copies nor of one patient"
        )


def parts(splits: pd.DataFrame, search: Search) -> list[pd.DataFrame]:
    """Return the splits of each fold: as given, or with each group of images validating once, and training otherwise."""
    if search.tune.folds is None:
        return [splits]
    folds = StratifiedGroupKFold(search.tune.folds, shuffle=True, random_state=search.tune.seed)
    held_out = [rows for _, rows in folds.split(splits.path, splits.label, splits.group)]
    return [
        splits.assign(split=np.where(splits.index.isin(rows), "validation", "training"))
        for rows in held_out
    ]


def run_trial(
    shared: optuna.Study, search: Search, claim: Claim, data: Data, parent: str, deadline: float
) -> None:
    """Train and score what the trial tries, and tell the study. Raises `OutOfTimeError`, and `UserError` where nothing will do."""
    trial, told = claim.trial, ", ".join(f"{path} {value}" for path, value in claim.values.items())
    log.info("trial %d: %s", trial.number, told)
    keras.backend.clear_session()
    with child_run(search, claim, parent):
        try:
            score, epochs = scored(search, claim, data, deadline)
        except (optuna.TrialPruned, DivergedError) as reason:
            log.info(
                "trial %d is stopped early%s", trial.number, f": {reason}" if str(reason) else ""
            )
            shared.tell(trial, state=TrialState.PRUNED)
            runs.record(lambda: mlflow.end_run("KILLED"), live=True)
        except UserError as error:
            shared.tell(trial, state=TrialState.FAIL)
            forget(search, trial)
            raise UserError(
                f"{search.architecture}, trial {trial.number} ({told}): {error}"
            ) from error
        else:
            trial.set_user_attr("epochs", epochs)
            shared.tell(trial, score)
            log.info(
                "trial %d: %s %.4f%s",
                trial.number,
                search.tune.objective,
                score,
                f", {epochs} epochs" if epochs else "",
            )
            runs.record(lambda: mlflow.log_metric("objective", score), live=True)
    forget(search, trial)


def scored(search: Search, claim: Claim, data: Data, deadline: float) -> tuple[float, int | None]:
    """Return the mean over the folds of the objective at the epoch that counts, and how many epochs training needs for it."""
    classical = isinstance(search.section.structure, Classical)
    section = vary(
        search.section, claim.values if classical else claim.values | {"epochs": search.tune.epochs}
    )
    images = load_images(
        data.clean, data.splits, data.weights, replace(section.train.form, bits=data.bits)
    )
    objective, counted = search.tune.objective, []
    for fold, splits in enumerate(parts(data.splits, search)):
        before = [row[objective] for row in counted]
        watcher = Watcher(claim.trial, search, fold, before, deadline, time.monotonic())
        watch = Watch(watcher.after, macro_f1 if objective == "val_macro_f1" else None)
        file = checkpoint(search, claim.trial, fold)
        history = train(
            section, images, splits, file, f"{file.stem} {keras.__version__}", watch
        ).history
        counted.append(counting(history, search, section))
    epochs = None if classical else needed([row["epoch"] for row in counted], section)
    return statistics.fmean(row[objective] for row in counted), epochs


def counting(history: list[Row], search: Search, section: Architecture) -> Row:
    """Return the epoch that a trial is worth: the last where training keeps that, or else the best."""
    return history[select_epoch(history, section.train, search.tune.objective)]


def needed(epochs: list[float], section: Architecture) -> int:
    """Return how many epochs to train: up to the best one, unless what comes before it would not be the same any more."""
    phased = isinstance(section.structure, Transfer) and section.structure.phases
    if phased or section.train.schedule.kind == "cosine":
        return section.train.epochs
    return math.ceil(statistics.median(epochs))


def macro_f1(targets: np.ndarray, probabilities: np.ndarray) -> Row:
    """Return the macro F1 over the classes that have images, as evaluation counts it."""
    score = f1_score(
        targets,
        probabilities.argmax(axis=1),
        labels=np.unique(targets),
        average="macro",
        zero_division=0,
    )
    return {"val_macro_f1": float(score)}


def checkpoint(search: Search, trial: optuna.Trial, fold: int) -> Path:
    """Return where the training of a fold is kept until the trial ends."""
    return CHECKPOINTS / f"tune-{search.name}-{trial.number}.fold{fold}.npz"


def forget(search: Search, trial: optuna.Trial) -> None:
    """Remove the checkpoints of a trial that has ended."""
    for file in CHECKPOINTS.glob(f"tune-{search.name}-{trial.number}.*"):
        file.unlink()


@contextmanager
def child_run(search: Search, claim: Claim, parent: str) -> Iterator[None]:
    """Open the trial's MLflow run below that of the search; a trial that was interrupted goes on in its own."""
    known = claim.trial.user_attrs.get("run")
    name = f"{search.architecture} trial {claim.trial.number}"

    def start() -> None:
        experiment = runs.open_store()
        where = (
            {"run_id": known}
            if known
            else {"run_name": name, "parent_run_id": parent, "experiment_id": experiment}
        )
        claim.trial.set_user_attr("run", mlflow.start_run(**where).info.run_id)
        mlflow.log_params({"trial": claim.trial.number, **claim.values})

    with runs.record_run(start):
        yield


def open_parent(search: Search) -> str:
    """Return the id of the MLflow run of the whole search, one for all workers and starts."""
    with FileLock(study.LOCKS / "runs.lock"):
        experiment, client = runs.open_store(), MlflowClient()
        found = client.search_runs([experiment], f"tags.{STUDY} = '{search.name}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {STUDY: search.name, "git_revision": git_revision()}
        run_id = client.create_run(
            experiment, tags=tags, run_name=f"tune {search.architecture}"
        ).info.run_id
        told = search.tune.model_dump(mode="json", exclude={"space"}) | {"search": search.kind}
        told |= {
            "space": {
                path: values.model_dump(mode="json", exclude_defaults=True)
                for path, values in search.space.items()
            }
        }
        for name, value in runs.flatten(told).items():
            client.log_param(run_id, name, value)
        return run_id


def close_parent(parent: str, shared: optuna.Study, search: Search) -> None:
    """Leave the best score and its trial in the run of the search."""
    best, client = study.winner(study.outcomes(shared, search)), MlflowClient()
    if best is not None:
        runs.attempt(lambda: client.log_metric(parent, "objective", best.score))
        runs.attempt(lambda: client.set_tag(parent, "best_trial", best.number))
    runs.attempt(lambda: client.set_terminated(parent))


if __name__ == "__main__":
    run(main)
