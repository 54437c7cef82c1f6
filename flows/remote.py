"""Stages on other machines: hand one to a Prefect work pool, follow its run, and take what it made from DVC's remote.

A worker of the pool (flows/worker.py) has a Git clone and DVC's remote, nothing else of this machine. So what the stage
reads has to be committed and pushed, its data go to the remote first, and DVC's records of them travel with the run.
What the worker made is taken by hash, from the run cache in the remote: a stage that goes elsewhere never runs here.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.objects import FlowRun, WorkPoolStatus
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.events import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Completed, Crashed, Failed, State, StateType

from flows.graph import read_files, read_inputs
from flows.process import EndedError, ending
from flows.publish import git
from flows.stage_outcome import PASSING, dvc, hear, judge, trouble
from tasks.errors import UserError

FLOW = "stage"
LINES = f"prefect.flow_runs.{FLOW}"  # the logger of what a worker's run itself says
ENTRYPOINT = "flows/worker.py:stage"
FOLDER = (
    "PWD"  # the variable of a worker that names its clone: shells set it, and so does `make worker`
)
HEARTBEAT = 30  # seconds; the shortest that Prefect has
SILENCE = 100.0  # seconds without a heartbeat after which a run is given up and its stage handed out again
START = 300.0  # seconds that a worker may take to start a run that it took
POLL = 2.0  # seconds
LATE = timedelta(seconds=10)
PAGE = 200  # lines; the most that Prefect returns at once
ENDS = (
    "Completed",
    "Skipped",
    "Cached",
    "Failed",
    "Unavailable",
    "Ended",
    "Cancelled",
    "Crashed",
)  # states of a worker's run
COMMITTED = (
    "dvc.yaml",
    ".dvc/config",
    "requirements.txt",
)  # what a worker takes from Git, beside the stage's own files


@dataclass(frozen=True)
class Elsewhere:
    """Where a stage runs if not here."""

    pool: str
    revision: str


def prepare(
    remote: dict[str, str], graph: dict[str, list[str]], wanted: set[str]
) -> dict[str, Elsewhere]:
    """Return {stage: where it runs} of the `wanted` stages that `remote`, {verb or stage: work pool}, sends elsewhere.

    Raises `UserError` where workers could not run them: unknown names, results that DVC does not keep, code or parameters
    that are not committed, a commit that is not pushed, a pool that does not exist.
    """
    known = {*graph, *(stage.partition("@")[0] for stage in graph)}
    if unknown := [name for name in remote if name not in known]:
        raise UserError(
            f"remote: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    pools = {
        stage: remote.get(stage, remote.get(stage.partition("@")[0], ""))
        for stage in graph
        if stage in wanted
    }
    pools = {stage: pool for stage, pool in pools.items() if pool}
    if not pools:
        return {}
    refuse_unready(list(pools))
    revision = git("rev-parse", "HEAD")
    with get_client(sync_client=True) as client:
        for pool in sorted(set(pools.values())):
            deploy(client, pool)
    return {stage: Elsewhere(pool, revision) for stage, pool in pools.items()}


def refuse_unready(stages: list[str]) -> None:
    """Raise `ValueError` naming what keeps these stages from running in another clone."""
    files = set(COMMITTED)
    for stage in stages:
        read, uncached = read_files(stage)
        if uncached:
            raise UserError(
                f"remote: {stage} has to run here, its output {', '.join(uncached)} is kept out of DVC's cache"
            )
        files |= set(read)
    changed = git(
        "status", "--porcelain", "--untracked-files=all", "--", *sorted(files)
    ).splitlines()
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(
            f"workers see only what is committed, and this is not:\n  {listed}\ncommit and push it"
        )
    git("fetch", "--quiet", "origin")
    if not git("for-each-ref", "--contains", "HEAD", "refs/remotes/origin"):
        raise UserError(
            f"workers cannot fetch commit {git('rev-parse', '--short', 'HEAD')}: origin does not have it; git push it"
        )


def deploy(client: SyncPrefectClient, pool: str) -> None:
    """Have the deployment of this pool, and the automation that gives up its runs when their machine falls silent."""
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        raise UserError(
            f"{client.api_url} has no work pool {pool}: start a worker, `make worker POOL={pool}` in its clone"
        ) from None
    if found.status != WorkPoolStatus.READY:
        get_run_logger().warning(
            "no worker of pool %s is online; its stages wait for one: make worker POOL=%s",
            pool,
            pool,
        )
    deployment = client.create_deployment(
        client.create_flow_from_name(FLOW), pool, work_pool_name=pool, entrypoint=ENTRYPOINT,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": f"{{{{ ${FOLDER} }}}}"}}],
        job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}},
    )  # fmt: skip
    automation = silence(pool, deployment)
    before = client.read_automations_by_name(automation.name)
    if before:
        client.update_automation(before[0].id, automation)
    else:
        client.create_automation(automation)


def silence(pool: str, deployment: UUID) -> AutomationCore:
    """Return Prefect's own recipe for machines that die: a run whose heartbeats stop is marked as crashed."""
    return AutomationCore(
        name=f"{FLOW}/{pool}: crashed when silent",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": f"prefect.deployment.{deployment}"}
            ),
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{name}" for name in ("heartbeat", *ENDS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"no sign of life for {SILENCE:.0f} seconds"
            )
        ],
    )


