"""Probabilities are averaged over the views; the second result is that of the unchanged image."""

import numpy as np

from tasks.modeling.test_time_augmentation import average, mirror

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def corner(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How bright the upper left pixel is, and how bright the image is at the left."""
    bright = pixels[:, 0, 0, 0].astype(np.float32) / 255
    return np.stack([bright, 1 - bright], axis=1), pixels[:, :, 0].mean(axis=(1, 2))


def test_views_turn_the_image_and_keep_the_rest() -> None:
    assert np.array_equal(mirror(PIXELS, "mirrored")[:, 1, 0], PIXELS[:, 1, 5])
    assert np.array_equal(mirror(PIXELS, "flipped")[:, 0, 2], PIXELS[:, 3, 2])


def test_the_mean_over_image_and_views() -> None:
    corners = [PIXELS[:, row, column, 0] / 255 for row, column in ((0, 0), (0, 5), (3, 0))]
    probabilities, more = average(corner, PIXELS, ["mirrored", "flipped"])
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities[:, 0] - np.mean(corners, axis=0)).max() < 1e-6
    assert np.array_equal(more, corner(PIXELS)[1])


def test_without_views_nothing_changes() -> None:
    assert np.array_equal(average(corner, PIXELS, [])[0], corner(PIXELS)[0])
