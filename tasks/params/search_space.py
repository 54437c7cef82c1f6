"""Which values a search may try for an architecture, and an architecture with other values.

A value stands at a dotted path of the architecture's keys: `learning_rate`, `dense.0`, `head.dense.0.units`.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from tasks.errors import UserError
from tasks.params.architectures import Architecture, check_size
from tasks.params.section import Section

FIXED = {
    "like": "it names another architecture: give that one a space of its own",
    "positive": "models of other questions cannot be compared",
    "labels": "models of other questions cannot be compared",
    "seed": "a lucky seed is no better model",
    "threads": "it changes nothing but the rounding",
    "epochs": "the search finds their number by itself, up to tune.epochs",
    "test_views": "trials are scored without them",
}


class Range(Section):
    """Numbers from `low` to `high`, both included, in steps or on a logarithmic scale; or a list of choices."""

    low: Any = None
    high: Any = None
    step: Any = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return {"choices": given}
        if not isinstance(given, dict):
            raise ValueError(
                "expected a list of choices such as [relu, tanh], or a range such as {low: 32, high: 512, step: 32}"
            )
        known = ("low", "high", "step", "log")
        if unknown := [str(key) for key in given if key not in known]:
            raise ValueError(_unknown(unknown[0], known))
        if wrong := [key for key in ("low", "high") if not _is_number(given.get(key))]:
            raise ValueError(
                f"expected numbers low and high, received {wrong[0]}: {given.get(wrong[0])!r}"
            )
        return given

    @model_validator(mode="after")
    def _makes_sense(self) -> "Range":
        if self.low is None:
            if not self.choices or any(
                value in self.choices[:place] for place, value in enumerate(self.choices)
            ):
                raise ValueError("expected at least one choice, each of them once")
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
                f"expected a high that steps of {self.step} from {self.low} reach, such as {reached:.10g}"
            )

    @property
    def whole(self) -> bool:
        """Whether all its numbers are whole."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The choices, or the two ends."""
        return self.choices if self.low is None else (self.low, self.high)


def vary(section: Architecture, values: Mapping[str, Any]) -> Architecture:
    """Return an architecture with other values at dotted paths, such as `dense.0`.

    Raises `UserError` for an unknown path, and for a value that is not allowed there.
    """
    parts = _parts(section)
    changed = dict(parts)
    for path, value in values.items():
        steps = path.split(".")
        name = next(
            (name for name, part in changed.items() if steps[0] in type(part).model_fields), None
        )
        if name is None:
            known = [key for part in parts.values() for key in type(part).model_fields]
            raise UserError(_unknown(steps[0], known))
        try:
            changed[name] = type(parts[name]).model_validate(_placed(changed[name], steps, value))
        except ValidationError as error:
            wanted = (
                error.errors()[0]["msg"]
                .removeprefix("Value error, ")
                .replace("Input should be", "expected")
            )
            raise UserError(f"received {value!r}, {wanted}") from error
    check_size(changed["structure"], changed["train"].image_size)
    return section.model_copy(update=changed)


def find_mistakes(space: Mapping[str, Range], section: Architecture) -> Iterator[str]:
    """Yield what is wrong with the space of an architecture, as `path: why`: keys that do not exist, ends that are refused."""
    known = section.structure.train_keys
    for path, values in space.items():
        key = path.partition(".")[0]
        fixed = "epochs" if path.endswith(".epochs") else key
        if fixed in FIXED:
            yield f"{path}: is not searched: {FIXED[fixed]}"
            continue
        if known is not None and key in type(section.train).model_fields and key not in known:
            named = ", ".join(type(section.structure).model_fields)
            yield f"{path}: means nothing to a {section.structure.kind} model; known here are {named}"
            continue
        for end in values.ends:
            try:
                vary(section, {path: end})
            except UserError as error:
                yield f"{path}: {error}"
                break


def plain(value: Any) -> Any:
    """Return a model, and all that it holds, as dictionaries, lists and scalars."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _parts(section: Architecture) -> dict[str, BaseModel]:
    """Return what dotted paths begin in: the structure, and how it is trained."""
    return {"structure": section.structure, "train": section.train}


def _placed(held: Any, steps: list[str], value: Any) -> Any:
    """Return what is `held`, plain, with `value` at the end of `steps`."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(held, list | tuple):
        places = plain(held)
        if step not in map(str, range(len(places))):
            known = ", ".join(map(str, range(len(places)))) or "none, for it is empty"
            raise UserError(f"received the place {step}, expected one of {known}")
        places[int(step)] = _placed(held[int(step)], rest, value)
        return places
    if isinstance(held, BaseModel):
        known = list(type(held).model_fields)
        if step not in known:
            raise UserError(_unknown(step, known))
        return plain(held) | {step: _placed(getattr(held, step), rest, value)}
    if held is None or isinstance(held, Mapping):
        return plain(held or {}) | {step: _placed((held or {}).get(step), rest, value)}
    raise UserError(f"expected nothing after a plain value, received {step}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unknown(received: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(received, list(known), n=1)
    return f"unknown key {received}; {f'did you mean {close[0]}? ' if close else ''}known here are {', '.join(known)}"
