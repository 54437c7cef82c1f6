"""Show what `make run` would do, and why, before it runs: `python -m flows.plan` (`make plan`).

It lists each stale stage with the reason in DVC's status, an estimate of its time, peak memory and
disk, and the content of the caches. Nothing is run and nothing changes.
"""

import argparse
import heapq
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

from rich.text import Text

from flows.artifacts import describe_changes
from flows.estimate import Estimate, make_estimator
from flows.graph import downstream, has_cached_run, read_graph, read_status, upstream
from flows.progress import describe_seconds
from tasks.errors import exit_with_message
from tasks.params.whole import load_params
from tasks.terminal import make_console, make_table

CACHES = {
    "decoded images": ".cache/arrays",
    "features of backbones": ".cache/features",
    "checkpoints of unfinished trainings": ".cache/checkpoints",
    "outputs of earlier runs (DVC)": ".dvc/cache",
}
NAMED = 2  # names that a reason lists


def main() -> None:
    """Print the plan of a run."""
    stages = parse_arguments().stages
    with exit_with_message():
        load_params()
        with redirect_stderr(io.StringIO()):  # no terminal, so DVC draws no bars
            graph, status = read_graph(), read_status()
        wanted = upstream(stages or list(graph), graph)
        changed = {name: changes for name, changes in status.items() if name in wanted}
        stale = [stage for stage in graph if stage in downstream(set(changed), graph) & wanted]
        print_plan(graph, changed, stale)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.plan", description="Show what a run would do, why, and its cost."
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        metavar="STAGE",
        help="only these stages and those that they need, such as train@cnn_a",
    )
    return parser.parse_args()


def print_plan(graph: dict[str, list[str]], changed: dict[str, list], stale: list[str]) -> None:
    """Print the stages that would run, the sums, and the caches."""
    console = make_console()
    if not stale:
        console.print(f"nothing to run: all {len(graph)} stages are up to date")
        print_caches()
        return
    with redirect_stderr(io.StringIO()):
        cached = {stage for stage in changed if has_cached_run(stage)}
    estimator = make_estimator([stage for stage in stale if stage not in cached])
    estimates = {
        stage: Estimate(1.0, 0.0, 0.0, "cache") if stage in cached else estimator.estimate(stage)
        for stage in stale
    }
    needed = {stage: [name for name in graph[stage] if name in estimates] for stage in estimates}
    rows = [
        [
            stage,
            describe_seconds(one.seconds) if one.memory_mb else "",
            f"{one.memory_mb:,.0f} MB" if one.memory_mb else "",
            f"{one.disk_mb:,.1f} MB" if one.disk_mb else "",
            one.source,
            find_reason(stage, changed, needed[stage], cached=stage in cached),
        ]
        for stage, one in estimates.items()
    ]
    columns = ["stage", "time", "memory", "disk", "source", "why"]
    console.print(make_table(columns, rows))
    console.print(summarize(graph, estimates))
    print_caches()


def find_reason(stage: str, changed: dict[str, list], needed: list[str], *, cached: bool) -> str:
    """Return why a stage runs: its own changes, else the stale stages that it needs."""
    if cached:
        return "its outputs are in DVC's run cache"
    reasons = list(explain_changes(changed.get(stage, [])))
    if needed and not reasons:
        reasons = [f"needs {list_some(needed)}"]
    return "; ".join(reasons) or describe_changes(changed.get(stage, []))


def explain_changes(changes: list) -> Iterator[str]:
    """Yield the reasons in DVC's status of a stage; changed outputs elsewhere do not count."""
    kinds = {kind: found for one in changes if isinstance(one, dict) for kind, found in one.items()}
    outs = kinds.get("changed outs", {})
    if {"deleted", "not in cache"}.intersection(outs.values()):
        yield "no outputs here yet"
        return
    if any(one == "changed command" for one in changes):
        yield "its command changed"
    found = kinds.get("changed deps", {})
    for path, keys in found.items():
        if isinstance(keys, dict):
            yield f"{path}: {list_some(list(keys))}"
    if "data/raw" in found:
        yield "the images changed"
    code = [path for path in found if path.startswith("tasks/")]
    if code:
        yield f"code changed: {list_some(code)}"
    if outs:
        yield f"{list_some(list(outs))} changed by hand"


def list_some(names: list[str]) -> str:
    """Return the first names, and the number of the others."""
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def summarize(graph: dict[str, list[str]], estimates: dict[str, Estimate]) -> Text:
    """Return the number of stages, and their time, memory and disk together."""
    workers = int(os.environ.get("PIPELINE_WORKERS", "2"))
    seconds = schedule(graph, {stage: one.seconds for stage, one in estimates.items()}, workers)
    memory = sorted((one.memory_mb for one in estimates.values()), reverse=True)
    disk = sum(one.disk_mb or 0 for one in estimates.values())
    free = shutil.disk_usage(".").free / 1e9
    return Text.assemble(
        (f"{len(estimates)} of {len(graph)} stages", "bold"),
        f" would run, {workers} at once: about ",
        (describe_seconds(seconds), "bold"),
        f",\nup to {sum(memory[:workers]) / 1000:.1f} GB of memory, {disk:,.0f} MB of disk "
        f"({free:.0f} GB are free). Early stopping may end trainings sooner.",
    )


def schedule(graph: dict[str, list[str]], seconds: dict[str, float], workers: int) -> float:
    """Return the time of a run in which each stage takes its seconds, some of them at once."""
    waiting = [stage for stage in graph if stage in seconds]
    running: list[tuple[float, str]] = []
    now, open_stages = 0.0, set(waiting)
    while open_stages:
        ready = [stage for stage in waiting if not open_stages.intersection(graph[stage])]
        for stage in ready[: workers - len(running)]:
            waiting.remove(stage)
            heapq.heappush(running, (now + seconds[stage], stage))
        now, ended = heapq.heappop(running)
        open_stages.remove(ended)
    return now


def print_caches() -> None:
    """Print the caches that exist, and their sizes."""
    found = {name: _size(Path(folder)) for name, folder in CACHES.items() if Path(folder).exists()}
    console = make_console()
    if found:
        console.print("\nin the caches:", style="dim")
    for name, size in found.items():
        console.print(Text(f"  {size / 1e6:>10,.1f} MB  {name}"))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
