"""Store the trials of a search as an Optuna study in `tune.db`, which several workers share.

A worker holds a file lock while it works on a trial. The operating system releases the lock however
the process ends. So a running trial whose lock is free was interrupted. A worker then resumes it
under the same number.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tasks.params.search_space import Range
from tasks.tuning.search import Search

STORE = Path("tune.db")
LOCKS = Path(".cache/tune")
MAX_STARTS = 3  # starts of a trial without a further epoch, after which it has failed
PATIENCE = 60  # seconds that a worker waits for another worker to write
WORDS = {
    "COMPLETE": "finished",
    "PRUNED": "stopped early",
    "RUNNING": "unfinished",
    "FAIL": "failed",
    "WAITING": "waiting",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A trial that belongs to this worker while it holds the lock, and the values to try."""

    trial: optuna.Trial
    values: dict[str, Any]
    lock: FileLock


@dataclass(frozen=True)
class Outcome:
    """The state of one trial.

    `score` is that of the last step if the trial is unfinished. `epochs` is the number of epochs
    that a training with these values needs.
    """

    number: int
    state: str
    step: int
    score: float | None
    epochs: int | None
    seconds: float
    values: dict[str, Any]


def open_study(search: Search) -> optuna.Study:
    """Open the study of a search, or create it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_open_storage(),
        sampler=_make_sampler(search),
        pruner=_make_pruner(search),
        study_name=search.name,
        direction="maximize" if search.maximizes else "minimize",
        load_if_exists=True,
    )


def find(search: Search) -> list[Outcome]:
    """Return the trials of a search as `rank` does; [] if it has not begun."""
    if not STORE.exists():
        return []
    try:
        return rank(optuna.load_study(storage=_open_storage(), study_name=search.name), search)
    except KeyError:
        return []


def claim(study: optuna.Study, search: Search, limit: int) -> Claim | None:
    """Resume an interrupted trial, or begin a new one; None if there are `limit` trials."""
    folder = LOCKS / search.name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "claims.lock"):
        trial = _find_interrupted(study, folder)
        if trial is None and len(study.get_trials(deepcopy=False)) < limit:
            trial = study.ask()
        if trial is None:
            return None
        lock = FileLock(folder / f"{trial.number}.lock")
        lock.acquire()
        values = {path: _suggest(trial, path, range_) for path, range_ in search.space.items()}
        return Claim(trial, values, lock)


def rank(study: optuna.Study, search: Search) -> list[Outcome]:
    """Return all trials: first the finished ones by score, then the others by their last step."""
    sign = -1 if search.maximizes else 1

    def order(one: Outcome) -> tuple[float, ...]:
        finished = one.state == WORDS["COMPLETE"]
        return (
            -math.inf if finished else -one.step,
            sign * one.score if one.score is not None else math.inf,
            one.number,
        )

    found = (_describe(trial, search) for trial in study.get_trials(deepcopy=False))
    return sorted(found, key=order)


def pick_best(found: list[Outcome]) -> Outcome | None:
    """Return the best finished trial; None if no trial has finished."""
    return found[0] if found and found[0].state == WORDS["COMPLETE"] else None


def values_to_write(best: Outcome) -> dict[str, Any]:
    """Return the values for params.yaml by dotted path, with the epochs that training needs."""
    return best.values if best.epochs is None else best.values | {"epochs": best.epochs}


class TrialSampler(BaseSampler):
    """Draw values that depend only on the seed, the number of the trial and the trials before.

    So a search that continues draws the same values as one that was never interrupted.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._number, self._inner = -1, make(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        """Do what the sampler of this trial does."""
        return self._sampler_of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Do what the sampler of this trial does."""
        return self._sampler_of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Do what the sampler of this trial does."""
        sampler = self._sampler_of(trial)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _sampler_of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            seed = int(np.random.default_rng([self._seed, trial.number]).integers(2**31))
            self._number, self._inner = trial.number, self._make(seed)
        return self._inner


def _open_storage() -> optuna.storages.RDBStorage:
    LOCKS.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCKS / "store.lock"):  # two processes cannot create the tables at once
        return optuna.storages.RDBStorage(
            f"sqlite:///{STORE}", engine_kwargs={"connect_args": {"timeout": PATIENCE}}
        )


def _make_sampler(search: Search) -> BaseSampler:
    # For Hyperband, Optuna recommends to draw values near those of good trials (Falkner et al.
    # 2018, arXiv 1807.01774).
    make = {
        "hyperband": lambda seed: TPESampler(seed=seed),
        "random": lambda seed: RandomSampler(seed=seed),
    }[search.kind]
    return TrialSampler(make, abs(search.tune.seed))


def _make_pruner(search: Search) -> optuna.pruners.BasePruner:
    """Return Hyperband's brackets of successive halvings (Li et al. 2018, arXiv 1603.06560).

    Random search trains every trial completely.
    """
    if search.kind == "random" or search.steps < search.tune.factor:
        return optuna.pruners.NopPruner()
    return optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=search.steps, reduction_factor=search.tune.factor
    )


def _find_interrupted(study: optuna.Study, folder: Path) -> optuna.Trial | None:
    """Return a running trial whose process is gone.

    A trial that was started `MAX_STARTS` times without completing a further epoch fails.
    """
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        try:
            with FileLock(folder / f"{frozen.number}.lock", blocking=False):
                last = frozen.last_step
        except Timeout:
            continue
        starts = [step for step in frozen.user_attrs.get("starts", []) if step == last]
        if len(starts) >= MAX_STARTS:
            log.info(
                "trial %d has failed: it was started %d times and completed no further epoch",
                frozen.number,
                MAX_STARTS + 1,
            )
            study.tell(frozen.number, state=TrialState.FAIL)
            continue
        trial = optuna.Trial(study, frozen._trial_id)  # Optuna has no public way to resume a trial
        trial.set_user_attr("starts", [*starts, last])
        log.info("trial %d was interrupted after %d epochs: resuming", frozen.number, last or 0)
        return trial
    return None


def _suggest(trial: optuna.Trial, path: str, values: Range) -> Any:
    if values.low is None:
        drawn = trial.suggest_categorical(path, [_as_scalar(choice) for choice in values.choices])
    elif values.whole:
        drawn = trial.suggest_int(
            path, values.low, values.high, step=values.step or 1, log=values.log
        )
    else:
        drawn = trial.suggest_float(path, values.low, values.high, step=values.step, log=values.log)
    return _round(values, drawn)


def _round(values: Range, drawn: Any) -> Any:
    """Return the value to try for a drawn value: a choice, or a number that is short to read."""
    if values.low is None:
        return next(choice for choice in values.choices if _as_scalar(choice) == drawn)
    if values.whole:
        return drawn
    rounded = float(f"{drawn:.10g}" if values.step else f"{drawn:.3g}")
    return min(max(rounded, values.low), values.high)


def _as_scalar(choice: Any) -> Any:
    """Return a choice as Optuna stores it: a list or a mapping becomes text."""
    return json.dumps(choice) if isinstance(choice, list | tuple | Mapping) else choice


def _describe(trial: FrozenTrial, search: Search) -> Outcome:
    last = trial.intermediate_values.get(trial.last_step)
    return Outcome(
        number=trial.number,
        state=WORDS[trial.state.name],
        step=trial.last_step or 0,
        score=trial.value if trial.value is not None else last,
        epochs=trial.user_attrs.get("epochs"),
        seconds=trial.user_attrs.get("seconds", 0.0),
        values={
            path: _round(values, trial.params[path])
            for path, values in search.space.items()
            if path in trial.params
        },
    )
