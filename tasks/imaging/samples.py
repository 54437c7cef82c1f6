"""What a model gets to see in training: one picture of the first images, changed as the first epoch changes them."""

import numpy as np
from PIL import Image

from tasks.imaging import augmentation
from tasks.params.augmentation import Augmentation

ROWS = 4
COUNT = ROWS * ROWS
SIDE = 160  # pixels of one image in the picture, at most
QUALITY = 85


def draw_samples(pixels: np.ndarray, changes: Augmentation | None, seed: int) -> Image.Image:
    """Return the first sixteen of `uint8` images (images, height, width, channels) side by side, four in a row.

    Blending is left out: it needs the batch.
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
