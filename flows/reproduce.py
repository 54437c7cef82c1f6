"""Run one DVC stage as one Prefect task run. The verb is the task, the stage names the run.

States of a task run:

    Completed    the stage ran
    Skipped      none of its dependencies changed
    Cached       its outputs came from DVC's run cache
    Failed       the stage failed
    Unavailable  it met a lock or a network failure, and is tried again
    Ended        it was ended by its time limit or an interrupt
    NotRun       a stage that it needs failed
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

from flows import remote, terminal
from flows.artifacts import Progress
from flows.process import EndedError
from flows.progress import parse_bar
from flows.stage_outcome import dvc_command, dvc_outcome, run_command

WORKERS = "PIPELINE_WORKERS"


@dataclass(frozen=True)
class Settings:
    """How Prefect runs the stages of one verb."""

    # Seconds before each new try after a failure that may pass.
    delays: tuple[float, ...] = (5, 20, 60)
    # Seconds that one stage may take.
    limit: float = 6 * 3600
    # How many stages may run at once; the variable PIPELINE_WORKERS_<VERB> overrides it.
    at_once: int | None = None


# Verbs that are not listed have the defaults.
SETTINGS = {"train": Settings(limit=72 * 3600), "explain": Settings(limit=3600)}


@dataclass
class Plan:
    """What the task runs of one flow run have in common."""

    graph: dict[str, list[str]]
    stale: set[str]
    force: bool = False
    limit: float | None = None
    elsewhere: dict[str, remote.Elsewhere] = field(default_factory=dict)
    futures: dict[str, PrefectFuture] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    slots: dict[str, threading.Semaphore] = field(default_factory=dict)

    @contextmanager
    def hold_slot(self, verb: str) -> Iterator[None]:
        """Wait for a slot of this verb, and for one of the whole run."""
        with ExitStack() as stack:
            for name in (verb, ""):
                if name in self.slots:
                    stack.enter_context(self.slots[name])
            yield


def submit(plan: Plan) -> dict[str, State]:
    """Run every stage of the plan after the stages that it needs; return the final states."""
    terminal.current().begin(list(plan.graph))
    plan.slots = make_slots({find_verb(stage) for stage in plan.graph})
    for stage, needed in plan.graph.items():
        delays = find_settings(stage).delays
        named = reproduce.with_options(
            name=find_verb(stage),
            task_run_name=stage,
            retries=len(delays),
            retry_delay_seconds=list(delays),
        )
        before = [allow_failure(plan.futures[name]) for name in needed if name in plan.futures]
        plan.futures[stage] = named.submit(stage, opaque(plan), wait_for=before)
    for future in plan.futures.values():
        future.wait()
    return {stage: future.state for stage, future in plan.futures.items()}


def find_verb(stage: str) -> str:
    """Return the verb of a stage: `train` of `train@cnn_a`."""
    return stage.partition("@")[0]


def find_settings(stage: str) -> Settings:
    """Return the settings of a stage's verb."""
    return SETTINGS.get(find_verb(stage), Settings())


def conclude(states: dict[str, State]) -> State:
    """Return the state of the whole run: the failures and their reasons, and the stages not run."""
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
        kept = "finished stages are kept: run again to continue from here"
        return Failed(message="\n".join([*failures, *because, kept]))
    ran = [stage for stage, state in states.items() if state.name != "Skipped"]
    if not ran:
        return Completed(message="nothing changed")
    return Completed(message=f"{len(ran)} of {len(states)} stages ran: {', '.join(ran)}")


def make_slots(verbs: set[str]) -> dict[str, threading.Semaphore]:
    """Return a semaphore for each verb with a limit, and under "" one for all stages."""
    limits: dict[str, str | int | None] = {"": os.environ.get(WORKERS, "2")}
    for verb in verbs:
        own = os.environ.get(f"{WORKERS}_{verb.upper()}")
        limits[verb] = own or find_settings(verb).at_once
    return {verb: threading.Semaphore(int(limit)) for verb, limit in limits.items() if limit}


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=lambda task, run, state: state.name == "Unavailable",
)
def reproduce(stage: str, plan: Plan) -> State:
    """Bring one stage up to date by DVC, and log its lines."""
    state = reproduce_unless_unchanged(stage, plan)
    terminal.current().end(stage, state)
    return state


def reproduce_unless_unchanged(stage: str, plan: Plan) -> State:
    """Return the state of a stage, which runs if it is stale and has what it needs."""
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
    with nullcontext() if where else plan.hold_slot(find_verb(stage)):
        started = time.monotonic()
        terminal.current().start(stage)
        state = run_stage(stage, plan, where)
        plan.seconds[stage] = time.monotonic() - started
    return state


def run_stage(stage: str, plan: Plan, where: remote.Elsewhere | None) -> State:
    """Run `dvc repro` for one stage, here or at a worker, and return its state."""
    log = get_run_logger()
    progress = Progress(stage)
    limit = plan.limit or find_settings(stage).limit

    def show(line: str) -> None:
        if not parse_bar(line):
            log.info(line, extra={"stage_line": True})
            progress.note(line)
        terminal.current().show(stage, line)

    try:
        if where:
            return remote.run(remote.Order(stage, where, plan.force, limit), show)
        force = ["--force"] if plan.force else []
        command = dvc_command("repro", "--single-item", *force, stage)
        return dvc_outcome(stage, *run_command(command, show, limit))
    except EndedError as error:
        return Failed(name="Ended", message=f"{stage} was {error}")
