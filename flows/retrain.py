"""Bring the images up to date, and reproduce what is stale: one Prefect task run per DVC stage.

`python -m flows.retrain` (`make run`) does it once. DVC decides which stages are stale. Prefect
runs them side by side and shows their progress. `PIPELINE_WORKERS` (2) limits how many run at once.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Literal

from prefect import flow
from prefect.states import Cancelled, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts, import_images, terminal
from flows.graph import downstream, read_graph, read_status, upstream
from flows.links import mend_links
from flows.process import EndedError, end_together
from flows.project_lock import OverlapError, hold_lock
from flows.publish import publish as publish_results
from flows.remote import prepare
from flows.reproduce import Plan, conclude, submit
from flows.result import print_result
from flows.server import connect
from flows.store import forget_lost_registry, open_store, warn_if_away
from flows.terminal import open_display
from tasks.errors import UserError, exit_with_message
from tasks.params.whole import load_params
from tasks.tracking.store import make_paths_relative


@dataclass(frozen=True)
class Options:
    """The parameters of a run, see `retrain`."""

    update: bool
    force: bool
    publish: bool
    stages: list[str]
    time_limit: float | None
    remote: dict[str, str]


# The pool has a thread for each stage; slots limit how many work at once (flows/reproduce.py).
@flow(name="retrain", task_runner=ThreadPoolTaskRunner(), persist_result=False)
def retrain(  # noqa: PLR0913, PLR0917 -- Prefect's page has a field for each parameter
    update: bool = True,
    force: bool = False,
    publish: bool = False,
    stages: list[str] | None = None,
    time_limit: float | None = None,
    overlap: Literal["wait", "refuse"] = "wait",
    remote: dict[str, str] | None = None,
) -> State:
    """Update the images, reproduce what is stale, and publish if asked.

    When a stage fails, the stages that do not need it still finish. The next run continues there.

    Args:
        update: First check the source of the images for changes. In a folder that `dvc add`
            tracks, record the changes.
        force: Run stages even if nothing changed.
        publish: At the end push to DVC's remote, commit dvc.lock and data/raw.dvc on the current
            branch, and push the branch.
        stages: Run only these stages and those that they need, such as `train@cnn_a`. Empty runs
            all.
        time_limit: Seconds that any one stage may take. Empty takes the limits of
            flows/reproduce.py.
        overlap: Wait while another run is at work in the same folder, or refuse.
        remote: The stages that workers of a Prefect work pool run, by verb or stage, such as
            {"train": "gpu"}.
    """
    options = Options(update, force, publish, stages or [], time_limit, remote or {})
    try:
        with hold_lock(overlap), end_together():
            return run_stages(options)
    except OverlapError as error:
        return Cancelled(name="Refused", message=str(error))
    except (UserError, EndedError) as error:
        return Failed(message=str(error))


def run_stages(options: Options) -> State:
    """Do what `retrain` promises; the caller holds the lock of this folder."""
    load_params()
    make_paths_relative()
    mend_links()
    is_unreachable = warn_if_away()
    images = import_images.update_images() if options.update else ""
    if images:
        terminal.current().say(images)
    forget_lost_registry()
    changed = read_status()
    states: dict[str, State] = {}
    if changed or options.force or options.stages:
        plan = make_plan(options, changed)
        if (plan.force or plan.stale.intersection(plan.graph)) and not is_unreachable:
            open_store()
        states = submit(plan)
        artifacts.record_run(states, plan.seconds, changed, images)
    if options.publish and all(state.is_completed() for state in states.values()):
        states["publish"] = publish_results(return_state=True)
    return conclude(states)


def make_plan(options: Options, changed: dict[str, list]) -> Plan:
    """Return the stages of a run, those of them that are stale, and where each one runs."""
    graph = read_graph()
    wanted = upstream(options.stages or list(graph), graph)
    stale = downstream(set(changed), graph)
    plan = Plan(
        {stage: graph[stage] for stage in graph if stage in wanted},
        stale,
        options.force,
        options.time_limit,
    )
    to_run = wanted if options.force else wanted & stale
    if to_run:
        plan.elsewhere = prepare(options.remote, graph, to_run)
    return plan


def main() -> None:
    """Run the flow once, and print where the results are."""
    arguments = parse_arguments()
    try:
        with exit_with_message():
            load_params()  # the most frequent mistake is reported before a server starts
            with open_display() as display, connect(display.say):
                state = retrain(**arguments, return_state=True)
    except KeyboardInterrupt:
        print("\ninterrupted; finished stages are kept: run again to continue", file=sys.stderr)
        sys.exit(130)
    if not state.is_completed():
        sys.exit(f"\nerror: {state.message}")
    if arguments["stages"]:
        print(f"\n{state.message}")  # the comparison may be older than these stages
    else:
        print_result(state.message)


def parse_arguments() -> dict[str, object]:
    """Return the parameters of the flow from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="Update the images and reproduce what is stale."
    )
    parser.add_argument(
        "--update",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="first check the source of the images for changes",
    )
    parser.add_argument("--force", action="store_true", help="run stages even if nothing changed")
    parser.add_argument(
        "--publish", action="store_true", help="dvc push, commit the pointers, git push"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        metavar="STAGE",
        help="only these stages and those that they need, such as train@cnn_a",
    )
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="time that any one stage may take"
    )
    parser.add_argument(
        "--overlap",
        choices=("wait", "refuse"),
        default="wait",
        help="what to do while another run is at work here (default: wait)",
    )
    parser.add_argument(
        "--remote",
        nargs="+",
        type=read_pair,
        metavar="VERB=POOL",
        help="stages that workers of a Prefect work pool run, such as train=gpu",
    )
    arguments = vars(parser.parse_args())
    return arguments | {"remote": dict(arguments["remote"] or [])}


def read_pair(text: str) -> tuple[str, str]:
    """Return the two sides of VERB=POOL."""
    name, _, pool = text.partition("=")
    if not name or not pool:
        raise argparse.ArgumentTypeError(f"expected VERB=POOL such as train=gpu, received {text}")
    return name, pool


if __name__ == "__main__":
    main()
