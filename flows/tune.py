"""Search better values for an architecture, by workers side by side: `python -m tasks.tuning.trials`, watched and ended.

python -m flows.tune cnn_a                       # Hyperband over the ranges in params.yaml; run again, it goes on
python -m flows.tune cnn_a --workers 2 --minutes 60
python -m flows.tune cnn_a --search random --minutes 60     # for comparison
python -m flows.tune cnn_a --minutes 0 --write   # write the best values found so far to params.yaml
"""

import argparse
import sys
from pathlib import Path
from typing import Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import Progress, key
from flows.graph import downstream, read_arguments, read_graph, read_status, upstream
from flows.process import EndedError, ended_together
from flows.project_lock import hold_lock
from flows.reproduce import Plan, conclude, submit
from flows.server import connected
from flows.stage_outcome import hear, reason
from flows.store import open_store
from tasks.errors import UserError, exit_with_message
from tasks.imaging import decoding
from tasks.params.read import PARAMS
from tasks.params.whole import load_params
from tasks.tuning import study
from tasks.tuning.search import KINDS, Inputs, Search, define, find_space
from tasks.tuning.write_back import format_value, write_values

SHOWN = 10  # trials in the table
INPUTS = ("--architecture", "--clean", "--splits-csv", "--class-weights", "--decoding-json")


@flow(name="tune", task_runner=ThreadPoolTaskRunner(), persist_result=False)
def tune(
    architecture: str,
    search: Literal["hyperband", "random"] = "hyperband",
    trials: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    write: bool = False,
) -> State:
    """Search until there are so many trials, or the time is over; leave the table of the best as an artefact.

    Args:
        architecture: One that `tune.space` of params.yaml has ranges for.
        search: Hyperband, which stops poor trials early and learns from good ones; or random search, which does neither.
        trials: How many there shall be in all, over all starts; params.yaml says it when empty.
        minutes: After which no trial begins or goes on; what is unfinished goes on at the next start. 0 searches no more.
        workers: Processes side by side. With one alone, equal seeds give equal trials.
        write: Write the best values to params.yaml.
    """
    try:
        with ended_together():
            return work(architecture, search, trials, minutes, workers, write)
    except EndedError as error:
        return Failed(name="Ended", message=str(error))
    except UserError as error:
        return Failed(message=str(error))


