"""One trained model that answers image files, alike for the command line, MLflow, REST and the page.

    predictor = load_predictor("champion")           # or "3", "challenger", "data/models/cnn_a", "imagenet:VGG16"
    answers = predictor.predict([path, content])     # files by path or as bytes, one `Answer` for each, in their order
    for answer in predictor.stream(sources): ...     # the same for any number, in bounded memory
    predictor.record(answer)                         # the answer as one flat row: columns of a table, or JSON
    serving.explain.picture(predictor, path, label)  # where it looked, if it was loaded with explain=True

A file that cannot be decoded gets an answer with an `error` and stops nothing. Files are decoded as training decoded them
(`tasks/imaging/decode.py`), in a few threads while the model is at work; a predictor may be shared by threads, one of
which has the model at a time. Probabilities are calibrated; thresholds are those that were chosen on validation.
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
from types import MappingProxyType

import numpy as np
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
THREADS = min(
    4, os.cpu_count() or 1
)  # that decode; each may hold one picture of the model's limits with its copies
PLACES = (
    "predicted",
    "second",
    "third",
)  # columns of a model with too many classes for a column each

Source = Path | bytes
Answers = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Heatmaps = Callable[[np.ndarray, Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Thresholds:
    """Below this confidence a model abstains, beyond this distance an image is unfamiliar; None judges nothing."""

    confidence: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of one file; with an `error` (`reason: detail`) it says nothing else.

    `predicted` is the most probable class, also where the model abstains. `abstained` and `unfamiliar` are None where no
    threshold judges; `distance` grows with how unlike the training images an image is, None where the model cannot say.
    """

    sha256: str  # of the file's bytes; "" where they could not be read
    predicted: str | None = None
    confidence: float | None = None
    probabilities: Mapping[str, float] = field(
        default_factory=dict
    )  # by class, in the order of the model's outputs
    distance: float | None = None
    abstained: bool | None = None
    unfamiliar: bool | None = None
    error: str | None = None
    clipped: float = 0.0  # share of the pixels that are brighter than any training image was: the model sees them white


@dataclass(frozen=True)
class Prepared:
    """Pixels of one file, or why there are none."""

    sha256: str
    pixels: np.ndarray | None = None
    error: str | None = None
    clipped: float = 0.0


