"""Predict image files with a trained model, the same way for the command line, REST and MLflow.

    predictor = load_predictor("champion")           # or "3", "data/models/cnn_a", "imagenet:VGG16"
    answers = predictor.predict([path, content])     # paths or bytes; one `Answer` each, in order
    for answer in predictor.stream(sources): ...     # the same in bounded memory, for any number
    predictor.record(answer)                         # one flat row, for a table or JSON
    serving.explain.picture(predictor, path, label)  # the heat map, if loaded with explain=True

A file that cannot be decoded gets an `Answer` with an `error` and does not stop the others. Files
are decoded as for training (`tasks/imaging/decode.py`), in a few threads while the model predicts.
Threads can share a predictor: the model serves one of them at a time. Probabilities are calibrated,
and thresholds are those that were chosen on validation.
"""

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.errors import UserError
from tasks.imaging import decode as decoder
from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import ImageError
from tasks.imaging.render import render, show
from tasks.inference import ensemble
from tasks.modeling import saved
from tasks.params.model_input import DEFAULT_LIMITS, Form, Limits, shape_of

BATCH = saved.BATCH  # images at a time
# Threads that decode. Each can hold one image of the largest allowed size, with its copies.
THREADS = min(4, os.cpu_count() or 1)
# Columns of a model with too many classes for one column each.
PLACES = ("predicted", "second", "third")

Source = Path | bytes
# From pixels to probabilities (images, classes) and distances (images,).
Answers = Callable[[NDArray[np.uint8]], tuple[NDArray[Any], NDArray[Any]]]
# From pixels and class indices to heat maps (images, height, width).
Heatmaps = Callable[[NDArray[np.uint8], Sequence[int]], NDArray[np.float32]]


@dataclass(frozen=True)
class Thresholds:
    """The model abstains below `confidence`; an image beyond `distance` is unfamiliar.

    A threshold of None is not applied.
    """

    confidence: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Answer:
    """The prediction for one file. With an `error`, all other fields keep their defaults.

    `predicted` is the most probable class, even if the model abstains. `abstained` and `unfamiliar`
    are None without a threshold. `distance` is larger for images less like the training images; it
    is None if the model measures no distance.
    """

    sha256: str  # of the bytes of the file; "" if it could not be read
    predicted: str | None = None
    confidence: float | None = None
    # By class, in the order of the model's outputs.
    probabilities: Mapping[str, float] = field(default_factory=dict)
    distance: float | None = None
    abstained: bool | None = None
    unfamiliar: bool | None = None
    error: str | None = None  # `reason: detail`
    # Share of pixels brighter than in any training image; the model sees them as white.
    clipped: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """The pixels of one file, or the error that prevented them."""

    sha256: str
    pixels: NDArray[np.uint8] | None = None
    error: str | None = None
    clipped: float = 0.0


