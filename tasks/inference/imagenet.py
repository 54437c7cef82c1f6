"""Classifiers of keras.applications as they were pretrained on ImageNet, with their own top and its 1,000 classes.

Keras downloads weights and class names once, checks them and keeps them in `$KERAS_HOME/models` (`~/.keras/models`).
"""

import difflib
import hashlib
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import keras
import numpy as np

from tasks.errors import UserError
from tasks.inference import gradcam
from tasks.inference.predictor import PLACES, Heatmaps, Predictor
from tasks.params.model_input import Form, Limits

CLASSES = 1000

T = TypeVar("T")


def load(name: str, limits: Limits, explain: bool = False) -> Predictor:
    """Return the predictor of an application such as VGG16.

    Raises `UserError` for an unknown name, one that cannot `explain`, and where files cannot be downloaded: it names them
    and says where to put them.
    """
    known = {known.lower(): known for known in _applications()}
    if name not in known.values():
        close = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3)]
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"known are {', '.join(known.values())}"
        )
        raise UserError(f"imagenet:{name}: keras.applications has no such classifier; {hint}")
    application = _applications()[name]
    missing: list[str] = []
    classes = _fetched(class_names, missing)
    model = _fetched(lambda: application(weights="imagenet"), missing)
    if missing:
        raise UserError(_remedy(name, missing))
    prepare = sys.modules[application.__module__].preprocess_input

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities = model.predict_on_batch(prepare(pixels.astype(np.float32)))
        return probabilities, np.full(len(pixels), np.nan)

    return Predictor(
        name=f"imagenet:{name}",
        sha256=_digest(model),
        classes=classes,
        forms=(Form(model.input_shape[1:3], 3),),
        answer=answer,
        limits=limits,
        top=len(PLACES),
        heatmaps=_heatmaps(name, model, prepare) if explain else None,
    )


def class_names() -> list[str]:
    """Return ImageNet's class names in the order of the outputs; of two that are equal, each with its WordNet number."""
    falling = np.arange(CLASSES, 0, -1)[np.newaxis]
    named = keras.applications.imagenet_utils.decode_predictions(falling, top=CLASSES)[0]
    times = Counter(name for _, name, _ in named)
    return [name if times[name] == 1 else f"{name} ({number})" for number, name, _ in named]


def _applications() -> dict[str, Callable[..., keras.Model]]:
    return {
        name: build for name, build in vars(keras.applications).items() if inspect.isfunction(build)
    }


def _fetched(fetch: Callable[[], T], missing: list[str]) -> T | None:
    """Return what Keras has or downloads; add its address to `missing` where the network fails."""
    try:
        return fetch()
    except Exception as error:  # Keras raises just that when the network fails
        address = re.search(r"URL fetch failure on (\S+):", str(error))
        if address is None:
            raise
        missing.append(address[1])
        return None


def _remedy(name: str, missing: list[str]) -> str:
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    files = "\n".join(f"    {address}" for address in missing)
    return f"imagenet:{name} could not be downloaded. On a machine with a network fetch\n{files}\n  and put it into {cache}"


def _heatmaps(
    name: str, model: keras.Model, prepare: Callable[[np.ndarray], np.ndarray]
) -> Heatmaps:
    if not isinstance(model.layers[-1], keras.layers.Dense):
        raise UserError(
            f"imagenet:{name} ends in no dense layer, which Grad-CAM starts from here; VGG16 and ResNet50 do"
        )
    found = gradcam.explainer(model)
    return lambda pixels, classes: found.heatmaps(prepare(pixels.astype(np.float32)), classes)


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
