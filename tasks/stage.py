"""Run a stage from the command line: options by name, and one message for a user's mistake.

A stage is a function `main`. Its parameters are the options of the command: `splits_csv: Path` is
`--splits-csv PATH`. With more than five options, `main` takes one frozen dataclass whose fields are
the options. An option with a default may be left out.

The last or second-to-last part of each path has the name of its option: `data/splits.csv` for
`--splits-csv`, `data/results/cnn_a` for `--results`. So two swapped paths are an error.
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
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args

from tasks import machine, progress
from tasks.errors import UserError, describe_error

# Loggers of libraries that log more than a person wants to read -> the lowest level shown.
LOUD = {
    "absl": logging.WARNING,
    "alembic": logging.WARNING,
    "great_expectations": logging.WARNING,
    "great_expectations.data_context.types.base": logging.WARNING,
    "h5py": logging.WARNING,
    "mlflow": logging.WARNING,
    "urllib3": logging.ERROR,  # it warns at each retry
}


def run(stage: Callable[..., None], *, of_pipeline: bool = True) -> None:
    """Call `stage` with the options of the command line. Exit with 1 on a user's mistake.

    `LOG_LEVEL=DEBUG` also shows the traceback of the mistake. For a stage of the pipeline, the
    names of paths and the needs of later stages are checked first. So a typo in the section of the
    last stage stops the first one.
    """
    _set_up_logging()
    machine.report_ignored(logging.info)
    arguments: dict[str, object] = {}
    try:
        arguments = read_arguments(stage, sys.argv[1:], names_of_paths=of_pipeline)
        if of_pipeline:
            check_ahead()
        call(stage, arguments)
        if of_pipeline:
            record_usage(arguments)
    except KeyboardInterrupt:
        logging.error("interrupted: run the same command again to continue")
        sys.exit(130)
    except Exception as error:
        message = describe_error(error) or describe_missing(error, arguments)
        if message is None:
            raise
        logging.debug(traceback.format_exc())
        logging.error("error: %s", message)
        sys.exit(1)


def call(stage: Callable[..., None], arguments: dict[str, object]) -> None:
    """Call a stage with its options, as arguments or as one dataclass."""
    fields = find_dataclass(stage)
    if fields:
        stage(fields(**arguments))
    else:
        stage(**arguments)


def check_ahead() -> None:
    """Check all of `params.yaml`, and the packages that registering a model needs.

    Raises `UserError`. The check can stop a stage but never changes a result. So its modules are
    imported only here, and are not dependencies of the stages in `dvc.yaml`.
    """
    from tasks.params.whole import load_params
    from tasks.registry.requirements import requirements

    load_params()
    requirements()


def record_usage(arguments: dict[str, object]) -> None:
    """Record what the stage cost, for the estimates of the next plan."""
    verb, architecture = Path(sys.argv[0]).stem, arguments.get("architecture")
    progress.write_usage(progress.find_stage(f"{verb}@{architecture}" if architecture else verb))


def describe_missing(error: Exception, arguments: dict[str, object]) -> str | None:
    """Return the message for a missing input of the stage, None for any other error."""
    missing = getattr(error, "filename", None) if isinstance(error, FileNotFoundError) else None
    given = [path for path in arguments.values() if isinstance(path, Path)]
    if missing is None or not any(Path(missing).is_relative_to(path) for path in given):
        return None
    return f"{missing} is missing: an earlier stage writes it; `dvc repro` runs all in order"


def read_arguments(
    stage: Callable[..., None], words: list[str], *, names_of_paths: bool = True
) -> dict[str, object]:
    """Return the options of `stage` in the words of a command line.

    Raises `UserError` for an unknown or missing option and, if `names_of_paths`, for a path without
    the name of its option.
    """
    parser = _Parser(
        prog=f"python -m {stage.__module__}", description=inspect.getdoc(stage), allow_abbrev=False
    )
    parameters = inspect.signature(find_dataclass(stage) or stage).parameters
    for name, parameter in parameters.items():
        option = "--" + name.replace("_", "-")
        required = parameter.default is parameter.empty
        kinds = [kind for kind in get_args(parameter.annotation) if kind is not type(None)]
        kind = kinds[0] if kinds else parameter.annotation
        default = None if required else parameter.default
        parser.add_argument(option, required=required, type=kind, default=default)
    arguments = vars(parser.parse_args(words))
    if names_of_paths:
        for name, value in arguments.items():
            if isinstance(value, Path):
                _check_name(name, value)
    return arguments


def find_dataclass(stage: Callable[..., None]) -> type[Any] | None:
    """Return the dataclass that is the only parameter of a stage, None for other parameters."""
    kinds = [parameter.annotation for parameter in inspect.signature(stage).parameters.values()]
    only = kinds[0] if len(kinds) == 1 else None
    return only if isinstance(only, type) and is_dataclass(only) else None


def _set_up_logging() -> None:
    level = os.environ.get("LOG_LEVEL", "INFO")
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    for library, lowest in LOUD.items():
        logger = logging.getLogger(library)
        logger.setLevel(lowest)
        # Great Expectations sets its level again when it is imported, so a filter must do it.
        logger.addFilter(partial(_is_loud_enough, lowest))
    warnings.filterwarnings("ignore")


def _is_loud_enough(lowest: int, record: logging.LogRecord) -> bool:
    return record.levelno >= lowest


def _check_name(name: str, path: Path) -> None:
    """Raise `UserError` unless the path or its folder has the name of the option."""
    if name not in (re.sub(r"\W", "_", part) for part in path.parts[-2:]):
        option = "--" + name.replace("_", "-")
        raise UserError(
            f"{option}: expected a path named like the option, received {path}; "
            "dvc.yaml lists the paths"
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        known = " ".join(
            action.option_strings[0] for action in self._actions if action.option_strings[0] != "-h"
        )
        raise UserError(
            f"{self.prog}: {message}; the options are {known}, and dvc.yaml lists the paths"
        )
