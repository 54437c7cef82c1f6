"""Read `params.yaml` section by section. A wrong key, type or value is an error that names it.

A stage reads only its own sections, so that a new key in another section does not affect it.
"""

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError

from tasks.errors import UserError, suggest

PARAMS = Path("params.yaml")

Schema = TypeVar("Schema", bound=BaseModel)


def read_section(name: str, schema: type[Schema], path: Path = PARAMS) -> Schema:
    """Return the section `name` of a params file, missing keys at their defaults.

    Raises `UserError`.
    """
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
    """Raise `UserError` with the list of problems, if there are any."""
    if problems:
        raise UserError(list_problems(path, problems))


def list_problems(path: Path, problems: list[str]) -> str:
    """Return one message with all problems of a params file."""
    return "\n  ".join(
        [f"{path} has {len(problems)} mistake{'s' * (len(problems) > 1)}:", *problems]
    )


def describe_problem(
    detail: Any, model: type[BaseModel], prefix: str = "", known: list[str] | None = None
) -> str:
    """Return one line on an error of pydantic: the key, the value received, and what is allowed.

    `known` are the keys of the first level, by default those of `model`.
    """
    steps = [str(step) for step in detail["loc"]]
    key = ".".join([prefix, *steps] if prefix else steps)
    if detail["type"] == "extra_forbidden":
        known = known if known and len(steps) == 1 else _list_keys(model, steps[:-1])
        return f"{key}: unknown key; {suggest(steps[-1], known)}known here are {', '.join(known)}"
    wanted = describe_wanted(detail)
    return f"{key}: received {detail['input']!r}, {wanted}" if steps else f"{key}: {wanted}"


def describe_wanted(detail: Any) -> str:
    """Return what an error of pydantic expected."""
    return detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")


def _list_keys(model: type[BaseModel], steps: list[str]) -> list[str]:
    """Return the keys of the section that `steps` lead to, from `model` on."""
    for step in steps:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        kinds = (
            [fields[step].annotation, *get_args(fields[step].annotation)] if step in fields else []
        )
        sections = (
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
        model = next(sections, model)
    return [field.alias or name for name, field in model.model_fields.items()]
