"""The sheet shows the images as the first epoch trains on them."""

import numpy as np
import pytest
from PIL import Image

from tasks.imaging import augmentation
from tasks.imaging.samples import SIDE, draw_samples
from tasks.params.augmentation import Augmentation

pytestmark = pytest.mark.slow  # TensorFlow
CHANGES = Augmentation.model_validate({"like": "comparison", "elastic": {}})


def cut(sheet: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sixteen places of a sheet as images of `shape`."""
    height, width, channels = shape
    return (
        np.asarray(sheet).reshape(4, height, 4, width, channels).swapaxes(1, 2).reshape(16, *shape)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_images_as_the_first_epoch_changes_them(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 10, channels), dtype=np.uint8)
    drawn = augmentation.draw(CHANGES, 3, 0, 20, (12, 10))
    trained = augmentation.apply(pixels, *drawn, CHANGES.fill).numpy()
    assert np.array_equal(
        cut(draw_samples(pixels, CHANGES, seed=3), (12, 10, channels)), trained[:16]
    )


def test_without_augmentation_they_are_as_they_are_and_fewer_leave_places_black() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 10, 1), dtype=np.uint8)
    shown = cut(draw_samples(pixels, None, seed=3), (12, 10, 1))
    assert np.array_equal(shown[:3], pixels) and not shown[3:].any()


def test_large_images_become_small() -> None:
    assert draw_samples(np.zeros((16, 600, 300, 3), np.uint8), None, seed=0).size == (
        2 * SIDE,
        4 * SIDE,
    )
