"""Turn decoded images into the pixels that a model takes, in training and in serving alike."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.imaging.picture import Decoded
from tasks.params.model_input import Form

SPECKS = 0.02  # the share of bright pixels, such as noise, that a dark row or column may have


def render(decoded: Decoded, *forms: Form) -> NDArray[np.uint8]:
    """Return an image as a model takes it: `uint8` of the shape `shape_of(forms)`."""
    pixels = [
        to_pixels(_reduce_detail(show(decoded, form), form), form.channels, form.image_size)
        for form in forms
    ]
    return pixels[0] if len(pixels) == 1 else np.concatenate([array.ravel() for array in pixels])


def show(decoded: Decoded, form: Form) -> Image.Image:
    """Return the part of an image that a model sees, at full size and in the model's bit depth."""
    return cut_dark_border(decoded.scale_for(form), form.dark_border)


def cut_dark_border(picture: Image.Image, darkest: int | None) -> Image.Image:
    """Crop the dark rows and columns around an image.

    A row is dark if hardly a pixel of it has a grey value above `darkest`. An image that is dark
    everywhere stays whole, and so does any image if `darkest` is None.
    """
    if darkest is None:
        return picture
    bright = np.asarray(picture.convert("L")) > darkest
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > SPECKS) for axis in (1, 0))
    if not (len(rows) and len(columns)):
        return picture
    return picture.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def to_pixels(
    picture: Image.Image, channels: int, size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Return `uint8` pixels (height, width, channels), stretched to `size` (height, width)."""
    picture = picture.convert({1: "L", 3: "RGB"}[channels])
    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if channels == 1 else pixels


def _reduce_detail(picture: Image.Image, form: Form) -> Image.Image:
    if form.detail is None:
        return picture
    height, width = (min(form.detail, side) for side in form.image_size)
    picture = picture.convert({1: "L", 3: "RGB"}[form.channels])
    return picture.resize((width, height), Image.Resampling.BILINEAR)