def work(
    architecture: str,
    kind: str,
    trials: int | None,
    minutes: float | None,
    workers: int,
    write: bool,
) -> State:
    """Do what `tune` promises."""
    for name, value, least in (
        ("trials", trials, 1),
        ("minutes", minutes, 0),
        ("workers", workers, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name}: received {value:g}, expected at least {least}")
    find_space(load_params(), architecture)
    prepared = prepare(architecture)
    if not prepared.is_completed():
        return prepared
    inputs = inputs_of(architecture)
    given = inputs | {"--kind": kind, "--trials": trials, "--minutes": minutes}
    words = [
        str(word)
        for option, value in given.items()
        if value is not None
        for word in (option, value)
    ]
    command = [sys.executable, "-m", "tasks.tuning.trials", *words]
    states = [] if minutes == 0 else run(architecture, command, workers)
    files = Path(inputs["--splits-csv"]), Path(inputs["--class-weights"])
    data = Inputs(*files, decoding.read(Path(inputs["--decoding-json"])).bits)
    searches = {name: define(load_params(), architecture, name, data) for name in KINDS}
    text = summary(searches, kind)
    get_run_logger().info("\n%s", text)
    create_markdown_artifact(
        text, key=key(f"tune-{architecture}"), description=f"The search for {architecture}"
    )
    failures = [state.message for state in states if not state.is_completed()]
    if failures:
        return Failed(
            message="\n".join(
                [*dict.fromkeys(failures), "what is finished is kept: run again to go on from here"]
            )
        )
    return Completed(message=hand_over(searches[kind], write))


def prepare(architecture: str) -> State:
    """Bring up to date what the training of the architecture reads."""
    with hold_lock("wait"):
        graph = read_graph()
        wanted = upstream(graph[f"train@{architecture}"], graph)
        stale = downstream(set(read_status()), graph) & wanted
        states = (
            submit(Plan({stage: graph[stage] for stage in graph if stage in wanted}, stale))
            if stale
            else {}
        )
        open_store()
    return conclude(states)


def inputs_of(architecture: str) -> dict[str, str]:
    """Return the options of the training that say what it reads: architecture, images, splits, class weights."""
    given = read_arguments(f"train@{architecture}")
    return {option: given[option] for option in INPUTS}


def run(architecture: str, command: list[str], workers: int) -> list[State]:
    """Run so many workers side by side; return how each of them ended."""
    futures = [
        worker.with_options(task_run_name=f"worker {number}").submit(
            architecture, command, number if workers > 1 else 0
        )
        for number in range(1, workers + 1)
    ]
    for future in futures:
        future.wait()
    return [future.state for future in futures]


@task(cache_policy=NO_CACHE, persist_result=False)
def worker(architecture: str, command: list[str], number: int) -> State:
    """Run one worker; its lines go to the log, with its number where there are several."""
    log, progress = (
        get_run_logger(),
        Progress(f"tune-{architecture}{f'-{number}' if number else ''}"),
    )

    def show(line: str) -> None:
        log.info("%s%s", f"[{number}] " if number else "", line)
        progress.note(line)

    try:
        status, lines = hear(command, show)
    except EndedError as error:
        return Failed(name="Ended", message=f"the search was {error}")
    return (
        Failed(message=reason(lines) or f"a worker ended with status {status}")
        if status
        else Completed(message="done")
    )


def summary(searches: dict[str, Search], kind: str) -> str:
    """Return in Markdown what was found, and what the other kind of search has found."""
    found = study.find(searches[kind])
    counts = filter(None, (told(name, one) for name, one in searches.items()))
    title = f"### {searches[kind].architecture}: the best of {len(found)} trials"
    return "\n".join([title, "", *table(found[:SHOWN], searches[kind]), "", *counts])


def hand_over(search: Search, write: bool) -> str:
    """Write the best values to params.yaml where that is asked; return them and what to do next."""
    best = study.pick_best(study.find(search))
    if best is None:
        return "no trial has finished yet: run again to go on"
    values = study.values_to_write(best)
    lines = [
        f"best values, of trial {best.number}: {', '.join(f'{path}: {format_value(value)}' for path, value in values.items())}"
    ]
    if write:
        write_values(PARAMS, search.architecture, values)
        lines.append(f"they are written to {PARAMS}; next: make run   # or: dvc repro")
    else:
        kind = "" if search.kind == KINDS[0] else f" --search {search.kind}"
        lines.append(
            f"next: python -m flows.tune {search.architecture}{kind} --minutes 0 --write   # writes them to {PARAMS}"
        )
    return "\n".join(lines)


def told(name: str, search: Search) -> str:
    """Return one line on a search: how many trials, how long, how good; "" where there was none."""
    found = study.find(search)
    if not found:
        return ""
    best, states = study.pick_best(found), [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    score = f"best {search.tune.objective} {best.score:.4f}" if best else "none finished"
    return f"- {name}: {len(found)} trials ({counts}), {sum(one.seconds for one in found) / 60:.1f} minutes of training, {score}"


def table(found: list[study.Outcome], search: Search) -> list[str]:
    """Return trials as lines of a Markdown table."""
    heads = ["trial", "state", search.tune.objective, "epochs", "seconds", *search.space]
    rows = [
        [
            one.number, one.state, "" if one.score is None else f"{one.score:.4f}", one.epochs or one.step, f"{one.seconds:.0f}",
            *(format_value(one.values[path]) if path in one.values else "" for path in search.space),
        ]
        for one in found
    ]  # fmt: skip
    return ["| " + " | ".join(map(str, row)) + " |" for row in (heads, ["---"] * len(heads), *rows)]


def main() -> None:
    """Run the flow once, and print what was found."""
    arguments = parse()
    try:
        with exit_with_message():
            find_space(
                load_params(), arguments["architecture"]
            )  # the most frequent mistakes, told before a server starts
            with connected():
                state = tune(**arguments, return_state=True)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; finished trials are kept: run again to go on from here", file=sys.stderr
        )
        sys.exit(130)
    if not state.is_completed():
        sys.exit(f"\nerror: {state.message.removeprefix('error: ')}")
    print(f"\n{state.message}")


def parse() -> dict[str, object]:
    """Return the parameters of the flow that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.tune", description="Search better values for an architecture."
    )
    parser.add_argument("architecture", help="one that tune.space of params.yaml has ranges for")
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
        help="in all, over all starts; default: tune.trials of params.yaml",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="then stop; what is unfinished goes on at the next start",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes side by side; default: 1"
    )
    parser.add_argument("--write", action="store_true", help="write the best values to params.yaml")
    return vars(parser.parse_args())


if __name__ == "__main__":
    main()
