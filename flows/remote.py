"""Run stages on other machines: hand one to a Prefect work pool, follow it, and take its outputs.

A worker of the pool (flows/worker.py) has a Git clone and DVC's remote, and nothing else of this
machine. So the code and parameters of the stage must be committed and pushed. Its data are pushed
to the remote first. DVC's records of the data travel with the run. The outputs come back by hash,
from the run cache in the remote. A stage that is sent to a pool never runs here.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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

from flows.git import git
from flows.graph import read_files, read_inputs
from flows.process import EndedError, wait_for_end
from flows.stage_outcome import dvc_command, dvc_outcome, find_trouble, name_failure, run_command
from tasks.errors import UserError

FLOW = "stage"
LINES = f"prefect.flow_runs.{FLOW}"  # the logger of the stage's lines in a worker's run
ENTRYPOINT = "flows/worker.py:stage"
FOLDER = "PWD"  # the variable that holds the folder of a worker's clone: `make worker` sets it
HEARTBEAT = 30  # seconds; the shortest that Prefect has
SILENCE = 100.0  # seconds without a heartbeat after which a run is lost and its stage tried again
START = 300.0  # seconds within which a worker must start a run that it took
POLL = 2.0  # seconds
LATE = timedelta(seconds=10)
PAGE = 200  # lines; the most that Prefect returns at once
# The final states of a worker's run.
ENDS = (
    "Completed", "Skipped", "Cached", "Failed", "Unavailable", "Ended", "Cancelled", "Crashed",
)  # fmt: skip
# The files that every worker takes from Git.
COMMITTED = ("dvc.yaml", ".dvc/config", "requirements.txt")


@dataclass(frozen=True)
class Elsewhere:
    """The work pool and the commit with which a stage runs."""

    pool: str
    revision: str


@dataclass(frozen=True)
class Order:
    """A stage for a work pool; `limit` is in seconds."""

    stage: str
    where: Elsewhere
    force: bool
    limit: float


def prepare(
    remote: dict[str, str], graph: dict[str, list[str]], wanted: set[str]
) -> dict[str, Elsewhere]:
    """Return {stage: where it runs} for the `wanted` stages that a work pool runs.

    `remote` is {verb or stage: work pool}. Raises `UserError` if workers could not run the stages:
    for unknown names, outputs that DVC does not keep, code or parameters that are not committed,
    a commit that is not pushed, and an unknown pool.
    """
    known = {*graph, *(stage.partition("@")[0] for stage in graph)}
    if unknown := [name for name in remote if name not in known]:
        raise UserError(
            f"remote: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    found = {
        stage: remote.get(stage, remote.get(stage.partition("@")[0], ""))
        for stage in graph
        if stage in wanted
    }
    pools = {stage: pool for stage, pool in found.items() if pool}
    if not pools:
        return {}
    refuse_unready(list(pools))
    revision = git("rev-parse", "HEAD")
    with get_client(sync_client=True) as client:
        for pool in sorted(set(pools.values())):
            deploy(client, pool)
    return {stage: Elsewhere(pool, revision) for stage, pool in pools.items()}


def refuse_unready(stages: list[str]) -> None:
    """Raise `UserError` with the reason if these stages could not run in another clone."""
    files = set(COMMITTED)
    for stage in stages:
        read, uncached = read_files(stage)
        if uncached:
            raise UserError(
                f"remote: {stage} must run here: DVC's cache does not keep its output "
                f"{', '.join(uncached)}"
            )
        files |= set(read)
    changed = git("status", "--porcelain", "--untracked-files=all", "--", *sorted(files))
    if changed:
        listed = "\n  ".join(changed.splitlines())
        raise UserError(
            f"workers see only committed files, and these are not:\n  {listed}\n"
            "commit and push them"
        )
    git("fetch", "--quiet", "origin")
    if not git("for-each-ref", "--contains", "HEAD", "refs/remotes/origin"):
        commit = git("rev-parse", "--short", "HEAD")
        raise UserError(
            f"workers cannot fetch commit {commit}: origin does not have it; git push it"
        )


def deploy(client: SyncPrefectClient, pool: str) -> None:
    """Create the deployment of a pool, and the automation that ends its lost runs."""
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        raise UserError(
            f"{client.api_url} has no work pool {pool}: "
            f"start a worker with `make worker POOL={pool}` in the worker's clone"
        ) from None
    if found.status != WorkPoolStatus.READY:
        message = "no worker of pool %s is online; its stages wait for one: make worker POOL=%s"
        get_run_logger().warning(message, pool, pool)
    folder = {"directory": f"{{{{ ${FOLDER} }}}}"}
    deployment = client.create_deployment(
        client.create_flow_from_name(FLOW),
        pool,
        work_pool_name=pool,
        entrypoint=ENTRYPOINT,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": folder}],
        job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}},
    )
    automation = make_automation(pool, deployment)
    before = client.read_automations_by_name(automation.name)
    if before:
        client.update_automation(before[0].id, automation)
    else:
        client.create_automation(automation)


def make_automation(pool: str, deployment: UUID) -> AutomationCore:
    """Return Prefect's automation that marks a run as crashed when its heartbeats stop."""
    of_deployment = {"prefect.resource.id": f"prefect.deployment.{deployment}"}
    message = f"no heartbeat for {SILENCE:.0f} seconds"
    return AutomationCore(
        name=f"{FLOW}/{pool}: crashed when silent",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(of_deployment),
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{name}" for name in ("heartbeat", *ENDS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def run(order: Order, on_line: Callable[[str], None]) -> State:
    """Let a worker run a stage, unless DVC's remote has its outputs, and take the outputs."""
    stage, pool = order.stage, order.where.pool
    if not order.force:
        state = take(stage, order.limit)
        if state.is_completed():
            return state
    inputs, pointers = read_inputs(stage)
    push = dvc_command("push", *inputs)
    if inputs and (why := find_trouble(*run_command(push, on_line, order.limit))):
        message = f"{stage} failed: its inputs could not be pushed to DVC's remote: {why}"
        return Failed(name=name_failure(why), message=message)
    parameters = {
        "name": stage,
        "revision": order.where.revision,
        "inputs": inputs,
        "pointers": pointers,
        "force": order.force,
    }
    there = run_deployment(f"{FLOW}/{pool}", parameters=parameters, flow_run_name=stage, timeout=0)
    get_run_logger().info("%s goes to pool %s as flow run %s", stage, pool, there.id)
    state = follow(there, order.limit, on_line)
    if not state.is_completed():
        return translate_state(stage, pool, state)
    taken = take(stage, order.limit)
    if taken.is_completed():
        return Completed(name=state.name, message=f"{state.message} in pool {pool}")
    why = (
        "DVC's remote has no outputs for the present inputs of the stage; "
        f"did files change meanwhile? {taken.message}"
    )
    message = f"{stage} failed: it ran in pool {pool}, but {why}"
    return Failed(name=taken.name, message=message)


def take(stage: str, limit: float) -> State:
    """Check out the outputs that DVC's remote has for the stage; fail if it has none."""
    # DVC runs commands by the user's shell. With this shell a stage that is not in the remote
    # fails, instead of running here.
    shell = {"SHELL": "false"}
    pull = dvc_command("repro", "--pull", "--single-item", stage)
    return dvc_outcome(stage, *run_command(pull, lambda line: None, limit, shell))


@dataclass
class Watch:
    """The last state of a run and the time of its change, to detect a stuck or late run."""

    state: State
    limit: float
    since: float = field(default_factory=time.monotonic)

    def note(self, state: State) -> None:
        """Remember the latest state of the run and its time."""
        if state.id != self.state.id:
            self.state, self.since = state, time.monotonic()

    @property
    def is_stuck(self) -> bool:
        """Return whether a worker took the run and did not start it."""
        return self.state.is_pending() and time.monotonic() - self.since > START

    @property
    def is_late(self) -> bool:
        """Return whether the run is past its time limit."""
        return self.state.is_running() and time.monotonic() - self.since > self.limit


def follow(there: FlowRun, limit: float, on_line: Callable[[str], None]) -> State:
    """Pass on the lines of a flow run until it ends, and return its last state.

    An interrupt or the time limit cancels the run. Raises `EndedError` then.
    """
    seen: dict[UUID, datetime] = {}
    watch = Watch(there.state, limit)
    with get_client(sync_client=True) as client:
        while True:
            try:
                state = client.read_flow_run(there.id).state
                if state.is_final():
                    wait_for_end(POLL)  # its last lines come a little later
                for line in read_new_lines(client, there.id, seen):
                    on_line(line)
                if state.is_final():
                    return state
                watch.note(state)
            except httpx.HTTPError as error:
                get_run_logger().warning("Prefect's server does not answer: %s", error)
            why = f"ended after its time limit of {limit:g} seconds" if watch.is_late else ""
            why = "ended by an interrupt" if wait_for_end(POLL) else why
            if why or watch.is_stuck:
                client.set_flow_run_state(there.id, Cancelling())
            if why:
                raise EndedError(why)
            if watch.is_stuck:
                message = f"it took the run and did not start it within {START:.0f} seconds"
                return Crashed(message=message)


def read_new_lines(
    client: SyncPrefectClient, run: UUID, seen: dict[UUID, datetime]
) -> Iterator[str]:
    """Yield the lines of a flow run's stage since the last call.

    Processes send their lines in batches, so older lines can come late.
    """
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


def translate_state(stage: str, pool: str, state: State) -> State:
    """Translate a worker's failed state for the task run of the stage on this machine."""
    if state.is_crashed():
        message = f"{stage} failed: its worker in pool {pool} was lost: {state.message}"
        return Failed(name="Unavailable", message=message)
    if state.is_cancelled():
        return Failed(name="Ended", message=f"{stage} was cancelled in pool {pool}")
    return Failed(name=state.name, message=state.message)
