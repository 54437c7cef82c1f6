"""The search space of an architecture, and the architecture with other values.

A dotted path of the architecture's keys names each value: `learning_rate`, `dense.0`,
`head.dense.0.units`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from tasks.errors import UserError, suggest
from tasks.params.architectures import Architecture, check_size
from tasks.params.read import Schema, describe_wanted
from tasks.params.section import Section

FIXED = {
    "like": "it names another architecture; give that one its own space",
    "positive": "models of other questions cannot be compared",
    "labels": "models of other questions cannot be compared",
    "seed": "a lucky seed does not make a better model",
    "threads": "it changes only the rounding",
    "epochs": "the search finds the best number itself, up to tune.epochs",
    "test_views": "trials are scored without them",
}


class Range(Section):
    """Values to try for one key: a range of numbers, or a list of choices."""

    low: Any = None
    """Lowest number, included."""
    high: Any = None
    """Highest number, included."""
    step: Any = None
    """Distance between numbers; null tries all numbers, or whole numbers if both ends are whole."""
    log: bool = False
    """Whether numbers are drawn on a logarithmic scale."""
    choices: tuple[Any, ...] = ()
    """The choices, written as a plain list: `dropout: [0, 0.3, 0.5]`."""

    @model_validator(mode="before")
    @classmethod
    def _expand_list(cls, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return {"choices": given}
        if not isinstance(given, dict):
            raise ValueError(
                "expected a list of choices such as [relu, tanh], "
                "or a range such as {low: 32, high: 512, step: 32}"
            )
        known = ("low", "high", "step", "log")
        if unknown := [str(key) for key in given if key not in known]:
            raise ValueError(_describe_unknown(unknown[0], known))
        if wrong := [key for key in ("low", "high") if not _is_number(given.get(key))]:
            raise ValueError(
                f"expected numbers low and high, received {wrong[0]}: {given.get(wrong[0])!r}"
            )
        return given

    @model_validator(mode="after")
    def _check_values(self) -> "Range":
        if self.low is None:
            if not self.choices or any(
                value in self.choices[:place] for place, value in enumerate(self.choices)
            ):
                raise ValueError("expected at least one choice, and no choice twice")
            return self
        if not self.low < self.high:
            raise ValueError("expected low below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: expected low above 0, and no step")
        if self.step is not None:
            self._check_step()
        return self

    def _check_step(self) -> None:
        if not _is_number(self.step) or self.step <= 0:
            raise ValueError(f"step: expected a number above 0, received {self.step!r}")
        steps = (self.high - self.low) / self.step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            reached = self.low + math.floor(steps) * self.step
            raise ValueError(
                f"high: expected {self.low} plus a multiple of the step {self.step}, "
                f"such as {reached:.10g}"
            )

    @property
    def whole(self) -> bool:
        """Whether the numbers of a range are whole."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The choices, or the two ends of a range."""
        return self.choices if self.low is None else (self.low, self.high)


def vary(section: Architecture, values: Mapping[str, Any]) -> Architecture:
    """Return an architecture with other values at dotted paths, such as `dense.0`.

    Raises `UserError` for an unknown path or a value that is not allowed there.
    """
    structure, train = section.structure, section.train
    for path, value in values.items():
        steps = path.split(".")
        if steps[0] in type(structure).model_fields:
            structure = _vary_one(structure, steps, value)
        elif steps[0] in type(train).model_fields:
            train = _vary_one(train, steps, value)
        else:
            known = [*type(structure).model_fields, *type(train).model_fields]
            raise UserError(_describe_unknown(steps[0], known))
    check_size(structure, train.image_size)
    return section.model_copy(update={"structure": structure, "train": train})


def find_mistakes(space: Mapping[str, Range], section: Architecture) -> Iterator[str]:
    """Yield `path: why` for each key that does not exist and each value that is not allowed."""
    applicable = section.structure.train_keys
    for path, values in space.items():
        key = path.partition(".")[0]
        fixed = "epochs" if path.endswith(".epochs") else key
        if fixed in FIXED:
            yield f"{path}: cannot be searched: {FIXED[fixed]}"
            continue
        in_train = key in type(section.train).model_fields
        if in_train and applicable is not None and key not in applicable:
            known = ", ".join(type(section.structure).model_fields)
            kind = section.structure.kind
            yield f"{path}: does not apply to a {kind} model; known here are {known}"
            continue
        for end in values.ends:
            try:
                vary(section, {path: end})
            except UserError as error:
                yield f"{path}: {error}"
                break


def to_plain(value: Any) -> Any:
    """Return a model and all its values as dictionaries, lists and scalars."""
    if isinstance(value, BaseModel):
        return {name: to_plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _vary_one(model: Schema, steps: list[str], value: Any) -> Schema:
    """Return a model with another value at the end of `steps`."""
    try:
        return type(model).model_validate(_replace_at(model, steps, value))
    except ValidationError as error:
        raise UserError(f"received {value!r}, {describe_wanted(error.errors()[0])}") from error


def _replace_at(held: Any, steps: list[str], value: Any) -> Any:
    """Return plain data of `held` with `value` at the end of `steps`."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(held, list | tuple):
        items, indices = to_plain(held), [str(index) for index in range(len(held))]
        if step not in indices:
            known = f"one of {', '.join(indices)}" if indices else "no index: the list is empty"
            raise UserError(f"received the index {step}, expected {known}")
        items[int(step)] = _replace_at(held[int(step)], rest, value)
        return items
    if isinstance(held, BaseModel):
        if step not in type(held).model_fields:
            raise UserError(_describe_unknown(step, list(type(held).model_fields)))
        return to_plain(held) | {step: _replace_at(getattr(held, step), rest, value)}
    if held is None or isinstance(held, Mapping):
        return to_plain(held or {}) | {step: _replace_at((held or {}).get(step), rest, value)}
    raise UserError(f"expected nothing after a plain value, received {step}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _describe_unknown(received: str, known: Sequence[str]) -> str:
    return f"unknown key {received}; {suggest(received, known)}known here are {', '.join(known)}"
