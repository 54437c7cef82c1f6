"""The section `ensembles` of `params.yaml`: architectures that predict together."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError, field_validator, model_validator

from tasks.errors import UserError, suggest
from tasks.params.questions import Question
from tasks.params.read import PARAMS, describe_problem, list_problems, read_file
from tasks.params.section import Section

CHOSEN = ("validation", "equal")


class Ensemble(Section):
    """Architectures whose predictions are combined."""

    members: tuple[str, ...]
    """Two or more architectures of this file."""
    vote: Literal["soft", "majority"] = "soft"
    """`soft` averages the members' probabilities; `majority` counts their predicted classes."""
    weights: Literal["validation", "equal"] | dict[str, float] = "validation"
    """Members' weights: chosen on validation images, equal, or {member: weight}."""

    @field_validator("members")
    @classmethod
    def _check_members(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({member for member in members if members.count(member) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)} is named twice: use weights to make a member count more"
            )
        if len(members) < 2:
            raise ValueError("expected at least two architectures")
        return members

    @field_validator("weights", mode="before")
    @classmethod
    def _check_weights(cls, weights: Any) -> Any:
        given = list(weights.values()) if isinstance(weights, dict) else [math.nan]
        numbers = all(
            isinstance(value, int | float) and math.isfinite(value) and value >= 0
            for value in given
        )
        if weights not in CHOSEN and not (numbers and any(given)):
            raise ValueError(
                f"expected {' or '.join(CHOSEN)}, or a number for each member, "
                "not below 0 and not all 0, such as {cnn_a: 2, cnn_b: 1}"
            )
        return weights

    @model_validator(mode="after")
    def _check_weighted_members(self) -> "Ensemble":
        if isinstance(self.weights, dict) and set(self.weights) != set(self.members):
            raise ValueError(
                f"received weights for {', '.join(self.weights)}, "
                f"expected one for each of {', '.join(self.members)}"
            )
        return self


def read_ensembles(path: Path = PARAMS) -> dict[str, Ensemble]:
    """Return the section `ensembles` of a params file. Raises `UserError`."""
    try:
        return TypeAdapter(dict[str, Ensemble]).validate_python(
            read_file(path).get("ensembles") or {}
        )
    except ValidationError as error:
        problems = [describe_problem(detail, Ensemble, "ensembles") for detail in error.errors()]
        raise UserError(list_problems(path, problems)) from error


def find_mistakes(
    ensembles: Mapping[str, Ensemble], questions: Mapping[str, Question]
) -> list[str]:
    """Return one line for each mistake. `questions` has the question of each architecture."""
    return [
        f"ensembles.{name}: {mistake}"
        for name, ensemble in ensembles.items()
        for mistake in _find_mistakes(name, ensemble, questions)
    ]


def _find_mistakes(
    name: str, ensemble: Ensemble, questions: Mapping[str, Question]
) -> Iterable[str]:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,200}", name):
        yield "expected a name of 1 to 200 letters, digits and underscores: it names a folder"
    if name in questions:
        yield "an architecture has this name already; give the ensemble another one"
    members = {member: questions[member] for member in ensemble.members if member in questions}
    for member in ensemble.members:
        if member not in members:
            hint = suggest(member, questions)
            yield f"unknown member {member!r}; {hint}architectures here are {', '.join(questions)}"
    distinct = [_sort(question) for question in members.values()]
    if any(question != distinct[0] for question in distinct):
        described = "; ".join(f"{member}: {_describe(one)}" for member, one in members.items())
        yield f"its members answer different questions and cannot be combined ({described})"


def _sort(question: Question) -> tuple[str, dict[str, list[str]]]:
    """Return a question in a form that does not depend on the order of folders."""
    return question.name, {label: sorted(group) for label, group in (question.labels or {}).items()}


def _describe(question: Question) -> str:
    groups = {label: ", ".join(group) for label, group in (question.labels or {}).items()}
    return ", ".join(f"{label} ({group})" for label, group in groups.items()) or question.name
