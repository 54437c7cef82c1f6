"""The model that a server uses now. When an alias moves to another version, the server follows.

A new version is loaded and warmed up before it replaces the old one. A request keeps the model that
it started with. If the registry does not answer, or the new version is refused, the server keeps
its model; `problem` and the log say why.
"""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from tasks.errors import describe_error
from tasks.imaging.picture import NO_LIMITS, Limits
from tasks.inference import gradcam
from tasks.inference.predictor import Predictor
from tasks.params.whole import load_params
from tasks.registry import load, versions

INTERVAL = 10.0  # seconds between two checks of the registry
RETRY = 60.0  # seconds until a refused version is downloaded again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A predictor, and the reason if it has no heat maps."""

    predictor: Predictor
    no_heat_map: str = ""

    @property
    def is_registered(self) -> bool:
        """Whether the model is a version in the registry, where an alias may move."""
        return bool(self.predictor.facts)

    def find_heat(self, pixels: NDArray[np.uint8], label: str) -> NDArray[np.float32] | None:
        """Return the evidence for a class in decoded pixels: (height, width), 0 to 1.

        Returns None if the model has no heat maps.
        """
        if self.predictor.heatmaps is None:
            return None
        return self.predictor.heatmaps(pixels[np.newaxis], [self.predictor.classes.index(label)])[0]


@dataclass
class Current:
    """The model that `wanted` (an alias, a version or a folder) names.

    It may be `interval` seconds behind the registry.
    """

    wanted: str
    name: str | None
    model: Model
    limits: Limits = NO_LIMITS  # limits of a file, besides the limits of params.yaml
    interval: float = INTERVAL
    problem: str | None = None  # why the model is not the wanted version, if so
    checked: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _refused: tuple[str, float] = ("", 0.0)  # a version, and until when

    def get(self) -> Model:
        """Return the model. Check the registry first if a check is due."""
        with self.lock:
            if self.model.is_registered and time.monotonic() - self.checked >= self.interval:
                self.refresh()
                self.checked = time.monotonic()
            return self.model

    async def follow(self) -> None:
        """Check the registry every `interval` seconds, in a thread, until cancelled."""
        while self.model.is_registered:
            await asyncio.sleep(self.interval)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Load the wanted version if it has changed. After any error, keep the model."""
        try:
            version = load.find_version(self.wanted, self.name)
            found = load.describe_version(version), version.tags.get(versions.SHA256)
            number = str(version.version)
            if found == (self.model.predictor.name, self.model.predictor.sha256):
                self._report_problem(None)
            elif number != self._refused[0] or time.monotonic() >= self._refused[1]:
                self._refused = number, time.monotonic() + RETRY
                self.model = load_model(number, self.name, self.limits)
                log.info("%s answers now", self.model.predictor.name)
                self._report_problem(None)
        except Exception as error:
            known = describe_error(error) is not None or isinstance(
                error, OSError | MlflowException
            )
            self._report_problem(str(error) if known else repr(error), None if known else error)

    def _report_problem(self, problem: str | None, bug: Exception | None = None) -> None:
        """Log a new problem once. A bug of ours is logged with its traceback."""
        if problem is None:
            self._refused = "", 0.0
        elif problem != self.problem:
            name = self.model.predictor.name
            log.warning("%s is kept and goes on answering: %s", name, problem, exc_info=bug)
        self.problem = problem


def open_current(
    wanted: str, name: str | None, limits: Limits = NO_LIMITS, interval: float = INTERVAL
) -> Current:
    """Load the wanted model, to be followed. Raises `UserError` if it cannot be loaded."""
    model = load_model(wanted, name, limits)
    if model.is_registered:  # the file may be edited while the server runs
        name = name or load_params().register_.model
    return Current(wanted, name, model, limits, interval)


def load_model(wanted: str, name: str | None, limits: Limits) -> Model:
    """Load a model, with heat maps if it has any. Raises `UserError` if it cannot be loaded."""
    try:
        return Model(load.load_predictor(wanted, name, limits, explain=True))
    except gradcam.NoHeatMapError as reason:
        return Model(load.load_predictor(wanted, name, limits), str(reason))
