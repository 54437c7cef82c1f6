"""Classifiers of keras.applications, pretrained on ImageNet, with their own 1,000 classes.

Keras downloads weights and class names once, checks them and keeps them in `$KERAS_HOME/models`
(`~/.keras/models`).
"""

import difflib
import hashlib
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.errors import UserError
from tasks.inference import gradcam
from tasks.inference.predictor import PLACES, Heatmaps, Predictor
from tasks.modeling.backbones import find_failed_download, find_keras_cache
from tasks.params.model_input import Form, Limits

CLASSES = 1000

T = TypeVar("T")


def load(name: str, limits: Limits, explain: bool = False) -> Predictor:
    """Load the predictor of an application such as VGG16.

    Raises `UserError` for an unknown name, and if `explain` is set for a model without heat maps.
    If files cannot be downloaded, the error lists them and where to put them.
    """
    application = _find_application(name)
    missing: list[str] = []
    classes = _fetch(class_names, missing)
    model = _fetch(lambda: application(weights="imagenet"), missing)
    if classes is None or model is None:
        raise UserError(_describe_missing(name, missing))
    prepare = sys.modules[application.__module__].preprocess_input

    def answer(pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
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
        heatmaps=_explain(name, model, prepare) if explain else None,
    )


def class_names() -> list[str]:
    """Return ImageNet's class names in the order of the outputs.

    Names that occur twice, such as crane, get their WordNet numbers.
    """
    falling = np.arange(CLASSES, 0, -1)[np.newaxis]
    named = keras.applications.imagenet_utils.decode_predictions(falling, top=CLASSES)[0]
    times = Counter(name for _, name, _ in named)
    return [name if times[name] == 1 else f"{name} ({number})" for number, name, _ in named]


def _find_application(name: str) -> Callable[..., keras.Model]:
    applications = {
        known: build
        for known, build in vars(keras.applications).items()
        if inspect.isfunction(build)
    }
    if name in applications:
        return applications[name]
    lower = {known.lower(): known for known in applications}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3)]
    known = f"known are {', '.join(applications)}"
    hint = f"did you mean {' or '.join(close)}?" if close else known
    raise UserError(f"imagenet:{name}: keras.applications has no such classifier; {hint}")


def _fetch(fetch: Callable[[], T], missing: list[str]) -> T | None:
    """Return what `fetch` returns; if its download fails, add the address to `missing`."""
    try:
        return fetch()
    except Exception as error:
        address = find_failed_download(error)
        if address is None:
            raise
        missing.append(address)
        return None


def _describe_missing(name: str, missing: list[str]) -> str:
    files = "\n".join(f"    {address}" for address in missing)
    return (
        f"imagenet:{name} could not be downloaded. On a machine with a network fetch\n{files}\n"
        f"  and put it into {find_keras_cache()}"
    )


def _explain(
    name: str, model: keras.Model, prepare: Callable[[NDArray[Any]], NDArray[Any]]
) -> Heatmaps:
    if not isinstance(model.layers[-1], keras.layers.Dense):
        raise UserError(
            f"imagenet:{name} does not end in a dense layer, which Grad-CAM needs here; VGG16 and "
            "ResNet50 do"
        )
    found = gradcam.build_explainer(model)
    return lambda pixels, classes: found.heatmaps(prepare(pixels.astype(np.float32)), classes)


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
