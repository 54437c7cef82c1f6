"""Random changes of training images: one fused affine transform, a brightness factor, bending, and blending of pairs.

What happens to an image is a function of (seed, epoch, index) alone, so a resumed training sees the same images as an
uninterrupted one; only whom it is blended with depends on its batch. Units are those of `tasks/params/augmentation.py`.
Bending is our own: that of Keras 3.15 moves both axes by one field, and where the batch size is unknown returns the first
image in place of all.
"""

import numpy as np
import tensorflow as tf

from tasks.params.augmentation import Augmentation, Elastic

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
COARSE = 4  # times smaller each side is where no fine structure is left


def draw(
    augmentation: Augmentation, seed: int, epoch: int, count: int, size: tuple[int, int]
) -> Drawn:
    """Draw the changes of `count` images of `size` (height, width), as `apply` takes them.

    Returns `float32` transforms (count, 8), which map output to input pixel coordinates, tones (count, 3), which are factors
    of brightness and of contrast and the share of fine structure that remains, and displacements (count, grid, grid, 2) in
    pixels, down and to the right; their grid is 0 without bending.
    """
    uniform = np.random.default_rng([seed, epoch]).uniform(-1, 1, (count, 8)).T
    rotation, shear, shift_x, shift_y, zoom_x, zoom_y, flips, brightness = uniform
    horizontal = np.where((flips > 0) & augmentation.horizontal_flip, -1, 1)
    vertical = np.where((np.abs(flips) > 0.5) & augmentation.vertical_flip, -1, 1)
    height, width = size
    matrix = (
        _translation((width - 1) / 2 + shift_x * augmentation.width_shift * width,
                     (height - 1) / 2 + shift_y * augmentation.height_shift * height)
        @ _rotation(np.radians(rotation * augmentation.rotation))
        @ _shear(np.radians(shear * augmentation.shear))
        @ _scale(horizontal * (1 + zoom_x * augmentation.zoom), vertical * (1 + zoom_y * augmentation.zoom))
        @ _translation(np.full(count, -(width - 1) / 2), np.full(count, -(height - 1) / 2))
    )  # fmt: skip
    transforms = matrix.reshape(count, 9)[:, :8].astype(np.float32)
    contrast, blur = (
        np.random.default_rng([seed, epoch, 4]).uniform(-1, 1, (count, 2)).T
    )  # apart, so that the others stay
    tones = [
        1 + brightness * augmentation.brightness,
        1 + contrast * augmentation.contrast,
        1 - np.abs(blur) * augmentation.blur,
    ]
    return (
        transforms,
        np.stack(tones, axis=1).astype(np.float32),
        _displacements(augmentation.elastic, seed, epoch, count, size),
    )


