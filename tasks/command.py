"""The rim of every stage: paths from the command line in, counts and scores out, a user's mistake in one message."""

import inspect
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path


def run(stage: Callable[..., None]) -> None:
    """Call `stage` with the command line's arguments, as paths where it is annotated so; exit 1 on a user's mistake.

    `ValueError` and `OSError` are a user's to mend and end in their message; anything else is ours and keeps its
    traceback. `LOG_LEVEL=DEBUG` shows both.
    """
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(message)s", stream=sys.stdout)
    for library in ("great_expectations.data_context.types.base", "mlflow", "alembic", "absl", "tensorflow", "matplotlib", "h5py"):
        logging.getLogger(library).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    try:
        stage(*_arguments(stage))
    except (ValueError, OSError) as error:
        logging.debug(traceback.format_exc())
        logging.error("error: %s", explain(error))
        sys.exit(1)


def explain(error: Exception) -> str:
    """What happened, and what to do where the operating system's words do not say it."""
    if isinstance(error, OSError) and error.errno == 28:
        where = error.filename or "an output"
        return f"no space left on the device while writing {where}: free some and run again; what is finished is kept"
    return str(error)


def _arguments(stage: Callable[..., None]) -> list[object]:
    parameters = list(inspect.signature(stage).parameters.values())
    received = sys.argv[1:]
    if len(received) != len(parameters):
        wanted = " ".join(parameter.name.upper() for parameter in parameters)
        raise ValueError(f"expected {len(parameters)} arguments ({wanted}), received {len(received)}; dvc.yaml has the paths")
    return [Path(text) if parameter.annotation is Path else text for parameter, text in zip(parameters, received, strict=True)]
