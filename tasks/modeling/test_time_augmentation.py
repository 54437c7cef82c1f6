"""Test-time augmentation: average the probabilities over an image and mirrored copies of it.

The copies depend on the pixels only, so training and serving show a model the same copies.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.params.model_input import View

More = TypeVar("More")


def average(
    predict: Callable[[NDArray[np.uint8]], tuple[NDArray[Any], More]],
    pixels: NDArray[np.uint8],
    views: Sequence[View],
) -> tuple[NDArray[np.float32], More]:
    """Return the mean probabilities (images, classes) over the pixels and their `views`.

    Also returns the second result of `predict` for the unchanged pixels.
    """
    probabilities, more = predict(pixels)
    every = [probabilities, *(predict(mirror(pixels, view))[0] for view in views)]
    mean = np.stack(every).mean(axis=0, dtype=np.float64)
    return np.asarray(mean, np.float32), more


def mirror(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Return a view of pixels (images, height, width, channels), without a copy in memory."""
    return pixels[:, :, ::-1] if view == "mirrored" else pixels[:, ::-1]
