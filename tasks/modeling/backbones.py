"""Pretrained image models of keras.applications, in one plain Keras model with a head; frozen, and cut where training begins.

The layers before the one named `pooling` are the backbone's, in the same order in every model built of one structure.
"""

import difflib
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras
import numpy as np

from tasks.errors import UserError
from tasks.modeling.layers import answer
from tasks.params.architectures import Backbone, Head, Transfer

POOLING = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build_transfer(
    structure: Transfer,
    image_size: tuple[int, int],
    channels: int,
    classes: int,
    binary: bool = False,
) -> keras.Model:
    """Return a model from raw `uint8` pixels (batch, height, width, channels) to probabilities, with random weights."""
    inputs, x = _features(structure, structure.head.pooling, image_size, channels)
    return keras.Model(inputs, answer(_head(structure.head, x), classes, binary))


def build_features(
    structure: Backbone, pooling: str, image_size: tuple[int, int], channels: int
) -> keras.Model:
    """Return a model from raw `uint8` pixels to pooled features (batch, depth), with random weights."""
    return keras.Model(*_features(structure, pooling, image_size, channels))


def load_weights(model: keras.Model, structure: Backbone, image_size: tuple[int, int]) -> None:
    """Give the backbone in `model` its pretrained weights; `weights: null` leaves it at random.

    Raises `UserError` for a file of other weights or a damaged one, and where Keras cannot download its own.
    """
    if structure.weights is None:
        return
    pretrained = (
        _imagenet(structure, image_size)
        if structure.weights == "imagenet"
        else _from_file(structure, image_size)
    )
    weighted = [layer for layer in backbone_layers(model) if layer.weights]
    for layer, source in zip(
        weighted, [layer for layer in pretrained.layers if layer.weights], strict=True
    ):
        layer.set_weights(source.get_weights())


def backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """Return the layers before the pooling; those that prepare the pixels come first and have no weights."""
    return model.layers[: [layer.name for layer in model.layers].index("pooling")]


def position(model: keras.Model, trainable_from: str | None) -> int:
    """Return which of the model's layers is the first to be trained. Raises `UserError` for an unknown name."""
    names = [layer.name for layer in backbone_layers(model)]
    if trainable_from is None:
        return len(names) + 1  # the pooling has nothing to train
    if trainable_from not in names:
        close = difflib.get_close_matches(trainable_from, names, n=3)
        known = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"its last layers are {', '.join(names[-6:])}"
        )
        raise UserError(f"trainable_from: the backbone has no layer {trainable_from!r}; {known}")
    return names.index(trainable_from)


def freeze(model: keras.Model, first: int) -> None:
    """Train the layers from `first` on, but keep the backbone's batch normalisation as it was pretrained."""
    for number, layer in enumerate(model.layers):
        pretrained = number < len(backbone_layers(model)) and isinstance(
            layer, keras.layers.BatchNormalization
        )
        layer.trainable = number >= first and not pretrained


