"""Score a model on another folder of labelled images: `tasks.assessment.assess` as a Prefect run.

python -m flows.assess --images /data/other_hospital --model champion --classes classes.yaml
prefect deployment run assess/labelled --param images=/data/other_hospital
"""

import argparse
import re
import sys
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State
from rich.markdown import Markdown

from flows import terminal
from flows.process import EndedError, end_together
from flows.server import connect
from flows.stage_outcome import find_reason, run_command
from flows.terminal import open_display
from tasks.errors import exit_with_message

ASSESSMENTS = Path("data/assessments")
NAME = "assess"


@flow(name="assess", persist_result=False)
def assess(  # noqa: PLR0913, PLR0917 -- Prefect's page has a field for each parameter
    images: str,
    model: str = "champion",
    name: str | None = None,
    classes: str | None = None,
    output: str | None = None,
    time_limit: float | None = None,
) -> State:
    """Write the report of a model on the images of a folder. The folder is only read.

    The short report becomes an artifact of the run.

    Args:
        images: A folder with a folder of images for each class, or with splits that hold such
            folders.
        model: An alias such as champion, a version, or the folder of a model.
        name: The name of the registered model. Empty takes the name in params.yaml.
        classes: A YAML file of lines `folder: class`, for folders that are not named like the
            model's classes.
        output: The folder to write. Empty takes data/assessments/<folder>-<model>.
        time_limit: Seconds after which the run is ended.
    """
    terminal.current().start(NAME)
    folder = Path(output) if output else default_output(images, model)
    command = [sys.executable, "-m", "tasks.assessment.assess", "--images", images]
    command += ["--model", model, "--output", str(folder)]
    for option, value in (("--name", name), ("--classes", classes)):
        command += [option, value] if value else []
    try:
        with end_together():
            status, lines = run_command(command, show, time_limit)
    except EndedError as error:
        return end(Failed(name="Ended", message=str(error)))
    if status != 0:
        return end(Failed(message=find_error(lines)))
    short = (folder / "report.md").read_text(encoding="utf-8")
    create_markdown_artifact(short, key="assess", description=f"{model} on {images}")
    terminal.current().print(Markdown(short))
    return end(Completed(message=f"report: {folder / 'report.html'}"))


def show(line: str) -> None:
    """Log a line, and show it to a person."""
    get_run_logger().info(line, extra={"stage_line": True})
    terminal.current().show(NAME, line)


def end(state: State) -> State:
    """Show the end of the assessment to a person, and return its state."""
    terminal.current().end(NAME, state)
    return state


def find_error(lines: list[str]) -> str:
    """Return all lines from `error:` on: they hold the whole draft of a file for `--classes`."""
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[starts[0] :]) if starts else find_reason(lines)


def default_output(images: str, model: str) -> Path:
    """Return the folder of an assessment; the same images and model give the same folder."""
    words = [Path(images).resolve().name, Path(model).name]
    return ASSESSMENTS / "-".join(re.sub(r"[^\w.]+", "_", word) for word in words)


def main() -> None:
    """Run the flow once, and print its result."""
    arguments = parse_arguments()
    try:
        with exit_with_message(), open_display() as display, connect(display.say):
            state = assess(**arguments, return_state=True)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    if not state.is_completed():
        sys.exit(f"\nerror: {state.message.removeprefix('error: ')}")
    print(state.message)


def parse_arguments() -> dict[str, object]:
    """Return the parameters of the flow from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.assess", description="Score a model on another folder of images."
    )
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help="a folder with a folder of images for each class; it is only read",
    )
    parser.add_argument(
        "--model",
        default="champion",
        help="champion (default), challenger, a version, or the folder of a model",
    )
    parser.add_argument(
        "--name", help="name of the registered model (default: register.model of params.yaml)"
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="YAML lines `folder: class`; the class null leaves a folder out",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder to write (default: data/assessments/<folder>-<model>)",
    )
    return vars(parser.parse_args())


if __name__ == "__main__":
    main()
