"""Read the section `architectures` of `params.yaml`.

The keys of an architecture override its row of the table `ARCHITECTURES` and the section `train`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tasks.errors import UserError, suggest
from tasks.params.architectures import (
    ARCHITECTURES,
    BACKBONES,
    AnyStructure,
    Architecture,
    check_size,
)
from tasks.params.augmentation import expand_augmentation
from tasks.params.questions import Question
from tasks.params.read import PARAMS, describe_problem, read_file, refuse
from tasks.params.section import Section
from tasks.params.train import Train


def read_architecture(name: str, path: Path = PARAMS) -> Architecture:
    """Return one architecture of a params file. Raises `UserError`."""
    raw = read_file(path)
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or name not in sections:
        known = ", ".join(map(str, sections)) if isinstance(sections, dict) else "none"
        raise UserError(f"{path} has no architecture {name}; known are {known}")
    return _read(path, raw | {"architectures": {name: sections[name]}})[name]


def read_architectures(path: Path = PARAMS) -> dict[str, Architecture]:
    """Return all architectures of a params file. Raises `UserError`."""
    return _read(path, read_file(path))


def lay_over_table(raw: dict[str, Any], problems: list[str]) -> Iterator[tuple[str, Architecture]]:
    """Yield each architecture of a file's content. The mistakes of the others go to `problems`."""
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or not sections:
        problems.append(
            f"architectures: received {sections!r}, "
            f"expected at least one of {', '.join(ARCHITECTURES)}"
        )
        return
    defaults = raw.get("train") or {}
    if not _is_valid(Train, defaults):
        defaults = {}  # its mistakes are reported once, under train
    for name, section in sections.items():
        try:
            architecture = _read_one(name, section or {}, defaults, problems)
        except UserError as error:
            problems.append(f"architectures.{name}: {error}")
        else:
            if architecture is not None:
                yield name, architecture


def _read(path: Path, raw: dict[str, Any]) -> dict[str, Architecture]:
    problems: list[str] = []
    try:
        Train.model_validate(raw.get("train") or {})
    except ValidationError as error:
        problems += [describe_problem(detail, Train, "train") for detail in error.errors()]
    found = dict(lay_over_table(raw, problems))
    refuse(path, problems)
    return found


def _read_one(
    name: object, section: Any, defaults: dict[str, Any], problems: list[str]
) -> Architecture | None:
    """Return the architecture, or None after adding its mistakes to `problems`."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,200}", name):
        raise UserError(
            f"received {name!r}, expected a text of 1 to 200 letters, digits and underscores: "
            "it names a folder and a stage"
        )
    if not isinstance(section, dict):
        raise UserError(
            f"received {section!r}, expected a mapping such as {{batch_size: 64}} or {{}}"
        )
    checked: dict[str, Any] = {}
    parts = _divide({"like": name} | section, defaults)
    known = ["like", *(key for model, _ in parts.values() for key in model.model_fields)]
    for part, (model, values) in parts.items():
        try:
            checked[part] = model.model_validate(values)
        except ValidationError as error:
            problems += [
                describe_problem(detail, model, f"architectures.{name}", known)
                for detail in error.errors()
            ]
    if len(checked) < len(parts):
        return None
    check_size(checked["structure"], checked["train"].image_size)
    return Architecture(**checked)


def _divide(
    section: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, tuple[type[Section], dict[str, Any]]]:
    """Return the schema and the values of each part of an architecture.

    Unknown keys go to the part `train`, whose schema refuses them.
    """
    row = _find_row(section["like"])
    structure, question = (
        {key: section[key] for key in section if key in model.model_fields}
        for model in (type(row), Question)
    )
    others = {"like", *structure, *question}
    train = {key: value for key, value in section.items() if key not in others}
    return {
        "structure": (type(row), _merge(row.model_dump(), structure)),
        "question": (Question, question),
        "train": (Train, _merge(_expand_names(defaults), _expand_names(train))),
    }


def _find_row(like: object) -> AnyStructure:
    """Return the row of the table, or a transfer model for the name of a backbone."""
    if isinstance(like, str) and like in ARCHITECTURES:
        return ARCHITECTURES[like]
    if isinstance(like, str) and like in BACKBONES:
        return ARCHITECTURES["transfer"].model_copy(update={"backbone": like})
    raise UserError(
        f"unknown architecture {like!r}; {suggest(like, [*ARCHITECTURES, *BACKBONES])}"
        f"known are {', '.join(ARCHITECTURES)}, "
        "and every image model of keras.applications by its name, such as EfficientNetB0. "
        "A variant says which of them it changes: cnn_d: {like: cnn_a, dropout: 0.2}"
    )


def _is_valid(model: type[BaseModel], values: Any) -> bool:
    try:
        model.model_validate(values)
    except ValidationError:
        return False
    return True


def _merge(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _expand_names(train: dict[str, Any]) -> dict[str, Any]:
    """Replace the name of an augmentation by its keys.

    So a name given for one architecture replaces the default instead of joining it.
    """
    return {
        key: expand_augmentation(value) if key == "augmentation" else value
        for key, value in train.items()
    }
