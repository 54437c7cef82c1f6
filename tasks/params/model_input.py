"""The model input: how an image becomes the pixels that a model takes.

Plain data for params, training and serving. `decode.render` makes the pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

View = Literal["mirrored", "flipped"]  # left to right; upside down


@dataclass(frozen=True)
class Limits:
    """The largest file and image that are read. By default nothing is too large."""

    max_bytes: float = math.inf
    max_pixels: float = math.inf


DEFAULT_LIMITS = Limits(max_bytes=100_000_000, max_pixels=100_000_000)  # the defaults of `validate`


@dataclass(frozen=True)
class Form:
    """The model input: how an image becomes the pixels that a model takes."""

    image_size: tuple[int, int]  # height, width
    channels: int  # 1 grey, 3 colour
    # Rows and columns at the border up to this grey value are cropped.
    dark_border: int | None = None
    # The image is reduced to this side in pixels before it is resized: finer structure is lost.
    detail: int | None = None
    # Significant bits of the training images, for files that do not give theirs; None: all 16.
    bits: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return (*self.image_size, self.channels)


def shape_of(forms: Sequence[Form]) -> tuple[int, ...]:
    """Return the shape of one image in the array that a model takes.

    If the members of an ensemble take different inputs, they are flattened and joined.
    """
    return forms[0].shape if len(forms) == 1 else (sum(math.prod(form.shape) for form in forms),)
