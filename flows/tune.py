"""Search for better values of an architecture: workers run `python -m tasks.tuning.trials`.

python -m flows.tune cnn_a                       # Hyperband in the search space of params.yaml
python -m flows.tune cnn_a --workers 2 --minutes 60          # continues a search
python -m flows.tune cnn_a --search random --minutes 60      # random search, for comparison
python -m flows.tune cnn_a --minutes 0 --write   # writes the best values to params.yaml
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import terminal
from flows.artifacts import Progress, make_key
from flows.graph import downstream, read_arguments, read_graph, read_status, upstream
from flows.process import EndedError, end_together
from flows.project_lock import hold_lock
from flows.reproduce import Plan, conclude, submit
from flows.server import connect
from flows.stage_outcome import find_reason, run_command
from flows.store import open_store
from flows.terminal import open_display
from tasks.errors import UserError, exit_with_message
from tasks.imaging.bit_depth import read_bit_depth
from tasks.params.read import PARAMS
from tasks.params.whole import load_params
from tasks.terminal import make_table
from tasks.tuning import study
from tasks.tuning.search import KINDS, Inputs, Search, define, find_space
from tasks.tuning.write_back import format_value, write_values

SHOWN = 10  # trials in the table
INPUTS = ("--architecture", "--clean", "--splits-csv", "--class-weights", "--decoding-json")


@dataclass(frozen=True)
class Options:
    """The parameters of a search, see `tune`."""

    architecture: str
    kind: str
    trials: int | None
    minutes: float | None
    workers: int
    write: bool


@flow(name="tune", task_runner=ThreadPoolTaskRunner(), persist_result=False)
def tune(  # noqa: PLR0913, PLR0917 -- Prefect's page has a field for each parameter
    architecture: str,
    search: Literal["hyperband", "random"] = "hyperband",
    trials: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    write: bool = False,
) -> State:
    """Search until a number of trials or a time is reached.

    The table of the best trials becomes an artifact of the run.

    Args:
        architecture: An architecture with a search space in `tune.space` of params.yaml.
        search: Hyperband stops poor trials early and learns from good ones. Random search does
            neither.
        trials: The number of trials over all starts. Empty takes the number in params.yaml.
        minutes: The time after which the search stops. Unfinished trials continue at the next
            start. 0 runs no trial.
        workers: The number of processes that run trials at once. A search with one worker is
            reproducible.
        write: Write the best values to params.yaml.
    """
    try:
        with end_together():
            return run_search(Options(architecture, search, trials, minutes, workers, write))
    except EndedError as error:
        return Failed(name="Ended", message=str(error))
    except UserError as error:
        return Failed(message=str(error))


def run_search(options: Options) -> State:
    """Do what `tune` promises."""
    refuse_too_small(options)
    find_space(load_params(), options.architecture)
    prepared = prepare(options.architecture)
    if not prepared.is_completed():
        return prepared
    inputs = read_training_options(options.architecture)
    states = [] if options.minutes == 0 else run_workers(options, make_command(options, inputs))
    searches = load_searches(options.architecture, inputs)
    text = summarize(searches, options.kind)
    get_run_logger().info("\n%s", text, extra={"stage_line": True})
    print_search(searches, options.kind)
    create_markdown_artifact(
        text,
        key=make_key(f"tune-{options.architecture}"),
        description=f"The search for {options.architecture}",
    )
    failures = [state.message for state in states if not state.is_completed()]
    if failures:
        kept = "finished trials are kept: run again to continue from here"
        return Failed(message="\n".join([*dict.fromkeys(failures), kept]))
    return Completed(message=hand_over(searches[options.kind], options.write))


def refuse_too_small(options: Options) -> None:
    """Raise `UserError` for a number below its minimum."""
    for name, value, least in (
        ("trials", options.trials, 1),
        ("minutes", options.minutes, 0),
        ("workers", options.workers, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name}: received {value:g}, expected at least {least}")


def make_command(options: Options, inputs: dict[str, str]) -> list[str]:
    """Return the command of a worker."""
    given = {"--kind": options.kind, "--trials": options.trials, "--minutes": options.minutes}
    known = {option: value for option, value in (inputs | given).items() if value is not None}
    words = [str(word) for pair in known.items() for word in pair]
    return [sys.executable, "-m", "tasks.tuning.trials", *words]


def load_searches(architecture: str, inputs: dict[str, str]) -> dict[str, Search]:
    """Return the search of each kind for an architecture."""
    files = Path(inputs["--splits-csv"]), Path(inputs["--class-weights"])
    bits = read_bit_depth(Path(inputs["--decoding-json"]))
    data = Inputs(*files, bits)
    return {name: define(load_params(), architecture, name, data) for name in KINDS}


def prepare(architecture: str) -> State:
    """Bring the inputs of the training of an architecture up to date."""
    with hold_lock("wait"):
        graph = read_graph()
        wanted = upstream(graph[f"train@{architecture}"], graph)
        stale = downstream(set(read_status()), graph) & wanted
        needed = {stage: graph[stage] for stage in graph if stage in wanted}
        states = submit(Plan(needed, stale)) if stale else {}
        open_store()
    return conclude(states)


def read_training_options(architecture: str) -> dict[str, str]:
    """Return the options of the training that name its inputs."""
    given = read_arguments(f"train@{architecture}")
    return {option: given[option] for option in INPUTS}


def run_workers(options: Options, command: list[str]) -> list[State]:
    """Run the workers side by side, and return their final states."""
    names = [f"worker {number}" for number in range(1, options.workers + 1)]
    terminal.current().begin(names)
    futures = [
        work.with_options(task_run_name=f"worker {number}").submit(
            options.architecture, command, number if options.workers > 1 else 0
        )
        for number in range(1, options.workers + 1)
    ]
    for future in futures:
        future.wait()
    return [future.state for future in futures]


@task(name="worker", cache_policy=NO_CACHE, persist_result=False)
def work(architecture: str, command: list[str], number: int) -> State:
    """Run one worker, and log its lines. Several workers have a number in front of each line."""
    suffix, prefix = (f"-{number}", f"[{number}] ") if number else ("", "")
    log, progress = get_run_logger(), Progress(f"tune-{architecture}{suffix}")
    display, name = terminal.current(), f"worker {number or 1}"

    def show(line: str) -> None:
        log.info("%s%s", prefix, line, extra={"stage_line": True})
        progress.note(line)
        display.show(name, line)

    display.start(name)
    state = run_worker(command, show)
    display.end(name, state)
    return state


def run_worker(command: list[str], show: Callable[[str], None]) -> State:
    """Run the command of a worker, and return its state."""
    try:
        status, lines = run_command(command, show)
    except EndedError as error:
        return Failed(name="Ended", message=f"the search was {error}")
    if status:
        return Failed(message=find_reason(lines) or f"a worker ended with status {status}")
    return Completed(message="done")


def print_search(searches: dict[str, Search], kind: str) -> None:
    """Print the best trials, and a line on each kind of search."""
    found = study.find(searches[kind])
    heads, *rows = list_trials(found[:SHOWN], searches[kind])
    title = f"{searches[kind].architecture}: the best of {len(found)} trials"
    lines = (describe_search(name, one) for name, one in searches.items())
    terminal.current().print(make_table(heads, rows, title, best=0), *filter(None, lines))


def summarize(searches: dict[str, Search], kind: str) -> str:
    """Return the best trials of a search in Markdown, and a line on each kind of search."""
    found = study.find(searches[kind])
    counts = filter(None, (describe_search(name, one) for name, one in searches.items()))
    title = f"### {searches[kind].architecture}: the best of {len(found)} trials"
    heads, *rows = list_trials(found[:SHOWN], searches[kind])
    table = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join([title, "", *table, "", *counts])


def hand_over(search: Search, write: bool) -> str:
    """Return the best values and the next command; write the values to params.yaml if asked."""
    best = study.pick_best(study.find(search))
    if best is None:
        return "no trial has finished yet: run again to continue"
    values = study.values_to_write(best)
    listed = ", ".join(f"{path}: {format_value(value)}" for path, value in values.items())
    lines = [f"best values, from trial {best.number}: {listed}"]
    if write:
        write_values(PARAMS, search.architecture, values)
        lines.append(f"they are written to {PARAMS}; next: make run   # or: dvc repro")
    else:
        kind = "" if search.kind == KINDS[0] else f" --search {search.kind}"
        command = f"python -m flows.tune {search.architecture}{kind} --minutes 0 --write"
        lines.append(f"next: {command}   # writes them to {PARAMS}")
    return "\n".join(lines)


def describe_search(name: str, search: Search) -> str:
    """Return one line on a search: its trials, time and best score. Without trials return ""."""
    found = study.find(search)
    if not found:
        return ""
    best, states = study.pick_best(found), [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    score = f"best {search.tune.objective} {best.score:.4f}" if best else "none finished"
    minutes = sum(one.seconds for one in found) / 60
    return f"- {name}: {len(found)} trials ({counts}), {minutes:.1f} minutes of training, {score}"


def list_trials(found: list[study.Outcome], search: Search) -> list[list[str]]:
    """Return the heads of a table of trials, and its rows."""
    heads = ["trial", "state", search.tune.objective, "epochs", "seconds", *search.space]
    rows = [
        [
            str(one.number),
            one.state,
            "" if one.score is None else f"{one.score:.4f}",
            str(one.epochs or one.step),
            f"{one.seconds:.0f}",
            *(
                format_value(one.values[path]) if path in one.values else ""
                for path in search.space
            ),
        ]
        for one in found
    ]
    return [heads, *rows]


def main() -> None:
    """Run the flow once, and print the best values."""
    arguments = parse_arguments()
    try:
        with exit_with_message():
            # The most frequent mistakes are reported before a server starts.
            find_space(load_params(), str(arguments["architecture"]))
            with open_display() as display, connect(display.say):
                state = tune(**arguments, return_state=True)
    except KeyboardInterrupt:
        print("\ninterrupted; finished trials are kept: run again to continue", file=sys.stderr)
        sys.exit(130)
    if not state.is_completed():
        sys.exit(f"\nerror: {state.message.removeprefix('error: ')}")
    print(f"\n{state.message}")


def parse_arguments() -> dict[str, object]:
    """Return the parameters of the flow from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.tune", description="Search for better values of an architecture."
    )
    parser.add_argument(
        "architecture", help="an architecture with a search space in tune.space of params.yaml"
    )
    parser.add_argument(
        "--search",
        choices=KINDS,
        default=KINDS[0],
        help="Hyperband (default), or random search for comparison",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="number of trials over all starts (default: tune.trials of params.yaml)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="time after which the search stops; the next start continues it",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that run trials at once (default: 1)",
    )
    parser.add_argument("--write", action="store_true", help="write the best values to params.yaml")
    return vars(parser.parse_args())


if __name__ == "__main__":
    main()
