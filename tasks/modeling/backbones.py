"""Pretrained backbones of keras.applications: build them with a head, load weights, freeze and cut.

The layers before the layer `pooling` belong to the backbone. They have the same order in every
model that is built from one structure.
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
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from tasks.errors import UserError
from tasks.modeling.layers import add_dropout, add_outputs
from tasks.params.architectures import Backbone, Head, Transfer

POOLING = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

Shape = tuple[int, int, int]  # height, width, channels


def build_transfer(
    structure: Transfer, shape: Shape, classes: int, binary: bool = False
) -> keras.Model:
    """Build a model with random weights from raw `uint8` pixels (batch, *shape) to classes."""
    inputs, x = _features(structure, structure.head.pooling, shape)
    return keras.Model(inputs, add_outputs(_head(structure.head, x), classes, binary))


def build_features(structure: Backbone, pooling: str, shape: Shape) -> keras.Model:
    """Build a model with random weights from raw `uint8` pixels to pooled features (batch, d)."""
    return keras.Model(*_features(structure, pooling, shape))


def load_weights(model: keras.Model, structure: Backbone, image_size: tuple[int, int]) -> None:
    """Load the pretrained weights into the backbone of `model`; `weights: null` leaves it random.

    Raises `UserError` for a file that is damaged or belongs to another backbone, and if Keras
    cannot download its weights.
    """
    if structure.weights is None:
        return
    pretrained = (
        _build_from_imagenet(structure, image_size)
        if structure.weights == "imagenet"
        else _build_from_file(structure, Path(structure.weights).expanduser(), image_size)
    )
    targets = [layer for layer in list_backbone_layers(model) if layer.weights]
    sources = [layer for layer in pretrained.layers if layer.weights]
    for target, source in zip(targets, sources, strict=True):
        target.set_weights(source.get_weights())


def list_backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """Return the layers before the pooling. The first layers only prepare pixels."""
    return model.layers[: [layer.name for layer in model.layers].index("pooling")]


def find_layer(model: keras.Model, trainable_from: str | None) -> int:
    """Return the index of the first layer to train. Raises `UserError` for an unknown name."""
    names = [layer.name for layer in list_backbone_layers(model)]
    if trainable_from is None:
        return len(names) + 1  # the layer after the pooling, which has no weights
    if trainable_from not in names:
        close = difflib.get_close_matches(trainable_from, names, n=3)
        last = f"its last layers are {', '.join(names[-6:])}"
        hint = f"did you mean {' or '.join(close)}?" if close else last
        raise UserError(f"trainable_from: the backbone has no layer {trainable_from!r}; {hint}")
    return names.index(trainable_from)


def freeze(model: keras.Model, first: int) -> None:
    """Train only the layers from `first` on, without the batch normalisation of the backbone."""
    count = len(list_backbone_layers(model))
    for number, layer in enumerate(model.layers):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= first and not (normalizes and number < count)


def cut(model: keras.Model, first: int) -> tuple[keras.Model, keras.Model]:
    """Split a model into (below, above), which share its layers, below the layer `first`.

    The cut is at the last single tensor that all layers from `first` on depend on. Frozen layers
    can lie between the cut and `first`, for example within a residual block. The dropout of the
    head is above.
    """
    operations = model.operations
    begins = min(operations.index(layer) for layer in model.layers[first:])
    last_use = _find_last_uses(operations)
    reach, border = 0, 0
    for number in range(begins):
        if reach <= number:  # no operation beyond this one uses an earlier tensor
            border = number
        reach = max(reach, last_use[number])
    tensor = operations[border].output
    return keras.Model(model.input, tensor), keras.Model(tensor, model.output)


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Build models of this precision: `bfloat16` computes in half precision, weights in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _find_last_uses(operations: list[Any]) -> list[int]:
    """Return for each operation the number of the last one that uses its output."""
    made_by = {
        id(output): number
        for number, operation in enumerate(operations)
        for output in _tensors(operation.output)
    }
    last_use = list(range(len(operations)))
    for number, operation in enumerate(operations):
        for tensor in _tensors(operation.input):
            last_use[made_by[id(tensor)]] = max(last_use[made_by[id(tensor)]], number)
    return last_use


def _features(
    structure: Backbone, pooling: str, shape: Shape
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input(shape, dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1.0)(inputs)
    if shape[2] == 1:
        x = keras.layers.Concatenate()([x, x, x])
    # Pixels are prepared as they were when the backbone was pretrained.
    module = sys.modules[_application(structure.backbone).__module__]
    backbone = _build(structure, weights=None, input_tensor=module.preprocess_input(x))
    return inputs, POOLING[pooling](name="pooling")(backbone.output)


def _head(head: Head, x: keras.KerasTensor) -> keras.KerasTensor:
    x = add_dropout(x, head.dropout)
    for dense in head.dense:
        x = keras.layers.Dense(dense.units, activation=dense.activation)(x)
        if dense.batch_norm:
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = add_dropout(x, dense.dropout)
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


def _build_from_imagenet(structure: Backbone, image_size: tuple[int, int]) -> keras.Model:
    """Build with the weights that Keras downloads and checks."""
    try:
        return _build(structure, weights="imagenet", input_shape=(*image_size, 3))
    except ValueError as error:
        raise UserError(
            f"weights: there are no imagenet weights for {structure.backbone} "
            f"{structure.options or ''}: {error}"
        ) from error
    except Exception as error:
        address = find_failed_download(error)
        if address is None:
            raise
        name = address.rpartition("/")[2]
        raise UserError(
            f"weights: the ImageNet weights of {structure.backbone} could not be downloaded "
            f"({error})\n"
            f"  Fetch {address} on a machine with a network and put it into {find_keras_cache()},\n"
            f"  or elsewhere, and set weights: /path/to/{name}; weights: null starts at random."
        ) from error


def find_failed_download(error: Exception) -> str | None:
    """Return the address that Keras could not download; None for any other error.

    Keras raises a plain `Exception` if the network fails.
    """
    address = re.search(r"URL fetch failure on (\S+):", str(error))
    return address[1] if address else None


def find_keras_cache() -> Path:
    """Return the folder where Keras keeps what it downloaded."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _build_from_file(structure: Backbone, file: Path, image_size: tuple[int, int]) -> keras.Model:
    """Build with the weights of a file, which must be of this backbone without its top."""
    name = f"{structure.backbone} {structure.options or ''}".strip()
    if not file.is_file():
        raise UserError(
            f"weights: {file} is not a file; expected imagenet, or a file with the weights of "
            f"{name} without its top"
        )
    model = _build(structure, weights=None, input_shape=(*image_size, 3))
    try:
        arrays = _read_arrays(file)
        _check_shapes(arrays, model)
        model.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"weights: {file} does not fit {name} without its top at {list(image_size)} pixels: "
            f"{error}"
        ) from error
    # Keras only warns if it leaves a layer random.
    if Counter(map(_digest, arrays)) != Counter(map(_digest, model.get_weights())):
        raise UserError(
            f"weights: {file} does not contain the weights of every layer of {name}: expected "
            "the weights of this architecture"
        )
    return model


def _check_shapes(arrays: list[NDArray[Any]], model: keras.Model) -> None:
    """Raise `UserError` unless the arrays have the shapes of the model's weights."""
    expected = Counter(weight.shape for weight in model.weights)
    surplus = Counter(array.shape for array in arrays) - expected
    if surplus or len(arrays) != len(model.weights):
        shapes = f", among them of shape {next(iter(surplus))}" if surplus else ""
        raise UserError(
            f"it contains {len(arrays)} arrays{shapes}; expected {len(model.weights)} of other "
            "shapes"
        )


def _read_arrays(file: Path) -> list[NDArray[Any]]:
    arrays: list[NDArray[Any]] = []
    with h5py.File(file) as content:
        content.visititems(
            lambda name, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return arrays


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.float32).data).hexdigest()


def _tensors(nest: object) -> list[keras.KerasTensor]:
    return list(nest) if isinstance(nest, list | tuple) else [nest]
