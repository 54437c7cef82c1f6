"""Score a model on a foreign folder of labelled images: `python -m tasks.assessment.assess` as a run of Prefect.

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

from flows.process import EndedError, ended_together
from flows.server import connected
from flows.stage_outcome import hear, reason
from tasks.errors import exit_with_message

ASSESSMENTS = Path("data/assessments")


@flow(name="assess", persist_result=False)
def assess(
    images: str,
    model: str = "champion",
    name: str | None = None,
    classes: str | None = None,
    output: str | None = None,
    time_limit: float | None = None,
) -> State:
    """Write the report of `model` on the images of a folder, which is only read, and leave its short form as an artefact.

    Args:
        images: A folder with a folder of images for each class, or with parts that hold such folders.
        model: An alias such as champion, a version, or a model's folder.
        name: Of the registered model; params.yaml says it when empty.
        classes: A YAML file of lines `folder: class`, for folders that are not named like the model's classes.
        output: The folder to write; by default data/assessments/<folder>-<model>.
        time_limit: Seconds after which the run is ended.
    """
    folder = Path(output) if output else default_output(images, model)
    command = [
        sys.executable,
        "-m",
        "tasks.assessment.assess",
        "--images",
        images,
        "--model",
        model,
        "--output",
        str(folder),
    ]
    for option, value in (("--name", name), ("--classes", classes)):
        command += [option, value] if value else []
    try:
        with ended_together():
            status, lines = hear(command, get_run_logger().info, time_limit)
    except EndedError as error:
        return Failed(name="Ended", message=str(error))
    if status != 0:
        start = next(
            (number for number, line in enumerate(lines) if line.startswith("error: ")), None
        )
        return Failed(
            message=reason(lines) if start is None else "\n".join(lines[start:])
        )  # with the whole draft of --classes
    create_markdown_artifact(
        (folder / "report.md").read_text(encoding="utf-8"),
        key="assess",
        description=f"{model} on {images}",
    )
    return Completed(message=f"report: {folder / 'report.html'}")


def default_output(images: str, model: str) -> Path:
    """Return where an assessment goes: equal words, equal place."""
    words = [Path(images).resolve().name, Path(model).name]
    return ASSESSMENTS / "-".join(re.sub(r"[^\w.]+", "_", word) for word in words)


def main() -> None:
    """Run the flow once, and print its short report."""
    arguments = parse()
    try:
        with exit_with_message(), connected():
            state = assess(**arguments, return_state=True)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    if not state.is_completed():
        sys.exit(f"\nerror: {state.message.removeprefix('error: ')}")
    print(state.message)


def parse() -> dict[str, object]:
    """Return the parameters of the flow that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.assess", description="Score a model on a foreign folder of images."
    )
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help="a folder of images for each class; it is only read",
    )
    parser.add_argument(
        "--model",
        default="champion",
        help="champion (default), challenger, a version, or a model's folder",
    )
    parser.add_argument(
        "--name", help="of the registered model; default: register.model of params.yaml"
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="YAML lines `folder: class`; null leaves a folder out"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="default: data/assessments/<folder>-<model>"
    )
    return vars(parser.parse_args())


if __name__ == "__main__":
    main()
