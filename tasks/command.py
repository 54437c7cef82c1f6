"""The rim of every stage: paths from the command line in, counts and scores out, a user's mistake in one message."""

import inspect
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

DISK_FULL = ("no space left on device", "database or disk is full")  # the operating system's words, and SQLite's


def run(stage: Callable[..., None]) -> None:
    """Call `stage` with the command line's arguments, as paths where it is annotated so; exit 1 on a user's mistake.

    `ValueError` and `OSError` are a user's to mend and end in their message; anything else is ours and keeps its
    traceback. `LOG_LEVEL=DEBUG` shows both.
    """
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(message)s", stream=sys.stdout)
    for library in ("great_expectations", "great_expectations.data_context.types.base", "mlflow", "alembic", "absl", "h5py"):
        logging.getLogger(library).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    try:
        stage(*_arguments(stage))
    except KeyboardInterrupt:
        logging.error("interrupted: run again to go on from here")
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        logging.debug(traceback.format_exc())
        logging.error("error: %s", message)
        sys.exit(1)


def explain(error: BaseException) -> str | None:
    """Return what a user can mend, in words; None where the error is ours.

    A full disk is looked for behind the error too: what fails next, such as MLflow's database, tends to hide it.
    """
    behind = error
    while behind is not None:
        if any(words in str(behind).lower() for words in DISK_FULL):
            where = getattr(behind, "filename2", None) or getattr(behind, "filename", None) or "an output"
            return f"no space left on the device while writing {where}: free some and run again; what is finished is kept"
        behind = behind.__context__
    return str(error) if isinstance(error, ValueError | OSError) else None


def _arguments(stage: Callable[..., None]) -> list[object]:
    parameters = list(inspect.signature(stage).parameters.values())
    received = sys.argv[1:]
    if len(received) != len(parameters):
        wanted = " ".join(parameter.name.upper() for parameter in parameters)
        raise ValueError(f"expected {len(parameters)} arguments ({wanted}), received {len(received)}; dvc.yaml has the paths")
    return [Path(text) if parameter.annotation is Path else text for parameter, text in zip(parameters, received, strict=True)]
