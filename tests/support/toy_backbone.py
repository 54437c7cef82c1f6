"""A backbone of ten layers that replaces MobileNet's 86 in tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest

FILTERS = {"conv_1": 8, "conv_2": 8, "conv_3": 16, "conv_4": 16}


def build(
    include_top: bool,
    weights: None,
    alpha: float,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple = (),
) -> keras.Model:
    """Build the backbone as a function of `keras.applications` does."""
    assert not include_top and weights is None
    inputs = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = inputs
    for number, (name, filters) in enumerate(FILTERS.items()):
        convolution = keras.layers.Conv2D(
            int(filters * alpha * 2), 3, 1 + number % 2, "same", use_bias=False, name=name
        )
        x = keras.layers.ReLU(name=f"{name}_relu")(convolution(x))
        if number % 2:
            x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.Model(keras.utils.get_source_inputs(x), x)


build.__module__ = keras.applications.MobileNet.__module__  # for its preprocessing


@contextmanager
def in_place_of_mobilenet() -> Iterator[None]:
    """Let `MobileNet` be this backbone."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(keras.applications, "MobileNet", build)
        yield


def write_weights(file: Path, size: tuple[int, int]) -> Path:
    """Write random weights for `alpha: 0.5`.

    Batch normalisation sees noise first. Otherwise activations die out from layer to layer.
    """
    keras.utils.set_random_seed(1)
    model = build(False, None, alpha=0.5, input_shape=(*size, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(1).uniform(-1, 1, (64, *size, 3)), training=True)
    model.save_weights(file)
    return file
