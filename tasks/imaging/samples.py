"""What a network gets to see: a picture of changed training images."""

import numpy as np
from matplotlib.figure import Figure

from tasks.imaging import augmentation
from tasks.imaging.changes import Augmentation

ROWS = 4
COUNT = ROWS * ROWS


def draw_samples(pixels: np.ndarray, changes: Augmentation, seed: int) -> Figure:
    """Draw the first sixteen of `uint8` images (images, height, width, channels) as the first epoch changes them.

    Blending is left out: it needs the batch.
    """
    images = np.asarray(pixels[:COUNT])
    drawn = augmentation.draw(changes, seed, 0, len(images), images.shape[1:3])
    changed = augmentation.apply(images, *drawn, changes.fill).numpy()
    figure = Figure(figsize=(8, 8), layout="constrained")
    for axes, image in zip(figure.subplots(ROWS, ROWS).flat, changed, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    for axes in figure.axes:
        axes.axis("off")
    return figure
