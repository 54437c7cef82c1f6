"""Random changes of training images: an affine transform, brightness, bending, and mixup.

The change of an image depends only on (seed, epoch, index), so a resumed training sees the same
images as an uninterrupted one. Only the partner of a blended image depends on its batch.
`tasks/params/augmentation.py` gives the units.

Keras 3.15 cannot bend images for us: it moves both axes by one field, and if the batch size is
unknown it returns the first image in place of all.
"""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.params.augmentation import Augmentation, Elastic

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Drawn = tuple[Floats, Floats, Floats]
COARSE = 4  # the sides of the coarse image, without fine structure, are this many times smaller


def draw(
    augmentation: Augmentation, seed: int, epoch: int, count: int, size: tuple[int, int]
) -> Drawn:
    """Draw the random changes of `count` images of `size` (height, width) for `apply`.

    Returns `float32` arrays:

    - transforms (count, 8) map output to input pixel coordinates;
    - tones (count, 3) are factors of brightness and contrast, and the share of fine structure that
      remains;
    - displacements (count, grid, grid, 2) are in pixels, down and to the right. Their grid is 0
      without bending.
    """
    changes = np.random.default_rng([seed, epoch]).uniform(-1, 1, (count, 8)).T
    # Contrast and blur have a generator of their own: they were added later, and the other draws
    # had to stay the same.
    contrast, blur = np.random.default_rng([seed, epoch, 4]).uniform(-1, 1, (count, 2)).T
    tones = [
        1 + changes[7] * augmentation.brightness,
        1 + contrast * augmentation.contrast,
        1 - np.abs(blur) * augmentation.blur,
    ]
    return (
        _make_transforms(augmentation, changes[:7], size),
        np.stack(tones, axis=1).astype(np.float32),
        _draw_displacements(augmentation.elastic, (seed, epoch), count, size),
    )


