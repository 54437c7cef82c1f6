"""The section `register` of `params.yaml`: the registered model, and the gate before its champion."""

from typing import Annotated

from pydantic import Field

from tasks.params.section import Count, Section


class Gate(Section):
    """What a version must fulfil on the test images to become champion by itself; null asks nothing."""

    macro_f1: Annotated[float, Field(ge=0, le=1)] | None = 0.6  # at least
    worst_recall: Annotated[float, Field(ge=0, le=1)] | None = 0.3  # at least, of the class that is found least
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = 0.25  # at most
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # of intervals and tests against the champion
    recall_margin: Annotated[float, Field(gt=0, lt=1)] | None = 0.1  # no class may lose as much, with that confidence
    images: Count = 50  # test images that neither model has seen; with fewer a person decides


class Register(Section):
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "image_classifier"
    gate: Gate = Gate()
