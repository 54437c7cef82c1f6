"""The section `register` of `params.yaml`: the registered model, and the gate to its champion."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from tasks.params.section import Count, Section


class Gate(Section):
    """The test scores that a version needs to become champion without a person's decision."""

    macro_f1: Annotated[float, Field(ge=0, le=1)] | None = 0.6
    """Lowest macro F1; null sets no limit."""
    worst_recall: Annotated[float, Field(ge=0, le=1)] | None = 0.3
    """Lowest recall of the class with the lowest recall; null sets no limit."""
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = 0.25
    """Highest calibration error; null sets no limit."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of the intervals and tests against the champion."""
    recall_margin: Annotated[float, Field(gt=0, lt=1)] | None = 0.1
    """Loss of recall that must be ruled out for each class; null rules out none."""
    images: Count = 50
    """Test images unseen by both models that a decision needs; with fewer a person decides."""


def _check_model_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name):
        raise ValueError(
            "expected 1 to 200 letters, digits, hyphens and underscores: "
            "MLflow and its addresses take this name"
        )
    return name


def _check_class_names(names: dict[str, str]) -> dict[str, str]:
    shown = list(names.values())
    twice = sorted({name for name in shown if shown.count(name) > 1})
    if twice:
        raise ValueError(f"expected a different name for each class, received twice: {twice}")
    return names


ClassName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class Register(Section):
    """The registered model, and the gate to its champion."""

    model: Annotated[str, AfterValidator(_check_model_name)] = "image_classifier"
    """Name of the model in the MLflow registry."""
    gate: Gate | None = Gate()
    """What a version needs to become champion; null makes every winner champion."""
    class_names: Annotated[dict[str, ClassName], AfterValidator(_check_class_names)] = Field(
        default_factory=dict
    )
    """Names of classes for people, such as `{no_tumor: Pas de tumeur}`; the rest keep their own."""
