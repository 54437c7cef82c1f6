"""The rim of every stage: arguments by name from the command line, a user's mistake in one message.

A stage is a function `main`. Its parameters are the options of the command: `splits_csv: Path` is
`--splits-csv PATH`. Where there are more than five, `main` takes one frozen dataclass instead, and
its fields are the options. Options with a default may be left out.

A path must be named like its option, as `data/splits.csv` is, or lie in a folder that is, as
`data/results/cnn_a` does for `--results`. So two swapped paths are an error.
"""

import argparse
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import NoReturn, get_args

from tasks import machine
from tasks.errors import UserError, describe_error

LOUD = (
    "great_expectations",
    "great_expectations.data_context.types.base",
    "mlflow",
    "alembic",
    "absl",
    "h5py",
)


def run(stage: Callable[..., None], *, of_pipeline: bool = True) -> None:
    """Call `stage` with the command line's options; exit 1 on a user's mistake. `LOG_LEVEL=DEBUG` shows its traceback too.

    A stage of the pipeline has its paths checked by name, and what later stages need before it begins, so that a wrong
    key of one of them is told before the night and not after it.
    """
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO"), format="%(message)s", stream=sys.stdout
    )
    for library in LOUD:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of each new try
    warnings.filterwarnings("ignore")
    machine.tell(logging.info)
    arguments: dict[str, object] = {}
    try:
        arguments = read_arguments(stage, sys.argv[1:], names_of_paths=of_pipeline)
        if of_pipeline:
            check_ahead()
        call(stage, arguments)
    except KeyboardInterrupt:
        logging.error("interrupted: run again to go on from here")
        sys.exit(130)
    except Exception as error:
        message = describe_error(error) or describe_missing(error, arguments)
        if message is None:
            raise
        logging.debug(traceback.format_exc())
        logging.error("error: %s", message)
        sys.exit(1)


def call(stage: Callable[..., None], arguments: dict[str, object]) -> None:
    """Call a stage with its options, as arguments or as the dataclass that it takes."""
    fields = dataclass_of(stage)
    if fields:
        stage(fields(**arguments))
    else:
        stage(**arguments)


def check_ahead() -> None:
    """Check what later stages need: the whole of `params.yaml`, and the packages of a registered model. Raises `UserError`.

    It can stop a stage and changes no result. So it is no dependency of the stages in `dvc.yaml`, and imported here alone.
    """
    from tasks.params.whole import load_params
    from tasks.registry.requirements import requirements

    load_params()
    requirements()


def describe_missing(error: Exception, arguments: dict[str, object]) -> str | None:
    """Return in words that what a stage was given is not there; None for any other error."""
    missing = getattr(error, "filename", None) if isinstance(error, FileNotFoundError) else None
    given = [path for path in arguments.values() if isinstance(path, Path)]
    if missing is None or not any(Path(missing).is_relative_to(path) for path in given):
        return None
    return f"{missing} is missing: expected what an earlier stage writes; `dvc repro` runs them in their order"


def read_arguments(
    stage: Callable[..., None], words: list[str], *, names_of_paths: bool = True
) -> dict[str, object]:
    """Return the keyword arguments of `stage` that `words` name. Raises `UserError` for wrong, missing and swapped ones."""
    parser = _Parser(
        prog=f"python -m {stage.__module__}", description=inspect.getdoc(stage), allow_abbrev=False
    )
    parameters = inspect.signature(dataclass_of(stage) or stage).parameters
    for name, parameter in parameters.items():
        option = "--" + name.replace("_", "-")
        needed = parameter.default is parameter.empty
        kinds = [kind for kind in get_args(parameter.annotation) if kind is not type(None)]
        kind = kinds[0] if kinds else parameter.annotation
        parser.add_argument(
            option, required=needed, type=kind, default=None if needed else parameter.default
        )
    arguments = vars(parser.parse_args(words))
    if names_of_paths:
        for name, value in arguments.items():
            if isinstance(value, Path):
                _check_name(name, value)
    return arguments


def dataclass_of(stage: Callable[..., None]) -> type | None:
    """Return the dataclass that a stage takes as its only parameter; None where it takes others."""
    annotations = [one.annotation for one in inspect.signature(stage).parameters.values()]
    return annotations[0] if len(annotations) == 1 and is_dataclass(annotations[0]) else None


def _check_name(name: str, path: Path) -> None:
    """Raise `UserError` unless the path, or the folder that it lies in, is called like the parameter."""
    if name not in (re.sub(r"\W", "_", part) for part in path.parts[-2:]):
        option = "--" + name.replace("_", "-")
        raise UserError(
            f"{option}: expected a path named like the option, received {path}; dvc.yaml has the paths"
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        known = " ".join(
            action.option_strings[0] for action in self._actions if action.option_strings[0] != "-h"
        )
        raise UserError(
            f"{self.prog}: {message}; the options are {known}, and dvc.yaml has the paths"
        )