@dataclass(frozen=True)
class Predictor:
    """A model in memory, and what is known of it.

    `answer` takes `uint8` pixels (images, *shape_of(forms)) and gives probabilities (images, classes) and distances
    (images,), NaN where the model has none.
    """

    name: str  # such as `demo_heads version 3`
    sha256: str  # of the model's files
    classes: list[str]
    forms: tuple[
        Form, ...
    ]  # one, but for an ensemble whose members take pictures in different ones
    answer: Answers
    thresholds: Thresholds = Thresholds()
    limits: Limits = DEFAULT_LIMITS
    top: int | None = None  # how many classes a record has; None: all
    facts: Mapping[str, str] = field(
        default_factory=dict
    )  # the registry's tags, such as `architecture`
    heatmaps: Heatmaps | None = (
        None  # where the model looked, if loaded to explain: see `serving/explain.py`
    )
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def predict(self, sources: Iterable[Source]) -> list[Answer]:
        """Answer files given by path or as bytes, in their order."""
        return list(self.stream(sources))

    def stream(self, sources: Iterable[Source]) -> Iterator[Answer]:
        """Yield the answers one by one; of the sources no more than two batches are held."""
        pool = ThreadPoolExecutor(THREADS)
        waiting: deque[list[Future[Prepared]]] = deque()
        remaining = iter(sources)
        try:
            while batch := list(islice(remaining, BATCH)):
                waiting.append([pool.submit(self.decode, source) for source in batch])
                if len(waiting) == 2:  # the next batch is decoded while the model has this one
                    yield from self.answers([decoded.result() for decoded in waiting.popleft()])
            while waiting:
                yield from self.answers([decoded.result() for decoded in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def decode(self, source: Source) -> Prepared:
        """Return the pixels as this model takes them, or the reason why there are none."""
        sha256 = ""
        try:
            content = source if isinstance(source, bytes) else read(source, self.limits)
            sha256 = hashlib.sha256(content).hexdigest()
            decoded = decode_bytes(content, self.limits)
            clipped = max(decoded.clipped(form.bits) for form in self.forms)
            return Prepared(sha256, render(decoded, *self.forms), clipped=clipped)
        except ImageError as error:
            return Prepared(sha256, error=f"{error.reason}: {error.detail}")

    def picture(self, content: bytes) -> Image.Image:
        """Return the part of the picture that the model sees, to show it. Raises `ImageError`."""
        return show(decode_bytes(content, self.limits), self.forms[0])

    def record(self, answer: Answer) -> dict[str, object]:
        """Return an answer as one flat row with the columns `columns`; None where there is nothing to say."""
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
            best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[1 : self.top]
            for place, (label, probability) in zip(
                PLACES[1 : self.top], best or [(None, None)] * (self.top - 1), strict=True
            ):
                row |= {place: label, f"p_{place}": probability}
        return row | {"error": answer.error}

    @property
    def identity(self) -> str:
        """A SHA-256 of all that an answer depends on besides the image: model files, thresholds, decoder."""
        return hashlib.sha256(
            f"{self.sha256} {self.thresholds} {decoder.VERSION}".encode()
        ).hexdigest()

    @property
    def columns(self) -> list[str]:
        """The names of what `record` gives."""
        return list(self.record(Answer("")))

    def warm_up(self) -> None:
        """Answer blank images, in batches of two sizes: TensorFlow compiles at the first, and for every size at the second."""
        for images in (1, 2):
            self.answer(np.zeros((images, *shape_of(self.forms)), np.uint8))

    def answers(self, batch: Sequence[Prepared]) -> Iterator[Answer]:
        usable = [decoded.pixels for decoded in batch if decoded.pixels is not None]
        if usable:
            with self.lock:
                probabilities, distances = self.answer(np.stack(usable))
        row = 0
        for decoded in batch:
            if decoded.pixels is None:
                yield Answer(decoded.sha256, error=decoded.error)
            else:
                yield self._judged(decoded, probabilities[row], float(distances[row]))
                row += 1

    def _judged(self, decoded: Prepared, probabilities: np.ndarray, distance: float) -> Answer:
        top, known = int(probabilities.argmax()), not np.isnan(distance)
        confidence, limits = float(probabilities[top]), self.thresholds
        return Answer(
            sha256=decoded.sha256,
            predicted=self.classes[top],
            confidence=confidence,
            probabilities=dict(zip(self.classes, map(float, probabilities), strict=True)),
            distance=distance if known else None,
            abstained=None if limits.confidence is None else confidence < limits.confidence,
            unfamiliar=distance > limits.distance
            if known and limits.distance is not None
            else None,
            clipped=decoded.clipped,
        )


def from_folder(
    folder: Path,
    name: str,
    sha256: str,
    thresholds: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> Predictor:
    """Load a model's folder, as training wrote it, with its `thresholds.json` if any.

    Raises `UserError` where the files are damaged, do not fit together or would run code.
    """
    model = ensemble.load(folder) if ensemble.is_one(folder) else saved.load(folder)
    judged = (
        read_thresholds(thresholds)
        if thresholds is not None and thresholds.exists()
        else Thresholds()
    )
    return Predictor(
        name, sha256, model.classes, model.forms, model.answer, judged, limits, facts=facts
    )


def read_thresholds(file: Path) -> Thresholds:
    """Read what `evaluate` chose. Raises `UserError` for a file that has no such numbers."""
    try:
        content = json.loads(file.read_text())
        numbers = {
            key: None if content[key] is None else float(content[key])
            for key in ("confidence", "distance")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: expected numbers or null for confidence and distance ({error!r}); evaluate the model again"
        ) from error
    return Thresholds(**numbers)


def read(path: Path, limits: Limits) -> bytes:
    """Return the bytes of a regular file: a pipe or a device would never end. Raises `ImageError`."""
    if path.exists() and not path.is_file():
        raise ImageError(
            "unreadable", "a folder that cannot be listed" if path.is_dir() else "no regular file"
        )
    return read_file(path, limits)
