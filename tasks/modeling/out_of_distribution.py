"""Measure how far an image is from the training images: its out-of-distribution score.

Each image has a description of two parts, each scaled to length 1:

- the last feature map of the network: mean and standard deviation of every channel over all places;
- the image itself: mean and standard deviation of the brightness in 4 x 4 cells, and a constant.
  Without the constant, scaling would remove how bright the image is.

A model that takes pixels directly has the second part only. The score is the distance to the
nearest class centroid, the mean description of the training images of a class. A larger distance
means a less familiar image.

Distances to the nearest training images (Sun et al. 2022, arXiv:2204.06507) detect foreign images
equally well. But their thresholds are wrong: validation images have near duplicates in training,
so every second image of a new clinic would count as foreign.

Building the models needs Keras; descriptions and distances need numpy only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS = 4  # per side
# The constant is as long as the vector of cell means of an image of this even brightness, of 1.
BRIGHTNESS = 0.15
BATCH = 64


def add_statistics(model: Any, begin: Any = None) -> Any:
    """Return a Keras model with two outputs: those of `model`, and statistics of its last map.

    The statistics have shape (images, 2 x channels). The new model begins at the tensor `begin` of
    `model`, by default at the pixels.
    """
    import keras  # takes seconds, and a model of pixels does not need it

    return keras.Model(model.input if begin is None else begin, [model.output, _statistics(model)])


def build_statistics_model(model: Any) -> Any:
    """Return a Keras model from pixels to the statistics of the last feature map of `model`."""
    import keras

    return keras.Model(model.input, _statistics(model))


def append_statistics(model: Any) -> Any:
    """Return a Keras model from pixels to one array: the features of `model`, then statistics."""
    import keras

    return keras.Model(
        model.input, keras.ops.concatenate([model.output, _statistics(model)], axis=1)
    )


def find_last_map(model: Any) -> Any:
    """Return the last layer of a Keras model whose output is (images, height, width, channels)."""
    return next(layer for layer in reversed(model.layers) if len(layer.output.shape) == 4)


def describe(
    pixels: NDArray[np.uint8], statistics: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return descriptions (images, d) of pixels, and of `statistics` of feature maps if given."""
    blocks = [_cells(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    parts = [np.concatenate(blocks)] if statistics is None else [statistics, np.concatenate(blocks)]
    return np.concatenate([_unit(part) for part in parts], axis=1)


def find_centroids(
    descriptions: NDArray[np.float32], targets: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return the mean description of each class (classes, d) from those of training images."""
    return np.stack(
        [descriptions[targets == target].mean(axis=0, dtype=float) for target in np.unique(targets)]
    ).astype(np.float32)


def measure_distances(
    descriptions: NDArray[np.float32], centroids: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the distance of each description from the nearest centroid, shape (images,)."""
    every = [np.linalg.norm(descriptions - centroid, axis=1) for centroid in centroids]
    return np.min(every, axis=0).astype(np.float32)


def _statistics(model: Any) -> Any:
    import keras

    places = find_last_map(model).output
    maps = keras.Input(places.shape[1:])
    statistics = keras.ops.concatenate(
        [keras.ops.mean(maps, axis=(1, 2)), keras.ops.std(maps, axis=(1, 2))], axis=1
    )
    # A nested model: otherwise layer names such as `concatenate` could occur twice.
    return keras.Model(maps, statistics, name="statistics_of_maps")(places)


def _cells(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the description of the images themselves, before scaling."""
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


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
