"""Read `params.yaml`: a wrong key, type or value stops at once and is named. `sections.py` says what is allowed.

`python -m tasks.params` checks the file and prints what each architecture and ensemble will be made of.
"""

import difflib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError

from tasks import ensembles, ranges
from tasks.imaging.changes import spelled_out
from tasks.modeling.architectures import ARCHITECTURES, BACKBONES, Backbone, Classical, Cnn, Transfer
from tasks.questions import Question
from tasks.sections import Architecture, Params, Train

PARAMS = Path("params.yaml")


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a params file. Raises `ValueError` naming every wrong key and what is allowed there."""
    raw = _read(path)
    problems: list[str] = []
    raw["architectures"] = dict(_architectures(raw, problems))
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(detail, Params) for detail in error.errors()] + problems
    problems = problems or [*_unknown_question(params), *_wrong_members(params), *_space_mistakes(params)]
    if problems:
        raise ValueError("\n  ".join([f"{path} has {len(problems)} mistake{'s' * (len(problems) > 1)}:", *problems]))
    return params


def varied(section: Architecture, values: dict[str, Any]) -> Architecture:
    """Return an architecture with other values at dotted paths, such as `dense.0`. Raises `ValueError` where they do not fit."""
    parts = ranges.varied(_parts(section), values)
    _check_size(parts["structure"], parts["train"].image_size)
    return section.model_copy(update=parts)


def _parts(section: Architecture) -> dict[str, BaseModel]:
    return {"structure": section.structure, "train": section.train}


def _space_mistakes(params: Params) -> Iterator[str]:
    """Yield what `tune.space` names or allows that no architecture takes."""
    for name, space in (params.tune.space if params.tune else {}).items():
        if name not in params.architectures:
            close = difflib.get_close_matches(name, params.architectures, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield f"tune.space.{name}: unknown architecture; {hint}known here are {', '.join(params.architectures)}"
        else:
            section = params.architectures[name]
            found = ranges.mistakes(space, _parts(section), partial(varied, section))
            yield from (f"tune.space.{name}.{problem}" for problem in found)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: expected in the current folder; copy one from recipes/") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected a mapping of sections, received {type(raw).__name__}")
    return raw


def _architectures(raw: dict[str, Any], problems: list[str]) -> Iterator[tuple[str, Architecture]]:
    """Yield each architecture: its keys laid over its row of the table and over the training defaults."""
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or not sections:
        problems.append(f"architectures: received {sections!r}, expected at least one of {', '.join(ARCHITECTURES)}")
        return
    defaults = raw.get("train") or {}
    if not _is_valid(Train, defaults):
        defaults = {}  # its mistakes are told once, under train
    for name, section in sections.items():
        try:
            architecture = _architecture(name, section or {}, defaults, problems)
        except ValueError as error:
            problems.append(f"architectures.{name}: {error}")
        else:
            if architecture is not None:
                yield name, architecture


def _architecture(name: str, section: Any, defaults: dict[str, Any], problems: list[str]) -> Architecture | None:
    """Return the architecture, or None where one of its keys is wrong, which is added to `problems`."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(f"received {name!r}, expected a text of letters, digits and underscores: it names a folder and a stage")
    if not isinstance(section, dict):
        raise ValueError(f"received {section!r}, expected a mapping such as {{batch_size: 64}} or {{}}")
    row = _row(section.get("like", name))
    structure, question = ({key: section[key] for key in section if key in model.model_fields} for model in (type(row), Question))
    train = {key: value for key, value in section.items() if key not in {"like", *structure, *question}}
    known = ["like", *type(row).model_fields, *Question.model_fields, *Train.model_fields]
    checked: dict[str, Any] = {}
    for part, model, values in (
        ("structure", type(row), _merge(row.model_dump(), structure)),
        ("question", Question, question),
        ("train", Train, _merge(_spelled_out(defaults), _spelled_out(train))),
    ):
        try:
            checked[part] = model.model_validate(values)
        except ValidationError as error:
            problems += [_explain(detail, model, f"architectures.{name}", known) for detail in error.errors()]
    if len(checked) < 3:
        return None
    _check_size(checked["structure"], checked["train"].image_size)
    return Architecture(**checked)


def _row(like: object) -> Cnn | Transfer | Classical:
    if isinstance(like, str) and like in ARCHITECTURES:
        return ARCHITECTURES[like]
    if isinstance(like, str) and like in BACKBONES:
        return ARCHITECTURES["transfer"].model_copy(update={"backbone": like})
    close = difflib.get_close_matches(str(like), [*ARCHITECTURES, *BACKBONES], n=1)
    raise ValueError(
        f"unknown architecture {like!r}; {f'did you mean {close[0]}? ' if close else ''}known are {', '.join(ARCHITECTURES)}, "
        "and every image model of keras.applications by its name, such as EfficientNetB0. "
        "A variant says which of them it changes: cnn_d: {like: cnn_a, dropout: 0.2}"
    )


def _check_size(structure: Cnn | Transfer | Classical, size: tuple[int, int]) -> None:
    backbone = structure.features if isinstance(structure, Classical) else structure
    if isinstance(backbone, Backbone) and min(size) < BACKBONES[backbone.backbone]:
        least = BACKBONES[backbone.backbone]
        raise ValueError(f"image_size: received {list(size)}, expected at least {least} pixels a side for {backbone.backbone}")


def _unknown_question(params: Params) -> list[str]:
    asked = list(dict.fromkeys(section.question.name for section in params.architectures.values()))
    received = params.compare.question
    return (
        [] if received in (None, *asked) else [f"compare.question: received {received!r}, expected {' or '.join(map(repr, asked))}"]
    )


def _wrong_members(params: Params) -> list[str]:
    return ensembles.mistakes(params.ensembles, {name: section.question for name, section in params.architectures.items()})


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


def _spelled_out(train: dict[str, Any]) -> dict[str, Any]:
    """Name no augmentation any more, so that a name given for one architecture replaces the default instead of joining it."""
    return {key: spelled_out(value) if key == "augmentation" else value for key, value in train.items()}


def _explain(detail: Any, model: type[BaseModel], prefix: str = "", known: list[str] | None = None) -> str:
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
        field = next((field for name, field in model.model_fields.items() if (field.alias or name) == step), None)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def main() -> None:
    """Check the file of the current folder, and print what it says of each architecture and ensemble."""
    params = load_params()
    for name, section in (params.architectures | params.ensembles).items():
        print(f"{name}: {section.model_dump_json(indent=2)}")


if __name__ == "__main__":
    from tasks.command import run

    run(main)
