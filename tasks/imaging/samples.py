"""A sheet of training images as the first epoch augments them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.imaging import augmentation
from tasks.params.augmentation import Augmentation

ROWS = 4
COUNT = ROWS * ROWS
SIDE = 160  # the largest side of one image on the sheet, in pixels
QUALITY = 85  # of the JPEG


def draw_samples(pixels: NDArray[np.uint8], changes: Augmentation | None, seed: int) -> Image.Image:
    """Draw the first sixteen of `uint8` images (images, height, width, channels), four in a row.

    Blending is left out, because it needs the whole batch.
    """
    images = np.asarray(pixels[:COUNT])
    if changes is not None:
        drawn = augmentation.draw(changes, seed, 0, len(images), images.shape[1:3])
        images = augmentation.apply(images, *drawn, changes.fill).numpy()
    height, width, channels = images.shape[1:]
    places = np.zeros((COUNT, height, width, channels), np.uint8)
    places[: len(images)] = images
    sheet = (
        places.reshape(ROWS, ROWS, height, width, channels)
        .swapaxes(1, 2)
        .reshape(ROWS * height, ROWS * width, channels)
    )
    picture = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    picture.thumbnail((ROWS * SIDE, ROWS * SIDE))
    return picture
