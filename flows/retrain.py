"""Bring the images up to date and reproduce what is stale: one Prefect task run per DVC stage, side by side.

`python -m flows.retrain` runs it once (`make run`). DVC decides what is stale; Prefect runs it, watches and tells.
`PIPELINE_WORKERS` (2) is how many stages may run at once.
"""

import argparse
import sys
from typing import Literal

from prefect import flow
from prefect.states import Cancelled, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts, import_images
from flows.graph import downstream, read_graph, read_status, upstream
from flows.links import mend_links
from flows.process import EndedError, ended_together
from flows.project_lock import OverlapError, hold_lock
from flows.publish import publish as publish_results
from flows.remote import prepare
from flows.reproduce import Plan, conclude, submit
from flows.server import connected
from flows.store import forget_lost_registry, open_store, tell_away
from tasks.errors import UserError, exit_with_message
from tasks.params.whole import load_params
from tasks.tracking.store import make_paths_relative


# The pool holds a thread for every stage; how many of them work is a matter of slots (flows/reproduce.py).
@flow(name="retrain", task_runner=ThreadPoolTaskRunner(), persist_result=False)
def retrain(
    update: bool = True,
    force: bool = False,
    publish: bool = False,
    stages: list[str] | None = None,
    time_limit: float | None = None,
    overlap: Literal["wait", "refuse"] = "wait",
    remote: dict[str, str] | None = None,
) -> State:
    """Update the images, reproduce what is stale, and publish if asked.

    When nothing changed the run says so and ends. When a stage fails, those that do not need it still finish, and
    the next run goes on from there.

    Args:
        update: Ask the source of the images for changes first; a folder tracked by `dvc add` records its changes.
        force: Run stages even where nothing changed.
        publish: At the end push to DVC's remote, commit dvc.lock and data/raw.dvc on the branch that is checked out, push it.
        stages: Only these stages and what they need, such as `train@cnn_a`; all when empty.
        time_limit: Seconds that any one stage may take; empty takes the limits in flows/reproduce.py.
        overlap: What to do while another run is at work in the same folder: wait for it, or refuse.
        remote: Which stages workers of which Prefect work pool run, by verb or stage, such as {"train": "gpu"}.
    """
    try:
        with hold_lock(overlap), ended_together():
            return work(update, force, publish, stages or [], time_limit, remote or {})
    except OverlapError as error:
        return Cancelled(name="Refused", message=str(error))
    except (UserError, EndedError) as error:
        return Failed(message=str(error))


def work(
    update: bool,
    force: bool,
    publish: bool,
    stages: list[str],
    time_limit: float | None,
    remote: dict[str, str],
) -> State:
    """Do what `retrain` promises; nobody else is at work in this folder."""
    load_params()
    make_paths_relative()
    mend_links()
    away = tell_away()
    images = import_images.update() if update else ""
    forget_lost_registry()
    changed = read_status()
    states: dict[str, State] = {}
    if changed or force or stages:
        graph = read_graph()
        wanted = upstream(stages or list(graph), graph)
        plan = Plan(
            {stage: graph[stage] for stage in graph if stage in wanted},
            downstream(set(changed), graph),
            force,
            time_limit,
        )
        if force or wanted & plan.stale:
            plan.elsewhere = prepare(remote, graph, wanted if force else wanted & plan.stale)
            if not away:
                open_store()
        states = submit(plan)
        artifacts.tell(states, plan.seconds, changed, images)
    if publish and all(state.is_completed() for state in states.values()):
        states["publish"] = publish_results(return_state=True)
    return conclude(states)


def main() -> None:
    """Run the flow once and print where everything is."""
    arguments = parse()
    try:
        with exit_with_message():
            load_params()  # the most frequent mistake, told before a server starts
            with connected():
                state = retrain(**arguments, return_state=True)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; what is finished is kept: run again to go on from here", file=sys.stderr
        )
        sys.exit(130)
    if not state.is_completed():
        sys.exit(f"\nerror: {state.message}")
    print(f"\n{artifacts.REPORT.read_text() if artifacts.REPORT.exists() else ''}\n{state.message}")
    for what, where in artifacts.places().items():
        print(f"{what:>17}: {where}")


def parse() -> dict[str, object]:
    """Return the parameters of the flow that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="Update the images and reproduce what is stale."
    )
    parser.add_argument(
        "--update",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the source of the images first",
    )
    parser.add_argument(
        "--force", action="store_true", help="run stages even where nothing changed"
    )
    parser.add_argument(
        "--publish", action="store_true", help="dvc push, commit the pointers, git push"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        metavar="STAGE",
        help="only these and what they need, such as train@cnn_a",
    )
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="how long any one stage may take"
    )
    parser.add_argument(
        "--overlap",
        choices=("wait", "refuse"),
        default="wait",
        help="while another run is at work here",
    )
    parser.add_argument(
        "--remote",
        nargs="+",
        type=pair,
        metavar="VERB=POOL",
        help="what workers of a Prefect work pool run, such as train=gpu",
    )
    arguments = vars(parser.parse_args())
    return arguments | {"remote": dict(arguments["remote"] or [])}


def pair(text: str) -> tuple[str, str]:
    """Return the two sides of VERB=POOL."""
    name, _, pool = text.partition("=")
    if not name or not pool:
        raise argparse.ArgumentTypeError(f"expected VERB=POOL such as train=gpu, received {text}")
    return name, pool


if __name__ == "__main__":
    main()
