"""Predict the classes of a folder of images: `python -m serving.predict` as a Prefect run.

prefect deployment run predict/folder --param images='["/scans"]' --param output=/scans/out.csv
"""

import sys

from prefect import flow, get_run_logger
from prefect.states import Completed, Failed, State

from flows.process import EndedError, end_together
from flows.stage_outcome import find_reason, run_command

SOME_UNANSWERED = 3  # exit status of serving.predict


@flow(name="predict", persist_result=False)
def predict(  # noqa: PLR0913, PLR0917 -- Prefect's page has a field for each parameter
    images: list[str],
    output: str = "predictions.csv",
    model: str = "champion",
    name: str | None = None,
    explain: str | None = None,
    time_limit: float | None = None,
) -> State:
    """Write a row of `output` for each image.

    Rows that `output` has already are kept, so a run that was ended can continue.

    Args:
        images: Image files, and folders of any depth.
        output: The CSV file to write or to continue.
        model: An alias such as champion, a version, the folder of a model, or a pretrained model
            such as imagenet:VGG16.
        name: The name of the registered model. Empty takes the name in params.yaml.
        explain: A folder for heat maps that show where the model looked. Empty writes no heat maps.
        time_limit: Seconds after which the run is ended.
    """
    command = [sys.executable, "-m", "serving.predict", "--output", output, "--model", model]
    for option, value in (("--name", name), ("--explain", explain)):
        command += [option, value] if value else []
    try:
        with end_together():
            log = get_run_logger().info
            status, lines = run_command([*command, "--", *images], log, time_limit)
    except EndedError as error:
        return Failed(name="Ended", message=f"{error}; run again to continue")
    if status not in (0, SOME_UNANSWERED):
        return Failed(message=find_reason(lines))
    return Completed(name="Incomplete" if status else None, message=lines[-1])
