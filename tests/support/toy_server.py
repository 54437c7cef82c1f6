"""A REST server of a small model that predicts by brightness, without framework or registry."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import uvicorn
from PIL import Image

from serving.api import create_app
from serving.current import Current, Model
from serving.settings import Settings
from tasks.inference.predictor import Predictor, Thresholds
from tasks.params.model_input import Form

DEFAULT = Settings()
CLASSES = ["dark", "bright née"]


def brightness(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how bright images are, and how far from grey."""
    bright = pixels.mean(axis=(1, 2, 3)) / 255
    probabilities = np.stack([1 - bright, bright], axis=1)
    return probabilities.astype(np.float32), np.abs(bright - 0.5).astype(np.float32)


def predictor(answer: Callable = brightness, settings: Settings = DEFAULT) -> Predictor:
    """Return a predictor for images of 8 x 8 pixels."""
    thresholds = Thresholds(confidence=0.7, distance=0.49)
    return Predictor(
        "toy version 1", "a" * 64, CLASSES, (Form((8, 8), 1),), answer, thresholds, settings.limits
    )


def current(answer: Callable = brightness, settings: Settings = DEFAULT) -> Current:
    """Return a model that is in no registry."""
    model = Model(predictor(answer, settings), "it only looks at the brightness")
    return Current("toy", None, model, settings.limits)


def picture(value: int, kind: str = "PNG", side: int = 16) -> bytes:
    """Return an image file of one grey value."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), value).save(buffer, kind)
    return buffer.getvalue()


@contextlib.contextmanager
def running(settings: Settings, served: Current) -> Iterator[tuple[uvicorn.Server, int]]:
    """Run a server on a free port in a thread, until the end of the block."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings, served), port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
