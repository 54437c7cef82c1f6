"""Bring the images up to date and reproduce what is stale: one Prefect task run per DVC stage, side by side.

`python -m flows.retrain` runs it once (`make run`). DVC decides what is stale; Prefect runs it, watches and tells.
`PIPELINE_WORKERS` (2) is how many stages may run at once.
"""

import os
import re
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import source
from flows.graph import read_graph, read_status, with_needed
from flows.process import EndedError, ended_by_signals, stream
from tasks.params import load_params

# What passes by itself and is worth another try; a stage's own verdict is not.
PASSING = re.compile(
    r"unable to acquire lock|connection (reset|refused|timed out)|temporarily unavailable|timed? ?out", re.IGNORECASE
)
RETRIES = 2
SKIPPED = re.compile(r"didn't change, skipping")
CACHED = re.compile(r"is cached - skipping run")


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=int(os.environ.get("PIPELINE_WORKERS", "2"))), log_prints=False)
def retrain(update: bool = True, force: bool = False, stages: list[str] | None = None, time_limit: float | None = None) -> State:
    """Update the images and reproduce the pipeline.

    Args:
        update: Ask the source of the images for changes first (a folder tracked by `dvc add` records its changes).
        force: Run stages even where nothing changed.
        stages: Only these stages and what they need, such as `train@cnn_a`; all when empty.
        time_limit: Seconds that one stage may take; none when empty.
    """
    log = get_run_logger()
    load_params()
    if update:
        source.update()
    changed = read_status()
    if not (changed or force):
        log.info("nothing changed")
        return Completed(message="nothing changed")
    graph = read_graph()
    wanted = with_needed(stages or list(graph), graph)
    with ended_by_signals():
        futures = submit({stage: needed for stage, needed in graph.items() if stage in wanted}, force, time_limit)
        states = {stage: future.wait() or future.state for stage, future in futures.items()}
    tell(states, changed)
    failed = [stage for stage, state in states.items() if state.is_failed() or state.is_crashed()]
    waiting = [stage for stage, state in states.items() if not state.is_final()]
    if failed:
        raise RuntimeError(
            f"failed: {', '.join(failed)}; not run because of it: {', '.join(waiting) or 'none'}. Run again to go on from here."
        )
    return Completed(message=f"{len(states)} stages are up to date")


@task(retries=RETRIES, retry_delay_seconds=5, retry_condition_fn=lambda task, run, state: is_passing(state))
def reproduce(stage: str, force: bool, time_limit: float | None) -> State:
    """Let DVC bring one stage up to date; its lines go to the log."""
    log = get_run_logger()
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        log.info(line)

    command = ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
    status = stream([sys.executable, "-m", *command], on_line, time_limit)
    text = "\n".join(lines)
    if status != 0:
        raise RuntimeError(f"{stage} failed: {reason(lines)}")
    if SKIPPED.search(text):
        return Completed(name="Skipped", message="nothing it depends on changed")
    if CACHED.search(text):
        return Completed(name="Cached", message="taken from DVC's run cache")
    return Completed(message="done")


def submit(graph: dict[str, list[str]], force: bool, time_limit: float | None) -> dict[str, PrefectFuture]:
    """Submit one task run per stage, each waiting for the stages it needs; the verb is the task, the stage the run."""
    futures: dict[str, PrefectFuture] = {}
    for stage, needed in graph.items():
        verb = reproduce.with_options(name=stage.partition("@")[0], task_run_name=stage)
        futures[stage] = verb.submit(stage, force, time_limit, wait_for=[futures[name] for name in needed])
    return futures


def is_passing(state: State) -> bool:
    """Say whether a failure may pass by itself: a lock or a network, but never an ended process."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RuntimeError) and not isinstance(error, EndedError) and bool(PASSING.search(str(error)))


def reason(lines: list[str]) -> str:
    """Return what a failed stage said: from its last `error:` line on, else its last lines."""
    own = [line for line in lines if not line.startswith(("ERROR: failed to reproduce", "Running stage", "> "))]
    start = max((number for number, line in enumerate(own) if line.lower().startswith("error:")), default=max(len(own) - 5, 0))
    return "\n".join(own[start:]).strip()


def tell(states: dict[str, State], changed: dict[str, list]) -> None:
    """Leave a Markdown artefact: what changed, each stage's state, and the report's short form."""
    rows = "\n".join(f"| {stage} | {state.name} | {'changed' if stage in changed else ''} |" for stage, state in states.items())
    report = Path("data/report/report.md")
    text = report.read_text() if report.exists() and all(state.is_completed() for state in states.values()) else ""
    create_markdown_artifact(
        f"{text}\n\n| stage | state | before |\n|---|---|---|\n{rows}\n", key="retrain", description="What the run did"
    )


def main() -> None:
    """Run the flow once and print where everything is."""
    try:
        retrain()
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f"\nerror: {error}")
    print(Path("data/report/report.md").read_text())
    for what, where in {
        "report": Path("data/report/report.html").resolve(),
        "comparison": "data/comparison.csv",
        "models": "data/models/",
        "registry": f"{os.environ.get('MLFLOW_TRACKING_URI', 'sqlite:///mlflow.db')} (make ui)",
    }.items():
        print(f"{what:>10}: {where}")


if __name__ == "__main__":
    main()
