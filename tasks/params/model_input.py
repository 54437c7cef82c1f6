"""What a model takes of a picture: plain data, for params, training and serving alike. `decode.render` makes the pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

View = Literal["mirrored", "flipped"]  # of an image that is asked about: left to right, upside down


@dataclass(frozen=True)
class Limits:
    """What a file may cost before it is refused unread; without arguments, no limit of ours."""

    max_bytes: float = math.inf
    max_pixels: float = math.inf


DEFAULT_LIMITS = Limits(
    max_bytes=100_000_000, max_pixels=100_000_000
)  # as `validate` has by default


@dataclass(frozen=True)
class Form:
    """The pixels that a model takes of a picture."""

    image_size: tuple[int, int]  # height, width
    channels: int  # 1 grey, 3 colours
    dark_border: int | None = None  # a grey value: what is darker around the picture is cut off
    detail: int | None = (
        None  # pixels a side that the picture is reduced to before it is stretched: finer structure is lost
    )
    bits: int | None = (
        None  # of grey values whose file does not say: the training images' own; None takes all values as 16 bits
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return (*self.image_size, self.channels)


def shape_of(forms: Sequence[Form]) -> tuple[int, ...]:
    """Return the shape of one image: that of the only form; where a model takes several, they lie flat, one after the other."""
    return forms[0].shape if len(forms) == 1 else (sum(math.prod(form.shape) for form in forms),)
