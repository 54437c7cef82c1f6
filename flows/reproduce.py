"""One DVC stage as one Prefect task run: the verb is the task, the stage names its run.

The state says what happened: Completed, Skipped (nothing it depends on changed), Cached (taken from DVC's run cache),
Failed, Unavailable (a lock or the network; tried again), Ended (time limit or interrupt), NotRun (what it needs failed).
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from prefect import allow_failure, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from prefect.utilities.annotations import opaque

from flows import remote
from flows.artifacts import Progress
from flows.process import EndedError
from flows.stage_outcome import dvc, hear, judge


@dataclass(frozen=True)
class Settings:
    """How Prefect treats the stages of one verb."""

    delays: tuple[float, ...] = (
        5,
        20,
        60,
    )  # seconds before each new try, where the reason may pass by itself
    limit: float = 6 * 3600  # seconds one stage may take
    at_once: int | None = None  # how many may run side by side; PIPELINE_WORKERS_<VERB> goes first


SETTINGS = {
    "train": Settings(limit=72 * 3600),
    "explain": Settings(limit=3600),
}  # a verb that is not listed takes the defaults
WORKERS = "PIPELINE_WORKERS"


@dataclass
class Plan:
    """What the task runs of one flow run share."""

    graph: dict[str, list[str]]
    stale: set[str]
    force: bool = False
    limit: float | None = None
    elsewhere: dict[str, remote.Elsewhere] = field(default_factory=dict)
    futures: dict[str, PrefectFuture] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    slots: dict[str, threading.Semaphore] = field(default_factory=dict)

    @contextmanager
    def slot(self, verb: str) -> Iterator[None]:
        """Wait until one more stage of this verb, and one more stage at all, may run."""
        with ExitStack() as stack:
            for name in (verb, ""):
                if name in self.slots:
                    stack.enter_context(self.slots[name])
            yield


def submit(plan: Plan) -> dict[str, State]:
    """Run every stage of the plan after those it needs, side by side where possible; return the final states."""
    plan.slots = slots({stage.partition("@")[0] for stage in plan.graph})
    for stage, needed in plan.graph.items():
        verb = stage.partition("@")[0]
        delays = SETTINGS.get(verb, Settings()).delays
        named = reproduce.with_options(
            name=verb, task_run_name=stage, retries=len(delays), retry_delay_seconds=list(delays)
        )
        plan.futures[stage] = named.submit(
            stage,
            opaque(plan),
            wait_for=[allow_failure(plan.futures[name]) for name in needed if name in plan.futures],
        )
    for future in plan.futures.values():
        future.wait()
    return {stage: future.state for stage, future in plan.futures.items()}


def conclude(states: dict[str, State]) -> State:
    """Return the state of the whole run: which stages failed and why, which did not run because of it."""
    if not states:
        return Completed(name="Unchanged", message="nothing changed")
    not_run = [stage for stage, state in states.items() if state.name == "NotRun"]
    failures = [
        state.message
        for stage, state in states.items()
        if not state.is_completed() and stage not in not_run
    ]
    if failures:
        because = [f"not run because of it: {', '.join(not_run)}"] if not_run else []
        return Failed(
            message="\n".join(
                [*failures, *because, "what is finished is kept: run again to go on from here"]
            )
        )
    ran = [stage for stage, state in states.items() if state.name != "Skipped"]
    return Completed(
        message=f"{len(ran)} of {len(states)} stages ran: {', '.join(ran)}"
        if ran
        else "nothing changed"
    )


def slots(verbs: set[str]) -> dict[str, threading.Semaphore]:
    """Return how many stages may run at once, of each verb that has a limit, and under "" of all."""
    limits = {"": os.environ.get(WORKERS, "2")}
    limits |= {
        verb: os.environ.get(f"{WORKERS}_{verb.upper()}", SETTINGS.get(verb, Settings()).at_once)
        for verb in verbs
    }
    return {verb: threading.Semaphore(int(limit)) for verb, limit in limits.items() if limit}


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=lambda task, run, state: state.name == "Unavailable",
)
def reproduce(stage: str, plan: Plan) -> State:
    """Let DVC bring one stage up to date; its lines go to the log."""
    lacking = [
        name
        for name in plan.graph[stage]
        if name in plan.futures and not plan.futures[name].state.is_completed()
    ]
    if lacking:
        return Failed(name="NotRun", message=f"needs {', '.join(lacking)}")
    if not (plan.force or stage in plan.stale):
        return Completed(name="Skipped", message="nothing it depends on changed")
    where = plan.elsewhere.get(stage)
    with nullcontext() if where else plan.slot(stage.partition("@")[0]):
        started = time.monotonic()
        state = run(stage, plan, where)
        plan.seconds[stage] = time.monotonic() - started
    return state


def run(stage: str, plan: Plan, where: remote.Elsewhere | None) -> State:
    """Run `dvc repro` for one stage, here or elsewhere, and tell by its words what happened."""
    log = get_run_logger()
    progress = Progress(stage)
    limit = plan.limit or SETTINGS.get(stage.partition("@")[0], Settings()).limit

    def show(line: str) -> None:
        log.info(line)
        progress.note(line)

    try:
        if where:
            return remote.run(stage, where, plan.force, limit, show)
        return judge(
            stage,
            *hear(
                dvc("repro", "--single-item", *(["--force"] if plan.force else []), stage),
                show,
                limit,
            ),
        )
    except EndedError as error:
        return Failed(name="Ended", message=f"{stage} was {error}")