def run(
    stage: str, where: Elsewhere, force: bool, limit: float, on_line: Callable[[str], None]
) -> State:
    """Have a stage done by a worker, unless DVC's remote has its outputs, and take them."""
    if not force:
        state = take(stage, limit)
        if state.is_completed():
            return state
    inputs, pointers = read_inputs(stage)
    if inputs and (why := trouble(*hear(dvc("push", *inputs), on_line, limit))):
        name = "Unavailable" if PASSING.search(why) else None
        return Failed(
            name=name,
            message=f"{stage} failed: its inputs could not be pushed to DVC's remote: {why}",
        )
    parameters = {
        "name": stage,
        "revision": where.revision,
        "inputs": inputs,
        "pointers": pointers,
        "force": force,
    }
    there = run_deployment(
        f"{FLOW}/{where.pool}", parameters=parameters, flow_run_name=stage, timeout=0
    )
    get_run_logger().info("%s goes to pool %s as flow run %s", stage, where.pool, there.id)
    state = follow(there, limit, on_line)
    if not state.is_completed():
        return as_here(stage, where.pool, state)
    taken = take(stage, limit)
    if taken.is_completed():
        return Completed(name=state.name, message=f"{state.message} in pool {where.pool}")
    why = f"nothing in DVC's remote fits what the stage reads here now; did files change meanwhile? {taken.message}"
    return Failed(
        name=taken.name, message=f"{stage} failed: it ran in pool {where.pool}, but {why}"
    )


def take(stage: str, limit: float) -> State:
    """Have DVC check out the outputs that its remote has for what the stage reads now; fail where it has none."""
    # DVC runs commands by the user's shell: with this one a stage that cannot be taken fails, instead of running here.
    status, lines = hear(
        dvc("repro", "--pull", "--single-item", stage), lambda line: None, limit, {"SHELL": "false"}
    )
    return judge(stage, status, lines)


def follow(there: FlowRun, limit: float, on_line: Callable[[str], None]) -> State:
    """Pass on the lines of a flow run until it ends, and return its last state; an interrupt or the time limit cancels it."""
    log = get_run_logger()
    seen: dict[UUID, datetime] = {}
    state, since, why = there.state, time.monotonic(), ""
    with get_client(sync_client=True) as client:
        while not why:
            try:
                found = client.read_flow_run(there.id).state
                if found.is_final():
                    ending(POLL)  # its last lines come a little later
                for line in new_lines(client, there.id, seen):
                    on_line(line)
                if found.is_final():
                    return found
                if found.id != state.id:
                    state, since = found, time.monotonic()
            except httpx.HTTPError as error:
                log.warning("Prefect's server does not answer: %s", error)
            if state.is_pending() and time.monotonic() - since > START:
                client.set_flow_run_state(there.id, Cancelling())
                return Crashed(
                    message=f"it took the run and did not start it within {START:.0f} seconds"
                )
            if state.is_running() and time.monotonic() - since > limit:
                why = f"ended after its time limit of {limit:g} seconds"
            if ending(POLL):
                why = "ended by an interrupt"
        client.set_flow_run_state(there.id, Cancelling())
    raise EndedError(why)


def new_lines(client: SyncPrefectClient, run: UUID, seen: dict[UUID, datetime]) -> Iterator[str]:
    """Return what a flow run itself logged since the last call; processes send in bundles, so older ones can come late."""
    after = max(seen.values()) - LATE if seen else None
    wanted = LogFilter(
        flow_run_id=LogFilterFlowRunId(any_=[run]), timestamp=LogFilterTimestamp(after_=after)
    )
    for offset in itertools.count(step=PAGE):
        page = client.read_logs(wanted, limit=PAGE, offset=offset, sort=LogSort.TIMESTAMP_ASC)
        for entry in page:
            if entry.id not in seen and entry.name == LINES:
                yield entry.message
            seen[entry.id] = entry.timestamp
        if len(page) < PAGE:
            return


def as_here(stage: str, pool: str, state: State) -> State:
    """Return the state of a worker's run that did not complete as one that happened here."""
    if state.is_crashed():
        return Failed(
            name="Unavailable",
            message=f"{stage} failed: its worker in pool {pool} was lost: {state.message}",
        )
    if state.is_cancelled():
        return Failed(name="Ended", message=f"{stage} was cancelled in pool {pool}")
    return Failed(name=state.name, message=state.message)
