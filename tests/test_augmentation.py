"""Each kind of change does what its unit says, and depends on the seed, the epoch and the image's index alone."""

import numpy as np
import pytest

from tasks.imaging.augmentation import apply, draw
from tasks.params import Augmentation

SIZE = (16, 24)
EVERYTHING = Augmentation(
    rotation=30, width_shift=0.2, height_shift=0.2, shear=10, zoom=0.2, horizontal_flip=True, vertical_flip=True, brightness=0.3
)


def pictures(count: int = 1, size: tuple[int, int] = SIZE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def change(images: np.ndarray, transforms: np.ndarray, brightness: np.ndarray | None = None, fill: str = "nearest") -> np.ndarray:
    factors = np.ones(len(images), np.float32) if brightness is None else brightness
    return apply(images, transforms, factors, fill).numpy()


def matrices(augmentation: Augmentation, count: int = 4000, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Drawn transforms of shape (count, 2, 3): output to input coordinates (x, y)."""
    transforms, _ = draw(augmentation, seed=0, epoch=0, count=count, size=size)
    assert np.abs(transforms[:, 6:]).max() == 0
    return transforms[:, :6].reshape(-1, 2, 3)


def moves_of_the_middle(drawn: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return drawn[:, :, :2] @ middle + drawn[:, :, 2] - middle


def test_equal_seed_and_epoch_give_equal_changes() -> None:
    for one, other in zip(draw(EVERYTHING, 3, 5, 20, SIZE), draw(EVERYTHING, 3, 5, 20, SIZE), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("seed", "epoch"), [(4, 5), (3, 6), (5, 3)])
def test_another_seed_or_epoch_gives_other_changes(seed: int, epoch: int) -> None:
    for one, other in zip(draw(EVERYTHING, 3, 5, 20, SIZE), draw(EVERYTHING, seed, epoch, 20, SIZE), strict=True):
        assert (one != other).any(axis=-1).all()


def test_every_image_gets_its_own_change() -> None:
    transforms, brightness = draw(EVERYTHING, 0, 0, 200, SIZE)
    assert len(np.unique(transforms, axis=0)) == len(np.unique(brightness)) == 200


def test_an_image_is_changed_alike_in_any_batch() -> None:
    images = pictures(6, channels=3)
    transforms, brightness = draw(EVERYTHING, 0, 0, 6, SIZE)
    together = change(images, transforms, brightness)
    chosen = [4, 1]
    assert np.array_equal(change(images[chosen], transforms[chosen], brightness[chosen]), together[chosen])


@pytest.mark.parametrize("fill", ["nearest", "constant", "reflect", "wrap"])
def test_all_zero_changes_nothing(fill: str) -> None:
    images = pictures(5, channels=3)
    transforms, brightness = draw(Augmentation(fill=fill), 0, 0, 5, SIZE)
    assert np.array_equal(change(images, transforms, brightness, fill), images)


def test_rotation_is_in_degrees_to_either_side_about_the_middle() -> None:
    drawn = matrices(Augmentation(rotation=90))
    angles = np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert -90 <= angles.min() < -89 and 89 < angles.max() <= 90
    assert abs(angles.mean()) < 3
    assert np.allclose(np.linalg.det(drawn[:, :, :2]), 1, atol=1e-5)
    assert np.allclose(moves_of_the_middle(drawn), 0, atol=1e-4)


@pytest.mark.parametrize("quarters", [1, -1])
def test_a_quarter_turn_of_a_known_picture(quarters: int) -> None:
    images = pictures(size=(8, 8)) // 64 * 64
    transforms, _ = draw(Augmentation(rotation=90), 0, 0, 50_000, (8, 8))
    most = transforms[[np.argmax(quarters * transforms[:, 3])]]  # of 50,000 some angle lies within 0.01 degrees of 90
    assert np.abs(change(images, most)[0].astype(int) - np.rot90(images[0], quarters)).max() <= 1


@pytest.mark.parametrize(("name", "axis"), [("width_shift", 0), ("height_shift", 1)])
def test_a_shift_is_a_share_of_its_side(name: str, axis: int) -> None:
    drawn = matrices(Augmentation(**{name: 0.5}))
    assert np.allclose(drawn[:, :, :2], np.eye(2))
    moves = moves_of_the_middle(drawn)
    side = SIZE[1 - axis]
    assert np.abs(moves[:, 1 - axis]).max() < 1e-5
    assert -side / 2 <= moves[:, axis].min() < -0.49 * side and 0.49 * side < moves[:, axis].max() <= side / 2


def test_a_shift_by_half_the_width_of_a_known_picture() -> None:
    images = pictures()
    transforms, _ = draw(Augmentation(width_shift=0.5), 0, 0, 50_000, SIZE)
    most = transforms[[np.argmax(transforms[:, 2])]]
    shifted = change(images, most, fill="constant").astype(int)
    assert np.abs(shifted[:, :, :12] - images[:, :, 12:]).max() <= 1
    assert shifted[:, :, 12:].max() == 0


@pytest.mark.parametrize(
    ("fill", "beyond"),
    [("nearest", [3, 3]), ("constant", [0, 0]), ("reflect", [3, 2]), ("wrap", [0, 1])],
)
def test_fill_is_what_lies_beyond_the_border(fill: str, beyond: list[int]) -> None:
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    by_two = np.array([[1, 0, 2, 0, 1, 0, 0, 0]], np.float32)
    assert change(image, by_two, fill=fill)[0, 0, :, 0].tolist() == [2, 3, *beyond]


def test_flips() -> None:
    images = pictures()
    horizontal = matrices(Augmentation(horizontal_flip=True))
    vertical = matrices(Augmentation(vertical_flip=True))
    both = matrices(Augmentation(horizontal_flip=True, vertical_flip=True))
    for drawn, axes, kinds in ((horizontal, [2], 2), (vertical, [1], 2), (both, [1, 2], 4)):
        different, counts = np.unique(drawn, axis=0, return_counts=True)
        assert len(different) == kinds
        assert counts.min() > 0.85 * len(drawn) / kinds  # each about as often
        results = [change(images, np.append(one.ravel(), [0, 0])[np.newaxis].astype(np.float32)) for one in different]
        flipped = np.flip(images, axes)
        assert sum(np.array_equal(result, images) for result in results) == 1
        assert sum(np.array_equal(result, flipped) for result in results) == 1


def test_zoom_is_a_factor_for_each_axis() -> None:
    drawn = matrices(Augmentation(zoom=0.25))
    factors = drawn[:, [0, 1], [0, 1]]
    assert np.all(factors.min(axis=0) >= 0.75) and np.all(factors.min(axis=0) < 0.76)
    assert np.all(factors.max(axis=0) <= 1.25) and np.all(factors.max(axis=0) > 1.24)
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.1
    assert np.allclose(moves_of_the_middle(drawn), 0, atol=1e-4)
    assert np.abs(drawn[:, [0, 1], [1, 0]]).max() < 1e-6


def test_shear_is_in_degrees() -> None:
    drawn = matrices(Augmentation(shear=45))
    angles = np.degrees(np.arctan2(-drawn[:, 0, 1], drawn[:, 1, 1]))
    assert -45 <= angles.min() < -44.5 and 44.5 < angles.max() <= 45
    assert np.allclose(drawn[:, :, 0], [1, 0])
    assert np.allclose(moves_of_the_middle(drawn), 0, atol=1e-4)


def test_brightness_is_a_factor() -> None:
    transforms, factors = draw(Augmentation(brightness=0.2), 0, 0, 4000, SIZE)
    assert 0.8 <= factors.min() < 0.802 and 1.198 < factors.max() <= 1.2
    images = pictures(2)
    expected = np.round(np.clip(images * np.array([0.8, 1.2], np.float32)[:, None, None, None], 0, 255))
    assert np.array_equal(change(images, transforms[:2], np.array([0.8, 1.2], np.float32)), expected)


def test_the_kinds_are_drawn_independently() -> None:
    transforms, brightness = draw(EVERYTHING, 0, 0, 4000, SIZE)
    moves = moves_of_the_middle(transforms[:, :6].reshape(-1, 2, 3))
    turn = np.arctan2(transforms[:, 3], np.abs(transforms[:, 0]))
    together = np.corrcoef(np.stack([moves[:, 0], moves[:, 1], turn, brightness]))
    assert np.abs(together - np.eye(4)).max() < 0.08
