"""Other views of the images that are asked about: an answer is the mean over the image as it is and its views.

A view is a function of the pixels alone, so that training and serving show a model the same ones.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from tasks.params.model_input import View

Answered = TypeVar("Answered")


def averaged(
    answer: Callable[[np.ndarray], tuple[np.ndarray, Answered]],
    pixels: np.ndarray,
    views: Sequence[View],
) -> tuple[np.ndarray, Answered]:
    """Return the mean probabilities (images, classes) of `answer` over the pixels and their views.

    Whatever else `answer` returns stays that of the pixels as they are.
    """
    probabilities, more = answer(pixels)
    every = [probabilities, *(answer(show(pixels, view))[0] for view in views)]
    return np.mean(every, axis=0, dtype=np.float64).astype(np.float32), more


def show(pixels: np.ndarray, view: View) -> np.ndarray:
    """Return a view of `uint8` pixels (images, height, width, channels); nothing is copied."""
    return pixels[:, :, ::-1] if view == "mirrored" else pixels[:, ::-1]