def apply(
    images: tf.Tensor, transforms: tf.Tensor, tones: tf.Tensor, displacements: tf.Tensor, fill: str
) -> tf.Tensor:
    """Change a batch of `uint8` images (batch, height, width, channels); bilinear, rounded to `uint8` again."""
    pixels = tf.cast(images, tf.float32)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=_bend(pixels, displacements) if displacements.shape[1] else pixels,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
    )
    return _as_bytes(
        _toned(moved, *tf.unstack(tones[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1))
    )


def draw_shares(augmentation: Augmentation, seed: int, epoch: int, count: int) -> np.ndarray:
    """Draw how much of each image remains when it is blended: `float32` (count,), all 1 without mixup."""
    if augmentation.mixup is None:
        return np.ones(count, np.float32)
    alpha = augmentation.mixup.alpha
    return np.random.default_rng([seed, epoch, 3]).beta(alpha, alpha, count).astype(np.float32)


def mix(
    images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, shares: tf.Tensor, classes: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Blend each image with the one before it in its batch; `shares` (batch,) of it remain.

    Takes targets as numbers (batch,); returns them as shares of classes (batch, classes). Targets and weights are such
    that the weighted cross-entropy is the blend of both images' own. Weights are above 0.
    """
    own, other = shares * weights, (1 - shares) * tf.roll(weights, 1, axis=0)
    pixels, share = tf.cast(images, tf.float32), shares[:, tf.newaxis, tf.newaxis, tf.newaxis]
    blended = _as_bytes(share * pixels + (1 - share) * tf.roll(pixels, 1, axis=0))
    shown = tf.one_hot(targets, classes)
    sums = own[:, tf.newaxis] * shown + other[:, tf.newaxis] * tf.roll(shown, 1, axis=0)
    return blended, sums / (own + other)[:, tf.newaxis], own + other


def _displacements(
    elastic: Elastic | None, seed: int, epoch: int, count: int, size: tuple[int, int]
) -> np.ndarray:
    if elastic is None:
        return np.zeros((count, 0, 0, 2), np.float32)
    vectors = np.random.default_rng([seed, epoch, 2]).normal(
        0, elastic.scale, (count, elastic.grid, elastic.grid, 2)
    )
    return (vectors * size).astype(np.float32)


def _bend(pixels: tf.Tensor, displacements: tf.Tensor) -> tf.Tensor:
    """Take every pixel from where the displacements point, the border from its nearest pixel; bilinear."""
    batch, height, width, channels = tf.unstack(tf.shape(pixels))
    down, right = tf.unstack(tf.image.resize(displacements, (height, width), "bicubic"), axis=-1)
    row, below = _place(tf.range(height)[:, tf.newaxis], down, height)
    column, beside = _place(tf.range(width), right, width)
    values = tf.reshape(
        pixels, (batch, height * width, channels)
    )  # one index instead of three halves the time
    corners = (
        tf.gather(values, row * width + column + step, batch_dims=1)
        for step in (0, 1, width, width + 1)
    )
    upper_left, upper_right, lower_left, lower_right = corners
    upper, lower = (
        upper_left + beside * (upper_right - upper_left),
        lower_left + beside * (lower_right - lower_left),
    )
    return upper + below * (lower - upper)


def _toned(
    pixels: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor, fine: tf.Tensor
) -> tf.Tensor:
    """Change brightness and contrast, and keep a share of the fine structure; nothing is computed for what no image changes."""
    pixels *= brightness
    if_any = tf.cond(
        tf.reduce_all(fine == 1),
        lambda: pixels,
        lambda: _coarse(pixels) + fine * (pixels - _coarse(pixels)),
    )
    mean = tf.reduce_mean(if_any, axis=(1, 2, 3), keepdims=True)
    return tf.cond(
        tf.reduce_all(contrast == 1), lambda: if_any, lambda: mean + contrast * (if_any - mean)
    )


def _coarse(pixels: tf.Tensor) -> tf.Tensor:
    size = tf.shape(pixels)[1:3]
    return tf.image.resize(tf.image.resize(pixels, tf.maximum(size // COARSE, 1), "area"), size)


def _place(index: tf.Tensor, move: tf.Tensor, side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the pixel before the place that is meant, and how far beyond it that lies, as a share of a pixel."""
    place = tf.clip_by_value(tf.cast(index, tf.float32) + move, 0.0, tf.cast(side - 1, tf.float32))
    before = tf.minimum(tf.cast(place, tf.int32), side - 2)
    return before, (place - tf.cast(before, tf.float32))[..., tf.newaxis]


def _as_bytes(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8)


def _translation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _matrices([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _rotation(angle: np.ndarray) -> np.ndarray:
    return _matrices(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )


def _shear(angle: np.ndarray) -> np.ndarray:
    return _matrices([[1, -np.sin(angle), 0], [0, np.cos(angle), 0], [0, 0, 1]])


def _scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _matrices(rows: list[list]) -> np.ndarray:
    """Stack a 3x3 layout of scalars and (count,) arrays to shape (count, 3, 3)."""
    entries = np.broadcast_arrays(*[entry for row in rows for entry in row])
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)
