"""The JSON of the REST server."""

import json
from collections.abc import Sequence

from pydantic import BaseModel

from serving.current import Current
from tasks.inference.predictor import Answer, Predictor


class Refusal(BaseModel):
    """The reason for a refusal: what was expected, what was received, what to do."""

    detail: str


class Unusable(BaseModel):
    """The reason why a file has no prediction; `reason` is for programs, such as `truncated`."""

    reason: str
    detail: str


class FileAnswer(BaseModel):
    """The prediction for one file, or its `error`.

    `predicted` is the most probable class, even if the model abstains; `predicted_name` is its name
    for people. `abstained` and `unfamiliar` are null if the model has no such threshold. `distance`
    grows with the difference from the training images, and is null if the model does not measure
    it. `clipped` is the share of pixels that are brighter than in any training image; the model
    sees them as white.
    """

    file: str  # the name in the request
    sha256: str
    predicted: str | None
    predicted_name: str | None
    confidence: float | None
    probabilities: dict[str, float]
    abstained: bool | None
    unfamiliar: bool | None
    distance: float | None
    clipped: float
    error: Unusable | None


class Answers(BaseModel):
    """One answer per file, in the order of the files, all by one version of the model."""

    model: str
    model_sha256: str
    answers: list[FileAnswer]


class Unanswered(Refusal):
    """The reason for a refusal. If no file can be used, `answers` has the error of each."""

    answers: list[FileAnswer] = []


class ModelCard(BaseModel):
    """The model that answers now. `problem` says why it is not the version that the alias names.

    `class_names` are names for people. `members` are the weights of an ensemble's members. Images
    of any size are scaled to `height` and `width`; for an ensemble these are the largest of its
    members.
    """

    model: str
    model_sha256: str
    architecture: str | None
    classes: list[str]
    class_names: dict[str, str]
    members: dict[str, float]
    height: int
    width: int
    channels: int
    thresholds: dict[str, float | None]
    metrics: dict[str, float]
    problem: str | None


class State(BaseModel):
    """Whether the server is alive, or ready."""

    status: str


def make_answers(names: Sequence[str], given: Sequence[Answer], predictor: Predictor) -> Answers:
    """Return the predictions with the names of their files."""
    described = [
        make_answer(name, answer, predictor) for name, answer in zip(names, given, strict=True)
    ]
    return Answers(model=predictor.name, model_sha256=predictor.sha256, answers=described)


def make_answer(name: str, answer: Answer, predictor: Predictor) -> FileAnswer:
    """Return the answer for one file. With very many classes it lists only the highest ones."""
    reason, _, detail = (answer.error or "").partition(": ")
    probabilities = answer.probabilities
    if predictor.top is not None:
        highest = sorted(probabilities.items(), key=lambda item: -item[1])[: predictor.top]
        probabilities = dict(highest)
    return FileAnswer(
        file=name,
        sha256=answer.sha256,
        predicted=answer.predicted,
        predicted_name=answer.predicted and predictor.name_class(answer.predicted),
        confidence=answer.confidence,
        probabilities=dict(probabilities),
        abstained=answer.abstained,
        unfamiliar=answer.unfamiliar,
        distance=answer.distance,
        clipped=answer.clipped,
        error=Unusable(reason=reason, detail=detail) if answer.error else None,
    )


def make_model_card(current: Current) -> ModelCard:
    """Describe the model that answers now."""
    predictor = current.model.predictor
    facts, thresholds = predictor.facts, predictor.thresholds
    return ModelCard(
        model=predictor.name,
        model_sha256=predictor.sha256,
        architecture=facts.get("architecture"),
        classes=predictor.classes,
        class_names={label: predictor.name_class(label) for label in predictor.classes},
        members=json.loads(facts.get("members", "{}")),
        height=max(form.image_size[0] for form in predictor.forms),
        width=max(form.image_size[1] for form in predictor.forms),
        channels=max(form.channels for form in predictor.forms),
        thresholds={"confidence": thresholds.confidence, "distance": thresholds.distance},
        metrics={
            name: float(value)
            for name, value in facts.items()
            if name.startswith(("val_", "test_"))
        },
        problem=current.problem,
    )
