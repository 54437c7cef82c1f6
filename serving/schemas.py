"""What the REST server says, as JSON."""

import json
from collections.abc import Sequence

from pydantic import BaseModel

from serving.current import Current
from tasks.inference.predictor import Answer, Predictor


class Refusal(BaseModel):
    """Why there is no answer: what was expected, what was received, what to do."""

    detail: str


class Unusable(BaseModel):
    """Why a file has no answer; `reason` is a word for programs, such as `truncated`."""

    reason: str
    detail: str


class FileAnswer(BaseModel):
    """What the model says of one file: an `error`, or all the rest.

    `predicted` is the most probable class, also where the model abstains. `abstained` and `unfamiliar` are null where the
    model has no threshold, `distance` (how unlike the training images an image is) where it has no such measure.
    `clipped` is the share of pixels that are brighter than in any training image, and count as white.
    """

    file: str  # its name, as sent
    sha256: str
    predicted: str | None
    confidence: float | None
    probabilities: dict[str, float]
    abstained: bool | None
    unfamiliar: bool | None
    distance: float | None
    clipped: float
    error: Unusable | None


class Answers(BaseModel):
    """One answer for each file, in their order, all by one version of the model."""

    model: str
    model_sha256: str
    answers: list[FileAnswer]


class Unanswered(Refusal):
    """Why there is no answer; where that is because no file can be used, `answers` tells of each why."""

    answers: list[FileAnswer] = []


class ModelCard(BaseModel):
    """What answers now. `problem` says why it is not the version that the registry's alias names, if so."""

    model: str
    model_sha256: str
    architecture: str | None
    classes: list[str]
    members: dict[
        str, float
    ]  # of a registered ensemble, with their weights; of others there are none
    height: (
        int  # in pixels; a picture of any size is scaled to it; where members differ, the largest
    )
    width: int
    channels: int
    thresholds: dict[str, float | None]
    metrics: dict[str, float]
    problem: str | None


class State(BaseModel):
    """Whether the server is alive, or ready."""

    status: str


def answers(names: Sequence[str], given: Sequence[Answer], predictor: Predictor) -> Answers:
    """Put the answers of a predictor beside the names of the files."""
    described = [
        file_answer(name, answer, predictor.top) for name, answer in zip(names, given, strict=True)
    ]
    return Answers(model=predictor.name, model_sha256=predictor.sha256, answers=described)


def file_answer(name: str, answer: Answer, top: int | None) -> FileAnswer:
    """Describe the answer to one file; of very many classes only the `top` most probable ones."""
    reason, _, detail = (answer.error or "").partition(": ")
    probabilities = answer.probabilities
    if top is not None:
        probabilities = dict(sorted(probabilities.items(), key=lambda item: -item[1])[:top])
    return FileAnswer(
        file=name,
        sha256=answer.sha256,
        predicted=answer.predicted,
        confidence=answer.confidence,
        probabilities=dict(probabilities),
        abstained=answer.abstained,
        unfamiliar=answer.unfamiliar,
        distance=answer.distance,
        clipped=answer.clipped,
        error=Unusable(reason=reason, detail=detail) if answer.error else None,
    )


def model_card(current: Current) -> ModelCard:
    """Describe the model that answers."""
    predictor = current.model.predictor
    return ModelCard(
        model=predictor.name,
        model_sha256=predictor.sha256,
        architecture=predictor.facts.get("architecture"),
        classes=predictor.classes,
        members=json.loads(predictor.facts.get("members", "{}")),
        height=max(form.image_size[0] for form in predictor.forms),
        width=max(form.image_size[1] for form in predictor.forms),
        channels=max(form.channels for form in predictor.forms),
        thresholds={
            "confidence": predictor.thresholds.confidence,
            "distance": predictor.thresholds.distance,
        },
        metrics={
            name: float(value)
            for name, value in predictor.facts.items()
            if name.startswith(("val_", "test_"))
        },
        problem=current.problem,
    )
