"""The section `register` of `params.yaml`: the registered model, and the gate before its champion."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.params.section import Count, Section


class Gate(Section):
    """What a version must fulfil on the test images to become champion by itself; a criterion that is null is not asked."""

    macro_f1: Annotated[float, Field(ge=0, le=1)] | None = 0.6  # at least
    worst_recall: Annotated[float, Field(ge=0, le=1)] | None = (
        0.3  # at least, of the class that is found least
    )
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = 0.25  # at most
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = (
        0.95  # of intervals and tests against the champion
    )
    recall_margin: Annotated[float, Field(gt=0, lt=1)] | None = (
        0.1  # no class may lose as much, with that confidence
    )
    images: Count = 50  # test images that neither model has seen; with fewer a person decides


def _as_mlflow_takes_it(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name):
        raise ValueError(
            "expected 1 to 200 letters, digits, hyphens and underscores: MLflow and its addresses take this name"
        )
    return name


class Register(Section):
    model: Annotated[str, AfterValidator(_as_mlflow_takes_it)] = "image_classifier"
    gate: Gate | None = Gate()  # null asks nothing: every winner becomes champion