def apply(
    images: tf.Tensor, transforms: tf.Tensor, tones: tf.Tensor, displacements: tf.Tensor, fill: str
) -> tf.Tensor:
    """Change a batch of `uint8` images (batch, height, width, channels), and return `uint8` again.

    Values between pixels are interpolated bilinearly.
    """
    pixels = tf.cast(images, tf.float32)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=_bend(pixels, displacements) if displacements.shape[1] else pixels,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
    )
    factors = tf.unstack(tones[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    return _to_bytes(_change_tones(moved, *factors))


def draw_shares(augmentation: Augmentation, seed: int, epoch: int, count: int) -> Floats:
    """Draw the share of each image that mixup keeps: `float32` (count,), all 1 without mixup."""
    if augmentation.mixup is None:
        return np.ones(count, np.float32)
    alpha = augmentation.mixup.alpha
    return np.random.default_rng([seed, epoch, 3]).beta(alpha, alpha, count).astype(np.float32)


def mix(
    images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, shares: tf.Tensor, classes: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Blend each image with the one before it in the batch, and keep `shares` (batch,) of it.

    Takes targets as class numbers (batch,), and returns them as shares (batch, classes). With the
    returned targets and weights, the weighted cross-entropy is the blend of the two images' own.
    Weights must be above 0.
    """
    own, other = shares * weights, (1 - shares) * tf.roll(weights, 1, axis=0)
    pixels, share = tf.cast(images, tf.float32), shares[:, tf.newaxis, tf.newaxis, tf.newaxis]
    blended = _to_bytes(share * pixels + (1 - share) * tf.roll(pixels, 1, axis=0))
    labels = tf.one_hot(targets, classes)
    sums = own[:, tf.newaxis] * labels + other[:, tf.newaxis] * tf.roll(labels, 1, axis=0)
    return blended, sums / (own + other)[:, tf.newaxis], own + other


def _make_transforms(augmentation: Augmentation, changes: Doubles, size: tuple[int, int]) -> Floats:
    """Return affine transforms (count, 8) about the image centre; `changes` are from -1 to 1."""
    rotation, shear, shift_x, shift_y, zoom_x, zoom_y, flips = changes
    horizontal = np.where((flips > 0) & augmentation.horizontal_flip, -1, 1)
    vertical = np.where((np.abs(flips) > 0.5) & augmentation.vertical_flip, -1, 1)
    height, width = size
    x, y = (width - 1) / 2, (height - 1) / 2
    matrix = (
        _translate(
            x + shift_x * augmentation.width_shift * width,
            y + shift_y * augmentation.height_shift * height,
        )
        @ _rotate(np.radians(rotation * augmentation.rotation))
        @ _shear(np.radians(shear * augmentation.shear))
        @ _scale(
            horizontal * (1 + zoom_x * augmentation.zoom),
            vertical * (1 + zoom_y * augmentation.zoom),
        )
        @ _translate(np.full(len(flips), -x), np.full(len(flips), -y))
    )
    return matrix.reshape(-1, 9)[:, :8].astype(np.float32)


def _draw_displacements(
    elastic: Elastic | None, seed: tuple[int, int], count: int, size: tuple[int, int]
) -> Floats:
    if elastic is None:
        return np.zeros((count, 0, 0, 2), np.float32)
    shape = (count, elastic.grid, elastic.grid, 2)
    vectors = np.random.default_rng([*seed, 2]).normal(0, elastic.scale, shape)
    return (vectors * size).astype(np.float32)


def _bend(pixels: tf.Tensor, displacements: tf.Tensor) -> tf.Tensor:
    """Move each pixel by its displacement; places outside take the nearest border pixel."""
    batch, height, width, channels = tf.unstack(tf.shape(pixels))
    down, right = tf.unstack(tf.image.resize(displacements, (height, width), "bicubic"), axis=-1)
    row, below = _locate(tf.range(height)[:, tf.newaxis], down, height)
    column, beside = _locate(tf.range(width), right, width)
    # One index into flat rows takes half the time of three.
    values = tf.reshape(pixels, (batch, height * width, channels))

    def blend_columns(first: tf.Tensor) -> tf.Tensor:
        left = tf.gather(values, first, batch_dims=1)
        return left + beside * (tf.gather(values, first + 1, batch_dims=1) - left)

    upper = blend_columns(row * width + column)
    return upper + below * (blend_columns(row * width + column + width) - upper)


def _locate(index: tf.Tensor, move: tf.Tensor, side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the pixel before each moved place, and the distance from it as a share of a pixel."""
    place = tf.clip_by_value(tf.cast(index, tf.float32) + move, 0.0, tf.cast(side - 1, tf.float32))
    before = tf.minimum(tf.cast(place, tf.int32), side - 2)
    return before, (place - tf.cast(before, tf.float32))[..., tf.newaxis]


def _change_tones(
    pixels: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor, fine: tf.Tensor
) -> tf.Tensor:
    """Change brightness, fine structure and contrast; skip the steps that change no image."""
    pixels *= brightness
    blurred = tf.cond(
        tf.reduce_all(fine == 1),
        lambda: pixels,
        lambda: _coarsen(pixels) + fine * (pixels - _coarsen(pixels)),
    )
    mean = tf.reduce_mean(blurred, axis=(1, 2, 3), keepdims=True)
    return tf.cond(
        tf.reduce_all(contrast == 1), lambda: blurred, lambda: mean + contrast * (blurred - mean)
    )


def _coarsen(pixels: tf.Tensor) -> tf.Tensor:
    size = tf.shape(pixels)[1:3]
    return tf.image.resize(tf.image.resize(pixels, tf.maximum(size // COARSE, 1), "area"), size)


def _to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8)


def _translate(x: Doubles, y: Doubles) -> Doubles:
    return _stack_matrices([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _rotate(angle: Doubles) -> Doubles:
    cosine, sine = np.cos(angle), np.sin(angle)
    return _stack_matrices([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _shear(angle: Doubles) -> Doubles:
    return _stack_matrices([[1, -np.sin(angle), 0], [0, np.cos(angle), 0], [0, 0, 1]])


def _scale(x: Doubles, y: Doubles) -> Doubles:
    return _stack_matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _stack_matrices(rows: list[list[int | Doubles]]) -> Doubles:
    """Stack a 3x3 layout of scalars and (count,) arrays to the shape (count, 3, 3)."""
    entries = np.broadcast_arrays(*[entry for row in rows for entry in row])
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)