@dataclass(frozen=True)
class Predictor:
    """A model in memory, with the facts needed to use it.

    `answer` takes `uint8` pixels (images, *shape_of(forms)) and returns probabilities (images,
    classes) and distances (images,), which are NaN if the model measures no distance.
    """

    name: str  # for example `demo_heads version 3`
    sha256: str  # of the model's files
    classes: list[str]
    forms: tuple[Form, ...]  # several only for an ensemble with members of different inputs
    answer: Answers
    thresholds: Thresholds = Thresholds()
    limits: Limits = DEFAULT_LIMITS
    top: int | None = None  # the number of classes in a record; None means all
    facts: Mapping[str, str] = field(default_factory=dict)  # the tags of the registry
    heatmaps: Heatmaps | None = None  # set if loaded to explain, see `serving/explain.py`
    class_names: Mapping[str, str] = field(default_factory=dict)  # for people, of some classes
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def predict(self, sources: Iterable[Source]) -> list[Answer]:
        """Predict files given by path or as bytes, in their order."""
        return list(self.stream(sources))

    def stream(self, sources: Iterable[Source]) -> Iterator[Answer]:
        """Yield the answers one by one; at most two batches of sources are in memory."""
        pool = ThreadPoolExecutor(THREADS)
        waiting: deque[list[Future[Prepared]]] = deque()
        remaining = iter(sources)
        try:
            while batch := list(islice(remaining, BATCH)):
                waiting.append([pool.submit(self.decode, source) for source in batch])
                if len(waiting) == 2:  # the next batch is decoded while the model predicts this one
                    yield from self.answers([decoded.result() for decoded in waiting.popleft()])
            while waiting:
                yield from self.answers([decoded.result() for decoded in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def decode(self, source: Source) -> Prepared:
        """Return the pixels that the model takes, or the error that prevents them."""
        sha256 = ""
        try:
            content = source if isinstance(source, bytes) else read(source, self.limits)
            sha256 = hashlib.sha256(content).hexdigest()
            decoded = decode_bytes(content, self.limits)
            clipped = max(decoded.measure_clipped(form.bits) for form in self.forms)
            return Prepared(sha256, render(decoded, *self.forms), clipped=clipped)
        except ImageError as error:
            return Prepared(sha256, error=f"{error.reason}: {error.detail}")

    def picture(self, content: bytes) -> Image.Image:
        """Return the part of the image that the model sees. Raises `ImageError`."""
        return show(decode_bytes(content, self.limits), self.forms[0])

    def name_class(self, label: str) -> str:
        """Return the name of a class for people; by default it is the class itself."""
        return self.class_names.get(label, label)

    def record(self, answer: Answer) -> dict[str, object]:
        """Return an answer as one flat row with the keys `columns`; missing values are None."""
        row: dict[str, object] = {
            "predicted": answer.predicted,
            "confidence": answer.confidence,
            "abstained": answer.abstained,
            "unfamiliar": answer.unfamiliar,
            "distance": answer.distance,
        }
        if self.top is None:
            row |= {f"p_{label}": answer.probabilities.get(label) for label in self.classes}
        else:
            others = sorted(answer.probabilities.items(), key=lambda item: -item[1])[1 : self.top]
            for number, place in enumerate(PLACES[1 : self.top]):
                label, probability = others[number] if others else (None, None)
                row |= {place: label, f"p_{place}": probability}
        return row | {"error": answer.error}

    @property
    def identity(self) -> str:
        """Return a SHA-256 of all that decides an answer besides the image.

        These are the model's files, the thresholds and the version of the decoder.
        """
        return hashlib.sha256(
            f"{self.sha256} {self.thresholds} {decoder.VERSION}".encode()
        ).hexdigest()

    @property
    def columns(self) -> list[str]:
        """Return the keys of `record`."""
        return list(self.record(Answer("")))

    def warm_up(self) -> None:
        """Predict blank images in batches of two sizes.

        TensorFlow compiles for the first size, and at the second size for all sizes.
        """
        for images in (1, 2):
            self.answer(np.zeros((images, *shape_of(self.forms)), np.uint8))

    def answers(self, batch: Sequence[Prepared]) -> Iterator[Answer]:
        """Yield the answers for a batch of decoded files, in their order."""
        usable = [decoded.pixels for decoded in batch if decoded.pixels is not None]
        if usable:
            with self.lock:
                probabilities, distances = self.answer(np.stack(usable))
        row = 0
        for decoded in batch:
            if decoded.pixels is None:
                yield Answer(decoded.sha256, error=decoded.error)
            else:
                yield self._apply_thresholds(decoded, probabilities[row], float(distances[row]))
                row += 1

    def _apply_thresholds(
        self, decoded: Prepared, probabilities: NDArray[Any], distance: float
    ) -> Answer:
        top, limits = int(probabilities.argmax()), self.thresholds
        confidence, known = float(probabilities[top]), not np.isnan(distance)
        unfamiliar = None
        if known and limits.distance is not None:
            unfamiliar = distance > limits.distance
        return Answer(
            sha256=decoded.sha256,
            predicted=self.classes[top],
            confidence=confidence,
            probabilities=dict(zip(self.classes, map(float, probabilities), strict=True)),
            distance=distance if known else None,
            abstained=None if limits.confidence is None else confidence < limits.confidence,
            unfamiliar=unfamiliar,
            clipped=decoded.clipped,
        )


def from_folder(
    folder: Path,
    name: str,
    sha256: str,
    thresholds: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Predictor:
    """Load a model's folder as training wrote it, and its `thresholds.json` if the file exists.

    Raises `UserError` if the files are damaged, do not fit together, or would run code.
    """
    model = ensemble.load(folder) if ensemble.is_ensemble(folder) else saved.load(folder)
    chosen = Thresholds()
    if thresholds is not None and thresholds.exists():
        chosen = read_thresholds(thresholds)
    return Predictor(name, sha256, model.classes, model.forms, model.answer, chosen, limits)


def read_thresholds(file: Path) -> Thresholds:
    """Read the thresholds that `evaluate` chose. Raises `UserError` for any other content."""
    try:
        content = json.loads(file.read_text())
        numbers = {
            key: None if content[key] is None else float(content[key])
            for key in ("confidence", "distance")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: expected numbers or null for confidence and distance ({error!r}); evaluate "
            "the model again"
        ) from error
    return Thresholds(**numbers)


def read(path: Path, limits: Limits) -> bytes:
    """Read a regular file; reading a pipe or a device would never end. Raises `ImageError`."""
    if path.exists() and not path.is_file():
        found = "a folder that cannot be listed" if path.is_dir() else "no regular file"
        raise ImageError("unreadable", found)
    return read_file(path, limits)
