"""Each change follows its unit, and depends only on the seed, the epoch and the image's index."""

import numpy as np
import pytest

from tasks.imaging.augmentation import apply, draw, draw_shares, mix
from tasks.params.augmentation import Augmentation, Elastic, Mixup

pytestmark = pytest.mark.slow  # TensorFlow
SIZE = (16, 24)
EVERYTHING = Augmentation(
    rotation=30,
    width_shift=0.2,
    height_shift=0.2,
    shear=10,
    zoom=0.2,
    horizontal_flip=True,
    vertical_flip=True,
    brightness=0.3,
    contrast=0.3,
    blur=0.5,
    elastic=Elastic(),
    mixup=Mixup(),
)


def pictures(count: int = 1, size: tuple[int, int] = SIZE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def change(
    images: np.ndarray,
    transforms: np.ndarray,
    tones: np.ndarray | None = None,
    fill: str = "nearest",
) -> np.ndarray:
    tones = np.ones((len(images), 3), np.float32) if tones is None else tones
    return apply(
        images, transforms, tones, np.zeros((len(images), 0, 0, 2), np.float32), fill
    ).numpy()


def matrices(
    augmentation: Augmentation, count: int = 4000, size: tuple[int, int] = SIZE
) -> np.ndarray:
    """Draw transforms of shape (count, 2, 3), from output to input coordinates (x, y)."""
    transforms, *_ = draw(augmentation, seed=0, epoch=0, count=count, size=size)
    assert np.abs(transforms[:, 6:]).max() == 0
    return transforms[:, :6].reshape(-1, 2, 3)


def moves_of_the_middle(drawn: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return drawn[:, :, :2] @ middle + drawn[:, :, 2] - middle


def test_equal_seed_and_epoch_give_equal_changes_and_more_images_change_none_before() -> None:
    for few, many in zip(
        draw(EVERYTHING, 3, 5, 20, SIZE), draw(EVERYTHING, 3, 5, 30, SIZE), strict=True
    ):
        assert np.array_equal(few, many[:20])
    assert np.array_equal(draw_shares(EVERYTHING, 3, 5, 20), draw_shares(EVERYTHING, 3, 5, 30)[:20])


def test_another_seed_or_epoch_gives_other_changes() -> None:
    for seed, epoch in ((4, 5), (3, 6), (5, 3)):
        for one, other in zip(
            draw(EVERYTHING, 3, 5, 20, SIZE), draw(EVERYTHING, seed, epoch, 20, SIZE), strict=True
        ):
            assert (one != other).any(axis=-1).all()
        assert (draw_shares(EVERYTHING, 3, 5, 20) != draw_shares(EVERYTHING, seed, epoch, 20)).any()


def test_every_image_gets_its_own_change() -> None:
    for drawn in draw(EVERYTHING, 0, 0, 200, SIZE):
        assert len(np.unique(drawn, axis=0)) == 200


def test_an_image_is_changed_alike_in_any_batch() -> None:
    images = pictures(6, channels=3)
    drawn = draw(EVERYTHING, 0, 0, 6, SIZE)
    together = apply(images, *drawn, "nearest").numpy()
    chosen = [4, 1]
    assert np.array_equal(
        apply(images[chosen], *(array[chosen] for array in drawn), "nearest"), together[chosen]
    )


def test_all_zero_changes_nothing() -> None:
    images = pictures(5, channels=3)
    transforms, tones, _ = draw(Augmentation(), 0, 0, 5, SIZE)
    for fill in ("nearest", "constant", "reflect", "wrap"):
        assert np.array_equal(change(images, transforms, tones, fill), images)


def test_rotation_is_in_degrees_to_either_side_about_the_middle() -> None:
    drawn = matrices(Augmentation(rotation=90))
    angles = np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert -90 <= angles.min() < -89 and 89 < angles.max() <= 90
    assert abs(angles.mean()) < 3
    assert np.allclose(np.linalg.det(drawn[:, :, :2]), 1, atol=1e-5)
    assert np.allclose(moves_of_the_middle(drawn), 0, atol=1e-4)


def test_a_quarter_turn_of_a_known_picture() -> None:
    images = pictures(size=(8, 8)) // 64 * 64
    transforms, *_ = draw(Augmentation(rotation=90), 0, 0, 50_000, (8, 8))
    for quarters in (1, -1):
        most = transforms[
            [np.argmax(quarters * transforms[:, 3])]
        ]  # some of 50,000 are within 0.01 degrees of 90
        assert (
            np.abs(change(images, most)[0].astype(int) - np.rot90(images[0], quarters)).max() <= 1
        )


@pytest.mark.parametrize(("name", "axis"), [("width_shift", 0), ("height_shift", 1)])
def test_a_shift_is_a_share_of_its_side(name: str, axis: int) -> None:
    drawn = matrices(Augmentation(**{name: 0.5}))
    assert np.allclose(drawn[:, :, :2], np.eye(2))
    moves = moves_of_the_middle(drawn)
    side = SIZE[1 - axis]
    assert np.abs(moves[:, 1 - axis]).max() < 1e-5
    assert (
        -side / 2 <= moves[:, axis].min() < -0.49 * side
        and 0.49 * side < moves[:, axis].max() <= side / 2
    )


def test_a_shift_by_half_the_width_of_a_known_picture() -> None:
    images = pictures()
    transforms, *_ = draw(Augmentation(width_shift=0.5), 0, 0, 50_000, SIZE)
    most = transforms[[np.argmax(transforms[:, 2])]]
    shifted = change(images, most, fill="constant").astype(int)
    assert np.abs(shifted[:, :, :12] - images[:, :, 12:]).max() <= 1
    assert shifted[:, :, 12:].max() == 0


def test_fill_is_what_lies_beyond_the_border() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    by_two = np.array([[1, 0, 2, 0, 1, 0, 0, 0]], np.float32)
    beyond = {"nearest": [3, 3], "constant": [0, 0], "reflect": [3, 2], "wrap": [0, 1]}
    assert {
        fill: change(image, by_two, fill=fill)[0, 0, 2:, 0].tolist() for fill in beyond
    } == beyond


def test_flips() -> None:
    images = pictures()
    horizontal = matrices(Augmentation(horizontal_flip=True))
    vertical = matrices(Augmentation(vertical_flip=True))
    both = matrices(Augmentation(horizontal_flip=True, vertical_flip=True))
    for drawn, axes, kinds in ((horizontal, [2], 2), (vertical, [1], 2), (both, [1, 2], 4)):
        different, counts = np.unique(drawn, axis=0, return_counts=True)
        assert len(different) == kinds
        assert counts.min() > 0.85 * len(drawn) / kinds  # each about as often
        results = [
            change(images, np.append(one.ravel(), [0, 0])[np.newaxis].astype(np.float32))
            for one in different
        ]
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
    transforms, tones, _ = draw(Augmentation(brightness=0.2), 0, 0, 4000, SIZE)
    assert 0.8 <= tones[:, 0].min() < 0.802 and 1.198 < tones[:, 0].max() <= 1.2
    assert (tones[:, 1:] == 1).all()
    images = pictures(2)
    expected = np.round(
        np.clip(images * np.array([0.8, 1.2], np.float32)[:, None, None, None], 0, 255)
    )
    assert np.array_equal(
        change(images, transforms[:2], np.array([[0.8, 1, 1], [1.2, 1, 1]], np.float32)), expected
    )


def test_contrast_is_a_factor_of_the_difference_from_the_mean() -> None:
    transforms, tones, _ = draw(Augmentation(contrast=0.2), 0, 0, 4000, SIZE)
    assert 0.8 <= tones[:, 1].min() < 0.802 and 1.198 < tones[:, 1].max() <= 1.2
    assert (tones[:, [0, 2]] == 1).all()
    images = pictures(2) // 2 + 60  # nothing is cut off
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    expected = means + np.array([0.8, 1.2])[:, None, None, None] * (images - means)
    changed = change(images, transforms[:2], np.array([[1, 0.8, 1], [1, 1.2, 1]], np.float32))
    assert np.abs(changed - expected).max() < 0.51


def test_blur_takes_fine_structure_and_leaves_coarse() -> None:
    transforms, tones, _ = draw(Augmentation(blur=0.6), 0, 0, 4000, SIZE)
    assert 0.4 <= tones[:, 2].min() < 0.402 and 0.998 < tones[:, 2].max() <= 1
    assert (tones[:, :2] == 1).all()
    noise, flat = pictures(1), np.full((1, *SIZE, 1), 77, np.uint8)
    half, none = ([[1, 1, fine]] for fine in (0.5, 0))
    spreads = [
        change(noise, transforms[:1], np.array(tones, np.float32)).std() for tones in (half, none)
    ]
    assert spreads[1] < spreads[0] < noise.std() and spreads[1] < 0.4 * noise.std()
    assert abs(change(noise, transforms[:1], np.array(none, np.float32)).mean() - noise.mean()) < 1
    assert np.array_equal(change(flat, transforms[:1], np.array(none, np.float32)), flat)


def test_the_kinds_are_drawn_independently() -> None:
    transforms, tones, displacements = draw(EVERYTHING, 0, 0, 4000, SIZE)
    moves = moves_of_the_middle(transforms[:, :6].reshape(-1, 2, 3))
    turn = np.arctan2(transforms[:, 3], np.abs(transforms[:, 0]))
    bends = displacements[:, 1, 1]
    shares = draw_shares(EVERYTHING, 0, 0, 4000)
    together = np.corrcoef(
        np.stack([moves[:, 0], moves[:, 1], turn, *tones.T, bends[:, 0], bends[:, 1], shares])
    )
    assert np.abs(together - np.eye(9)).max() < 0.08


def bend(images: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    still = Augmentation()
    transforms, tones, _ = draw(still, 0, 0, len(images), images.shape[1:3])
    return apply(images, transforms, tones, displacements.astype(np.float32), still.fill).numpy()


def test_equal_displacements_everywhere_are_a_shift() -> None:
    images = pictures(2, channels=3)
    bent = bend(images, np.tile(np.array([2, -3]), (2, 3, 3, 1)))
    rows = np.clip(np.arange(SIZE[0]) + 2, 0, SIZE[0] - 1)
    columns = np.clip(np.arange(SIZE[1]) - 3, 0, SIZE[1] - 1)
    assert np.array_equal(bent, images[:, rows][:, :, columns])


def test_a_displacement_between_two_pixels_is_their_mean() -> None:
    images = pictures()
    expected = (images[:, :, :-1].astype(int) + images[:, :, 1:]) / 2
    assert (
        np.abs(bend(images, np.tile(np.array([0, 0.5]), (1, 2, 2, 1)))[:, :, :-1] - expected).max()
        <= 0.5
    )


def test_a_displacement_at_one_corner_leaves_the_opposite_one_alone() -> None:
    images = pictures()
    displacements = np.zeros((1, 4, 4, 2))
    displacements[0, 0, 0] = 4
    bent = bend(images, displacements)
    assert np.array_equal(bent[:, -4:, -6:], images[:, -4:, -6:])
    assert (bent[:, :3, :3] != images[:, :3, :3]).mean() > 0.9


def test_bending_is_a_share_of_each_side_along_both_axes() -> None:
    displacements = draw(Augmentation(elastic=Elastic(scale=0.05, grid=4)), 0, 0, 2000, SIZE)[2]
    assert displacements.shape == (2000, 4, 4, 2)
    assert displacements.std(axis=(0, 1, 2)) == pytest.approx(0.05 * np.array(SIZE), rel=0.02)
    assert abs(np.corrcoef(displacements.reshape(-1, 2).T)[0, 1]) < 0.02


def test_shares_follow_alpha() -> None:
    small, even = (
        draw_shares(Augmentation(mixup=Mixup(alpha=alpha)), 0, 0, 4000) for alpha in (0.2, 1.0)
    )
    assert small.min() >= 0 and small.max() <= 1
    assert [small.mean(), even.mean()] == pytest.approx([0.5, 0.5], abs=0.02)
    variances = [1 / (4 * (2 * alpha + 1)) for alpha in (0.2, 1.0)]  # of Beta(alpha, alpha)
    assert [small.var(), even.var()] == pytest.approx(variances, rel=0.05)
    assert np.array_equal(draw_shares(Augmentation(), 0, 0, 5), np.ones(5))


def test_each_image_is_blended_with_the_one_before_it() -> None:
    images = pictures(3, channels=3)
    targets, weights, shares = (
        np.array([0, 1, 1], np.int32),
        np.array([1, 2, 2], np.float32),
        np.array([1, 0.25, 0], np.float32),
    )
    pixels, classes, sums = (array.numpy() for array in mix(images, targets, weights, shares, 3))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels[0], images[0])
    assert np.array_equal(pixels[2], images[1])
    assert np.abs(pixels[1] - (0.25 * images[1] + 0.75 * images[0])).max() <= 0.5
    # The second image: weight 0.25 * 2 for its own class, 0.75 * 1 for the class of the first.
    assert sums.tolist() == [1, 1.25, 2]
    assert np.allclose(classes, [[1, 0, 0], [0.75 / 1.25, 0.5 / 1.25, 0], [0, 1, 0]])


def test_the_loss_of_a_blend_is_the_blend_of_the_losses() -> None:
    rng = np.random.default_rng(0)
    targets, weights = (
        rng.integers(0, 4, 8).astype(np.int32),
        rng.uniform(0.5, 2, 8).astype(np.float32),
    )
    shares = draw_shares(Augmentation(mixup=Mixup(alpha=1)), 0, 0, 8)
    surprise = -np.log(rng.dirichlet(np.ones(4), 8))  # any predictions for the blended images
    _, classes, sums = (array.numpy() for array in mix(pictures(8), targets, weights, shares, 4))
    own, before = (wanted_weights * surprise[np.arange(8), wanted] for wanted, wanted_weights in (
        (targets, weights), (np.roll(targets, 1), np.roll(weights, 1))
    ))  # fmt: skip
    assert np.allclose(
        sums * (classes * surprise).sum(axis=1), shares * own + (1 - shares) * before, atol=1e-5
    )
