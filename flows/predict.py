"""Answer a folder of images as a run of Prefect: what `python -m serving.predict` does, watched, ended and scheduled.

prefect deployment run predict/folder --param images='["/scans"]' --param output=/scans/predictions.csv
"""

import sys

from prefect import flow, get_run_logger
from prefect.states import Completed, Failed, State

from flows.process import EndedError, ended_together
from flows.stage_outcome import hear, reason

SOME_UNANSWERED = 3  # as the command line ends


@flow(name="predict", persist_result=False)
def predict(
    images: list[str],
    output: str = "predictions.csv",
    model: str = "champion",
    name: str | None = None,
    explain: str | None = None,
    time_limit: float | None = None,
) -> State:
    """Have a row in `output` for every image. What it has already is not computed again, so a run that was ended goes on.

    Args:
        images: Image files, and folders of any depth.
        output: The CSV file to write, or to go on with.
        model: An alias such as champion, a version, a model's folder, or a pretrained one such as imagenet:VGG16.
        name: Of the registered model; params.yaml says it when empty.
        explain: A folder for pictures of where the model looked; none when empty.
        time_limit: Seconds after which the run is ended.
    """
    words = ["--output", output, "--model", model]
    for option, value in (("--name", name), ("--explain", explain)):
        words += [option, value] if value else []
    try:
        with ended_together():
            command = [sys.executable, "-m", "serving.predict", *words, "--", *images]
            status, lines = hear(command, get_run_logger().info, time_limit)
    except EndedError as error:
        return Failed(name="Ended", message=f"{error}; run again to go on from here")
    if status not in (0, SOME_UNANSWERED):
        return Failed(message=reason(lines))
    return Completed(name="Incomplete" if status else None, message=lines[-1])
