"""The picture shows what the first epoch trains on."""

import numpy as np
import pytest

from tasks.imaging import augmentation
from tasks.imaging.changes import Augmentation
from tasks.imaging.samples import draw_samples

CHANGES = Augmentation.model_validate({"like": "comparison", "elastic": {}})


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_images_as_the_first_epoch_changes_them(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 10, channels), dtype=np.uint8)
    shown = [axes.images[0].get_array() for axes in draw_samples(pixels, CHANGES, seed=3).axes]
    drawn = augmentation.draw(CHANGES, 3, 0, 20, (12, 10))
    trained = augmentation.apply(pixels, *drawn, CHANGES.fill).numpy()
    assert np.array_equal(np.stack(shown).reshape(16, 12, 10, channels), trained[:16])


def test_fewer_images_leave_places_empty() -> None:
    figure = draw_samples(np.zeros((3, 8, 8, 1), np.uint8), CHANGES, seed=0)
    assert [len(axes.images) for axes in figure.axes] == [1] * 3 + [0] * 13
    assert not any(axes.axison for axes in figure.axes)
