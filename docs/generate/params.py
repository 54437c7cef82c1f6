"""The tables of the page of `params.yaml`, from the schemas in `tasks/params/`."""

import html
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generate.source import one_line
from tasks.params.architectures import ARCHITECTURES, BACKBONES, Architecture
from tasks.params.questions import Question
from tasks.params.section import Section
from tasks.params.whole import Params

KINDS = get_args(Architecture.model_fields["structure"].annotation)  # the kinds of architectures
TITLES = {"Cnn": "CNN", "Transfer": "pretrained network", "Classical": "scikit-learn model"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
NAMES = {
    NoneType: "`null`",
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
}


def write_params() -> Iterator[str]:
    """Yield a chapter for each section of `params.yaml`, with a table of its keys."""
    for name, field in Params.model_fields.items():
        yield f"\n## {field.alias or name}\n"
        if name == "architectures":
            yield from _write_architectures()
        elif section := _section(field.annotation):
            yield f"{_first_paragraph(section)}\n"
            yield from _table(find_keys(section))


def _write_architectures() -> Iterator[str]:
    yield "Each key of this section is an architecture, and its value a mapping."
    yield "`like` names the row of the table below that it starts from; its own name by default."
    yield "Keys of [`train`](#train) may be given too, and count for this architecture only.\n"
    for kind in KINDS:
        yield f"\n### Keys of a {_title(kind)}\n"
        yield f"{_first_paragraph(kind)}\n"
        yield from _table(find_keys(kind))
    yield "\n### Which classes it tells apart\n"
    yield from _table(find_keys(Question))


def write_architectures() -> Iterator[str]:
    """Yield a table of the architectures that can be named."""
    yield "| name | kind | what differs from the defaults |"
    yield "|---|---|---|"
    for name, structure in ARCHITECTURES.items():
        own = structure.model_dump(mode="json", exclude_defaults=True)
        keys = ", ".join(f"{key}: {_yaml(value)}" for key, value in own.items())
        yield f"| `{name}` | {_title(type(structure))} | `{keys}` |"


def write_backbones() -> Iterator[str]:
    """Yield the pretrained networks, and the smallest image that each takes."""
    for least in sorted(set(BACKBONES.values())):
        names = [f"`{name}`" for name, side in BACKBONES.items() if side == least]
        yield f"- from {least} pixels a side: {', '.join(names)}"


@dataclass(frozen=True)
class Key:
    """A key of `params.yaml`: its dotted path, its field in the schema, and its default."""

    path: str
    field: FieldInfo
    default: Any


def find_keys(section: type[BaseModel], prefix: str = "", held: Any = None) -> Iterator[Key]:
    """Yield the keys of a section, and those of the sections within it.

    `held` is the section that is the default; its values are those of the keys.
    """
    for name, field in section.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        within = _section(field.annotation)
        value = getattr(held, name, field.get_default(call_default_factory=True))
        yield Key(path, field, value)
        if within is not None:
            steps = {dict: ".<name>.", tuple: ".<place>."}.get(_container(field.annotation), ".")
            yield from find_keys(within, f"{path}{steps}", value)


def _table(keys: Iterator[Key]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key in keys:
        kind = " ".join([_type(key.field.annotation), *_bounds(key.field.metadata)])
        text = one_line(key.field.description or "")
        path = f"<code>{html.escape(key.path).replace('.', '.<wbr>')}</code>"
        yield f"| {path} | {kind} | {_default(key.default)} | {text} |"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return NAMES.get(annotation, "mapping" if _section(annotation) else "any value")
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in arguments)
    kinds = [_type(argument) for argument in arguments if _is_type(argument)]
    if origin is Annotated:
        return " ".join([kinds[0], *_bounds(arguments[1:])])
    if origin in (tuple, list):
        return f"list of {' and '.join(dict.fromkeys(kinds))}"
    if origin is dict:
        return f"mapping of {' to '.join(kinds)}"
    return (", or " if any(" or " in kind for kind in kinds) else " or ").join(kinds)


def _is_type(argument: Any) -> bool:
    return isinstance(argument, type) or get_origin(argument) is not None


def _bounds(metadata: Any) -> Iterator[str]:
    items = [held for item in metadata for held in getattr(item, "metadata", [item])]
    bounds = [
        f"{words} {_yaml(getattr(item, name))}"
        for item in items
        for name, words in BOUNDS.items()
        if hasattr(item, name)
    ]
    if bounds:
        yield f"({', '.join(bounds)})"


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the schema that an annotation holds, alone, optional, or in a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _container(annotation: Any) -> Any:
    kinds = [annotation, *get_args(annotation)]
    return next((get_origin(kind) for kind in kinds if get_origin(kind) in (dict, tuple)), None)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "none: it has to be given"
    return "as below" if isinstance(value, BaseModel) else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Return a value as `params.yaml` has it, on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:_}" if value >= 10_000 else f"{value:.10g}"
    return str(value)


def _title(kind: type[BaseModel]) -> str:
    return TITLES.get(kind.__name__, kind.__name__)


def _first_paragraph(model: type[BaseModel]) -> str:
    own = model.__dict__.get("__doc__")
    return one_line(inspect.cleandoc(own).partition("\n\n")[0]) if own else ""
