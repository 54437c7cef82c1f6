"""The section `register` of `params.yaml`: the registered model, and when a version is promoted."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from tasks.params.section import Count, Section


class Gate(Section):
    """What a version must reach on the test images to become champion without a person."""

    macro_f1: Annotated[float, Field(ge=0, le=1)] | None = 0.6
    """Lowest allowed macro F1; null sets no limit."""
    worst_recall: Annotated[float, Field(ge=0, le=1)] | None = 0.3
    """Lowest allowed recall of the worst class; null sets no limit."""
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = 0.25
    """Highest allowed calibration error; null sets no limit."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of the comparison with the champion."""
    recall_margin: Annotated[float, Field(gt=0, lt=1)] | None = 0.1
    """Loss of recall that must be ruled out for each class; null skips this test."""
    images: Count = 50
    """Number of test images needed that are new to both models; with fewer, a person decides."""


def _check_model_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name):
        raise ValueError(
            "expected 1 to 200 letters, digits, hyphens and underscores: "
            "the name is part of addresses in MLflow"
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
    """The registered model, and when a version becomes its champion."""

    model: Annotated[str, AfterValidator(_check_model_name)] = "image_classifier"
    """Name of the model in the MLflow registry."""
    gate: Gate | None = Gate()
    """What a version needs to become champion; null promotes every winner."""
    class_names: Annotated[dict[str, ClassName], AfterValidator(_check_class_names)] = Field(
        default_factory=dict
    )
    """Names of classes for people, such as `{no_tumor: Pas de tumeur}`; others keep theirs."""
