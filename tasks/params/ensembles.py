"""The section `ensembles` of `params.yaml`: named architectures that answer together."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError, field_validator, model_validator

from tasks.params.questions import Question
from tasks.params.read import PARAMS, describe_problem, read_file, refuse
from tasks.params.section import Section

CHOSEN = ("validation", "equal")


class Ensemble(Section):
    """Architectures whose answers are combined; `weights` are chosen on validation, equal, or given for each member."""

    members: tuple[str, ...]
    vote: Literal["soft", "majority"] = (
        "soft"  # the mean of probabilities, or one vote for each member's class
    )
    weights: Literal["validation", "equal"] | dict[str, float] = "validation"

    @field_validator("members")
    @classmethod
    def _two_that_differ(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({member for member in members if members.count(member) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)} is named twice: weights say how much a member counts"
            )
        if len(members) < 2:
            raise ValueError("expected at least two architectures")
        return members

    @field_validator("weights", mode="before")
    @classmethod
    def _a_word_or_numbers(cls, weights: Any) -> Any:
        given = list(weights.values()) if isinstance(weights, dict) else [math.nan]
        numbers = all(
            isinstance(value, int | float) and math.isfinite(value) and value >= 0
            for value in given
        )
        if weights not in CHOSEN and not (numbers and any(given)):
            raise ValueError(
                f"expected {' or '.join(CHOSEN)}, or a number for each member, none below 0 and not all of them 0, such as "
                "{cnn_a: 2, cnn_b: 1}"
            )
        return weights

    @model_validator(mode="after")
    def _weights_of_the_members(self) -> "Ensemble":
        if isinstance(self.weights, dict) and set(self.weights) != set(self.members):
            raise ValueError(
                f"weights are of {', '.join(self.weights)}, expected one for each of {', '.join(self.members)}"
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
    return refuse(path, problems)


def find_mistakes(
    ensembles: Mapping[str, Ensemble], questions: Mapping[str, Question]
) -> list[str]:
    """Return what is wrong with the ensembles beside these architectures, {name: the question that it is asked}, each a line."""
    return [
        f"ensembles.{name}: {mistake}"
        for name, ensemble in ensembles.items()
        for mistake in _mistakes(name, ensemble, questions)
    ]


def _mistakes(name: str, ensemble: Ensemble, questions: Mapping[str, Question]) -> Iterable[str]:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,200}", name):
        yield "expected a name of 1 to 200 letters, digits and underscores: it names a folder"
    if name in questions:
        yield "an architecture has this name already; both would be one row of the comparison"
    unknown = [member for member in ensemble.members if member not in questions]
    for member in unknown:
        close = difflib.get_close_matches(member, questions, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        yield f"unknown member {member!r}; {hint}architectures here are {', '.join(questions)}"
    asked = {
        member: _sorted(questions[member]) for member in ensemble.members if member not in unknown
    }
    if any(question != next(iter(asked.values())) for question in asked.values()):
        said = "; ".join(f"{member}: {_in_words(questions[member])}" for member in asked)
        yield f"its members answer different questions, and their answers cannot be put together ({said})"


def _sorted(question: Question) -> tuple[str, dict[str, list[str]]]:
    """Return a question so that equal ones are equal, whatever the order of folders and classes."""
    return question.name, {label: sorted(group) for label, group in (question.labels or {}).items()}


def _in_words(question: Question) -> str:
    groups = {label: ", ".join(group) for label, group in (question.labels or {}).items()}
    return ", ".join(f"{label} ({group})" for label, group in groups.items()) or question.name
