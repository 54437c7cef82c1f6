"""How unlike the training images an image is: its distance from what is usual of a class, in a description of two parts.

One part is what the network's last feature map holds: mean and standard deviation over its places, channel by channel,
as a vector of length 1. The other is the picture itself: mean and standard deviation of the brightness in 4 x 4 cells,
again of length 1; a constant among them keeps how bright it is. A model of pixels has the second part alone. Usual is the mean
description of the training images of each class; the nearest one counts. Larger is stranger.

Nearest training images (Sun et al. 2022, arXiv:2204.06507) in place of means tell foreign images apart as well, but they call
every second image of a new clinic strange: validation images have near copies in training, and their distances are no
measure. Building needs Keras, describing and measuring numpy alone.
"""

from typing import Any

import numpy as np

CELLS = 4  # a side
BRIGHTNESS = 0.15  # the constant is as long as the cell means of a picture that is so bright everywhere, of 1
BATCH = 64


def answering(model: Any, begin: Any = None) -> Any:
    """Return a Keras model with the outputs of `model` and the statistics (images, 2 x channels) of its last feature map.

    It begins at the tensor `begin` of `model`, else at the pixels.
    """
    import keras  # costs seconds, and models of pixels need none

    return keras.Model(model.input if begin is None else begin, [model.output, _statistics(model)])


def reading(model: Any) -> Any:
    """Return a Keras model from pixels to the statistics of the last feature map of `model` alone."""
    import keras

    return keras.Model(model.input, _statistics(model))


def joined(model: Any) -> Any:
    """Return a Keras model from pixels to the features of `model` (images, d) and behind them these statistics, in one array."""
    import keras

    return keras.Model(
        model.input, keras.ops.concatenate([model.output, _statistics(model)], axis=1)
    )


def last_map(model: Any) -> Any:
    """Return the last layer of a Keras model that still has places: output (images, height, width, channels)."""
    return next(layer for layer in reversed(model.layers) if len(layer.output.shape) == 4)


def describe(pixels: np.ndarray, statistics: np.ndarray | None) -> np.ndarray:
    """Return float32 descriptions (images, d) of `uint8` pixels, and of the statistics of a feature map if there is one."""
    blocks = [_cells(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    parts = [np.concatenate(blocks)] if statistics is None else [statistics, np.concatenate(blocks)]
    return np.concatenate([_unit(part) for part in parts], axis=1)


def centres(descriptions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean description of each class, float32 (classes, d), from those of training images and class indices."""
    return np.stack(
        [descriptions[targets == target].mean(axis=0, dtype=float) for target in np.unique(targets)]
    ).astype(np.float32)


def distances(descriptions: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return the float32 distance of each description from the nearest of the `usual` ones."""
    every = [np.linalg.norm(descriptions - one, axis=1) for one in usual]
    return np.min(every, axis=0).astype(np.float32)


def _statistics(model: Any) -> Any:
    import keras

    places = last_map(model).output
    maps = keras.Input(places.shape[1:])
    statistics = keras.ops.concatenate(
        [keras.ops.mean(maps, axis=(1, 2)), keras.ops.std(maps, axis=(1, 2))], axis=1
    )
    return keras.Model(maps, statistics, name="statistics_of_maps")(
        places
    )  # nested, or names such as `concatenate` occur twice


def _cells(pixels: np.ndarray) -> np.ndarray:
    rows, columns = (
        np.array_split(np.arange(side), min(CELLS, side)) for side in pixels.shape[1:3]
    )
    cells = [
        pixels[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1]
        for row in rows
        for column in columns
    ]
    values = [
        np.divide(cell, 255, dtype=np.float32).reshape(len(cell), -1, cell.shape[-1])
        for cell in cells
    ]
    means = np.concatenate([value.mean(axis=1) for value in values], axis=1)
    spreads = np.concatenate([value.std(axis=1) for value in values], axis=1)
    constant = np.full((len(pixels), 1), BRIGHTNESS * np.sqrt(means.shape[1]), np.float32)
    return np.concatenate([means, spreads, constant], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