def cut(model: keras.Model, first: int) -> tuple[keras.Model, keras.Model]:
    """Split into (below, above), which share the model's layers, where a single tensor leads to all layers from `first` on.

    Between the cut and `first` may lie frozen layers, as within a residual block. Dropout of the head lies above.
    """
    operations = model.operations
    begins = min(operations.index(layer) for layer in model.layers[first:])
    made_by = {
        id(output): number
        for number, operation in enumerate(operations)
        for output in _tensors(operation.output)
    }
    last_use = list(range(len(operations)))
    for number, operation in enumerate(operations):
        for tensor in _tensors(operation.input):
            last_use[made_by[id(tensor)]] = max(last_use[made_by[id(tensor)]], number)
    reach, border = 0, 0
    for number in range(begins):
        if reach <= number:  # whatever was made before is used up here
            border = number
        reach = max(reach, last_use[number])
    tensor = operations[border].output
    return keras.Model(model.input, tensor), keras.Model(tensor, model.output)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Build models of this precision while open: `bfloat16` computes in half precision and keeps its weights in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _features(
    structure: Backbone, pooling: str, image_size: tuple[int, int], channels: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input((*image_size, channels), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1.0)(inputs)
    if channels == 1:
        x = keras.layers.Concatenate()([x, x, x])
    prepared = sys.modules[_application(structure.backbone).__module__].preprocess_input(
        x
    )  # what it was pretrained with
    backbone = _build(structure, weights=None, input_tensor=prepared)
    return inputs, POOLING[pooling](name="pooling")(backbone.output)


def _head(head: Head, x: keras.KerasTensor) -> keras.KerasTensor:
    if head.dropout:
        x = keras.layers.Dropout(head.dropout)(x)
    for dense in head.dense:
        x = keras.layers.Dense(dense.units, activation=dense.activation)(x)
        if dense.batch_norm:
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
        if dense.dropout:
            x = keras.layers.Dropout(dense.dropout)(x)
    return x


def _build(structure: Backbone, **arguments: object) -> keras.Model:
    try:
        return _application(structure.backbone)(include_top=False, **structure.options, **arguments)
    except TypeError as error:
        raise UserError(
            f"options: {structure.backbone} does not take {structure.options}: {error}"
        ) from error


def _application(backbone: str) -> Callable[..., keras.Model]:
    return getattr(keras.applications, backbone)


def _imagenet(structure: Backbone, image_size: tuple[int, int]) -> keras.Model:
    """Build with the weights that Keras downloads and checks."""
    try:
        return _build(structure, weights="imagenet", input_shape=(*image_size, 3))
    except ValueError as error:
        raise UserError(
            f"weights: imagenet of {structure.backbone} {structure.options or ''} cannot be had: {error}"
        ) from error
    except Exception as error:  # Keras raises just that when the network fails
        address = re.search(r"URL fetch failure on (\S+):", str(error))
        if address is None:
            raise
        name, cache = (
            address[1].rpartition("/")[2],
            Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models",
        )
        raise UserError(
            f"weights: the ImageNet weights of {structure.backbone} could not be downloaded ({error})\n"
            f"  Fetch {address[1]} on a machine with a network and put it into {cache},\n"
            f"  or anywhere and say weights: /path/to/{name}; weights: null would start at random."
        ) from error


def _from_file(structure: Backbone, image_size: tuple[int, int]) -> keras.Model:
    """Build with the weights of a file, which must be of this backbone without its top."""
    file, name = (
        Path(structure.weights).expanduser(),
        f"{structure.backbone} {structure.options or ''}".strip(),
    )
    if not file.is_file():
        raise UserError(
            f"weights: {file} is no file; expected imagenet, or a file of the weights of {name} without its top"
        )
    model = _build(structure, weights=None, input_shape=(*image_size, 3))
    try:
        arrays = _arrays(file)
        surplus = Counter(array.shape for array in arrays) - Counter(
            weight.shape for weight in model.weights
        )
        if surplus or len(arrays) != len(model.weights):
            shapes = f", among them of shape {next(iter(surplus))}" if surplus else ""
            raise UserError(
                f"it holds {len(arrays)} arrays{shapes}; expected {len(model.weights)} of other shapes"
            )
        model.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"weights: {file} does not fit {name} without its top at {list(image_size)} pixels: {error}"
        ) from error
    if Counter(map(_digest, arrays)) != Counter(
        map(_digest, model.get_weights())
    ):  # Keras leaves a layer random with a warning
        raise UserError(
            f"weights: {file} did not give every layer of {name} its weights: expected those of this architecture"
        )
    return model


def _arrays(file: Path) -> list[np.ndarray]:
    arrays: list[np.ndarray] = []
    with h5py.File(file) as content:
        content.visititems(
            lambda name, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return arrays


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.float32)).hexdigest()


def _tensors(nest: object) -> list[keras.KerasTensor]:
    return list(nest) if isinstance(nest, list | tuple) else [nest]
