"""The memory of a search: an Optuna study in `tune.db`, shared by its workers, that no kill loses.

Who works on a trial holds its lock, which the operating system gives back however the process ends: a running trial whose
lock is free was interrupted, and is taken up again under its own number.
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
STARTS = 3  # of a trial that does not get on, before it is given up
PATIENCE = 60  # seconds that one worker waits for another to write
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
    """A trial that is ours while the lock is held, and what it tries."""

    trial: optuna.Trial
    values: dict[str, Any]
    lock: FileLock


@dataclass(frozen=True)
class Outcome:
    """One trial as it stands; `score` is that of its last step where it did not finish, `epochs` what training needs for it."""

    number: int
    state: str
    step: int
    score: float | None
    epochs: int | None
    seconds: float
    values: dict[str, Any]


def open_study(search: Search) -> optuna.Study:
    """Open the study, or begin it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = "maximize" if search.maximizes else "minimize"
    tools = {"sampler": _sampler(search), "pruner": _pruner(search)}
    return optuna.create_study(
        storage=_storage(),
        study_name=search.name,
        direction=direction,
        load_if_exists=True,
        **tools,
    )


def find(search: Search) -> list[Outcome]:
    """Return the trials of a search as `outcomes` does; none where it has not begun."""
    if not STORE.exists():
        return []
    try:
        return outcomes(optuna.load_study(storage=_storage(), study_name=search.name), search)
    except KeyError:
        return []


def claim(study: optuna.Study, search: Search, limit: int) -> Claim | None:
    """Take up a trial that nobody works on any more, or begin one; None where there are `limit` of them."""
    folder = LOCKS / search.name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "claims.lock"):
        trial, lock = _orphan(study, folder), None
        if trial is None and len(study.get_trials(deepcopy=False)) < limit:
            trial = study.ask()
        if trial is None:
            return None
        lock = FileLock(folder / f"{trial.number}.lock")
        lock.acquire()
        values = {path: _suggested(trial, path, range_) for path, range_ in search.space.items()}
        return Claim(trial, values, lock)


def outcomes(study: optuna.Study, search: Search) -> list[Outcome]:
    """Return all trials: the finished ones, the best first; then the others, those first that got furthest."""
    sign = -1 if search.maximizes else 1

    def order(one: Outcome) -> tuple[float, ...]:
        finished = one.state == WORDS["COMPLETE"]
        return (
            -math.inf if finished else -one.step,
            sign * one.score if one.score is not None else math.inf,
            one.number,
        )

    return sorted(
        (_outcome(trial, search) for trial in study.get_trials(deepcopy=False)), key=order
    )


def winner(found: list[Outcome]) -> Outcome | None:
    """Return the best finished trial, if there is one."""
    return found[0] if found and found[0].state == WORDS["COMPLETE"] else None


def to_write(best: Outcome) -> dict[str, Any]:
    """Return the values for params.yaml by dotted path: what the trial tried, and the number of epochs that it needed."""
    return best.values if best.epochs is None else best.values | {"epochs": best.epochs}


class Numbered(BaseSampler):
    """Draws that depend on the seed, the trial's number and the trials before: a search that goes on draws as if never ended."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._number, self._inner = -1, make(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            seed = int(np.random.default_rng([self._seed, trial.number]).integers(2**31))
            self._number, self._inner = trial.number, self._make(seed)
        return self._inner


def _storage() -> optuna.storages.RDBStorage:
    LOCKS.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCKS / "store.lock"):  # making the tables is nothing that two can do at once
        return optuna.storages.RDBStorage(
            f"sqlite:///{STORE}", engine_kwargs={"connect_args": {"timeout": PATIENCE}}
        )


def _sampler(search: Search) -> BaseSampler:
    # Hyperband as Optuna recommends it: what it tries next is drawn from what did well (Falkner et al. 2018, arXiv 1807.01774).
    make = {
        "hyperband": lambda seed: TPESampler(seed=seed),
        "random": lambda seed: RandomSampler(seed=seed),
    }[search.kind]
    return Numbered(make, abs(search.tune.seed))


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    """Brackets of halvings from the first step on (Li et al. 2018, arXiv 1603.06560); random search trains all of each trial."""
    if search.kind == "random" or search.steps < search.tune.factor:
        return optuna.pruners.NopPruner()
    return optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=search.steps, reduction_factor=search.tune.factor
    )


def _orphan(study: optuna.Study, folder: Path) -> optuna.Trial | None:
    """Return a running trial whose process is gone; one that was started too often without getting on has failed."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        try:
            with FileLock(folder / f"{frozen.number}.lock", blocking=False):
                starts = [
                    step for step in frozen.user_attrs.get("starts", []) if step == frozen.last_step
                ]
        except Timeout:
            continue
        if len(starts) >= STARTS:
            log.info(
                "trial %d is given up: it was started %d times and did not get on",
                frozen.number,
                STARTS + 1,
            )
            study.tell(frozen.number, state=TrialState.FAIL)
            continue
        trial = optuna.Trial(study, frozen._trial_id)  # to go on with one, Optuna has no public way
        trial.set_user_attr("starts", [*starts, frozen.last_step])
        log.info(
            "trial %d was interrupted after %d epochs: it goes on",
            frozen.number,
            frozen.last_step or 0,
        )
        return trial
    return None


def _suggested(trial: optuna.Trial, path: str, values: Range) -> Any:
    if values.low is None:
        drawn = trial.suggest_categorical(path, [_named(choice) for choice in values.choices])
    elif values.whole:
        drawn = trial.suggest_int(
            path, values.low, values.high, step=values.step or 1, log=values.log
        )
    else:
        drawn = trial.suggest_float(path, values.low, values.high, step=values.step, log=values.log)
    return _tried(values, drawn)


def _tried(values: Range, drawn: Any) -> Any:
    """Return what a trial tries for what Optuna drew: numbers that a person can read in params.yaml."""
    if values.low is None:
        return next(choice for choice in values.choices if _named(choice) == drawn)
    if values.whole:
        return drawn
    return min(
        max(float(f"{drawn:.10g}" if values.step else f"{drawn:.3g}"), values.low), values.high
    )


def _named(choice: Any) -> Any:
    """Optuna keeps scalars; a list goes by its text."""
    return json.dumps(choice) if isinstance(choice, list | tuple | Mapping) else choice


def _outcome(trial: FrozenTrial, search: Search) -> Outcome:
    values = {
        path: _tried(range_, trial.params[path])
        for path, range_ in search.space.items()
        if path in trial.params
    }
    score = (
        trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step)
    )
    about = trial.user_attrs
    return Outcome(
        trial.number,
        WORDS[trial.state.name],
        trial.last_step or 0,
        score,
        about.get("epochs"),
        about.get("seconds", 0.0),
        values,
    )
