"""Read `params.yaml` section by section: a wrong key, type or value stops at once and is named.

A stage reads its own sections alone, so that a new key of another one changes nothing for it.
"""

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError

from tasks.errors import UserError

PARAMS = Path("params.yaml")

Schema = TypeVar("Schema", bound=BaseModel)


def read_section(name: str, schema: type[Schema], path: Path = PARAMS) -> Schema:
    """Return the section `name` of a params file; what it leaves out has its default. Raises `UserError`."""
    values = read_file(path).get(name)
    try:
        return schema.model_validate({} if values is None else values)
    except ValidationError as error:
        problems = [describe_problem(detail, schema, name) for detail in error.errors()]
        raise UserError(list_problems(path, problems)) from error


def read_file(path: Path) -> dict[str, Any]:
    """Return the content of a params file: a mapping of sections. Raises `UserError`."""
    try:
        raw = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: expected in the current folder; `make recipe NAME=demo` writes one"
        ) from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of sections, received {type(raw).__name__}")
    return raw


def refuse(path: Path, problems: list[str]) -> None:
    """Raise `UserError` that lists the problems, if there are any."""
    if problems:
        raise UserError(list_problems(path, problems))


def list_problems(path: Path, problems: list[str]) -> str:
    """Return one message of all problems of a params file."""
    return "\n  ".join(
        [f"{path} has {len(problems)} mistake{'s' * (len(problems) > 1)}:", *problems]
    )


def describe_problem(
    detail: Any, model: type[BaseModel], prefix: str = "", known: list[str] | None = None
) -> str:
    """One line of where, what was received and what is allowed, from an error of pydantic; `known` goes for the first level."""
    steps = [str(step) for step in detail["loc"]]
    key = ".".join([prefix, *steps] if prefix else steps)
    if detail["type"] == "extra_forbidden":
        known = known if known and len(steps) == 1 else _keys_beside(model, steps)
        close = difflib.get_close_matches(steps[-1], known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}: unknown key; {hint}known here are {', '.join(known)}"
    wanted = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{key}: received {detail['input']!r}, {wanted}" if steps else f"{key}: {wanted}"


def _keys_beside(model: type[BaseModel], steps: list[str]) -> list[str]:
    """The keys that are known where `steps` ends, following the models of the sections on the way."""
    for step in steps[:-1]:
        field = next(
            (field for name, field in model.model_fields.items() if (field.alias or name) == step),
            None,
        )
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        model = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)),
            model,
        )
    return [field.alias or name for name, field in model.model_fields.items()]
