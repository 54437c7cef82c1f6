"""The model that answers now: where an alias moves to another version, the next question gets that one.

A new version is loaded and warmed up before it takes the old one's place; a question in hand keeps the model that it began
with. If the registry does not answer, or the new version's files are refused, the model at hand goes on: `problem` and the
log say why.
"""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from mlflow.exceptions import MlflowException

from tasks.errors import describe_error
from tasks.imaging.picture import Limits
from tasks.inference import gradcam
from tasks.inference.predictor import Predictor
from tasks.params.whole import load_params
from tasks.registry import load, versions

INTERVAL = 10.0  # seconds between two looks at the registry
RETRY = 60.0  # seconds in which a version that was refused is not fetched again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A predictor, and in words why it tells of no place where it looked, if so."""

    predictor: Predictor
    without: str = ""

    @property
    def registered(self) -> bool:
        """Whether it is of the registry, where an alias may move."""
        return bool(self.predictor.facts)

    def heat(self, pixels: np.ndarray, label: str) -> np.ndarray | str:
        """Return what speaks for a class in `uint8` pixels as the model takes them: float32 (height, width), 0 to 1."""
        if self.predictor.heatmaps is None:
            return self.without
        return self.predictor.heatmaps(pixels[np.newaxis], [self.predictor.classes.index(label)])[0]


@dataclass
class Current:
    """What `asked` names, as of at most `interval` seconds ago. Without a `model` it loads one, and raises what `load` does."""

    asked: str
    name: str | None
    limits: Limits | None = None  # of a file, besides those of params.yaml
    interval: float = INTERVAL
    model: Model | None = None
    problem: str | None = None  # why the model is not what `asked` names now
    looked: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _refused: tuple[str, float] = ("", 0.0)  # a version, and until when

    def __post_init__(self) -> None:
        if self.model is None:
            self.model = load_model(self.asked, self.name, self.limits)
            if self.model.registered:
                self.name = (
                    self.name or load_params().register_.model
                )  # once: the file may be edited meanwhile

    def get(self) -> Model:
        """Return the model, a new one where the alias has moved; then the question waits until it is loaded."""
        with self.lock:
            if self.model.registered and time.monotonic() - self.looked >= self.interval:
                self.look()
                self.looked = time.monotonic()
            return self.model

    async def follow(self) -> None:
        """Look every `interval` seconds, in a thread, until cancelled: no question waits for a model to load."""
        while self.model.registered:
            await asyncio.sleep(self.interval)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take the version that is wanted now, if it is another one and can be loaded."""
        try:
            version = load.find(self.asked, self.name)
            if (load.named(version), version.tags.get(versions.SHA256)) == (
                self.model.predictor.name,
                self.model.predictor.sha256,
            ):
                self._tell(None)
            elif str(version.version) != self._refused[0] or time.monotonic() >= self._refused[1]:
                self._refused = str(version.version), time.monotonic() + RETRY
                self.model = load_model(str(version.version), self.name, self.limits)
                log.info("%s answers now", self.model.predictor.name)
                self._tell(None)
        except Exception as error:  # whatever it is, the model at hand goes on; a fault of ours keeps its traceback in the log
            ours = describe_error(error) is None and not isinstance(
                error, OSError | MlflowException
            )
            self._tell(repr(error) if ours else str(error), error if ours else None)

    def _tell(self, problem: str | None, fault: Exception | None = None) -> None:
        """Log a problem when it comes, and not again at every look."""
        if problem is None:
            self._refused = "", 0.0
        elif problem != self.problem:
            log.warning(
                "%s goes on answering: %s", self.model.predictor.name, problem, exc_info=fault
            )
        self.problem = problem


def load_model(asked: str, name: str | None, limits: Limits | None) -> Model:
    """Load what `asked` names, as `tasks.registry.load` says. Raises `UserError` in words for the user."""
    try:
        return Model(load.load_predictor(asked, name, limits, explain=True))
    except gradcam.NoHeatMapError as reason:
        return Model(load.load_predictor(asked, name, limits), str(reason))
