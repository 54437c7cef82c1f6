"""Random changes of training images: one fused affine transform and a brightness factor per image.

What happens to an image is a function of (seed, epoch, index) alone, so a resumed training sees the same images as an
uninterrupted one. Units are those of `Augmentation` in `tasks/params.py`.
"""

import numpy as np
import tensorflow as tf

from tasks.params import Augmentation


def draw(augmentation: Augmentation, seed: int, epoch: int, count: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the changes of `count` images of `size` (height, width).

    Returns `float32` transforms (count, 8), which map output to input pixel coordinates as `apply` takes them, and
    brightness factors (count,).
    """
    uniform = np.random.default_rng([seed, epoch]).uniform(-1, 1, (8, count))
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
    return transforms, (1 + brightness * augmentation.brightness).astype(np.float32)


def apply(images: tf.Tensor, transforms: tf.Tensor, brightness: tf.Tensor, fill: str) -> tf.Tensor:
    """Change a batch of `uint8` images (batch, height, width, channels); bilinear, rounded to `uint8` again."""
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
    )
    lit = moved * brightness[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.cast(tf.round(tf.clip_by_value(lit, 0, 255)), tf.uint8)


def _translation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _matrices([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _rotation(angle: np.ndarray) -> np.ndarray:
    return _matrices([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def _shear(angle: np.ndarray) -> np.ndarray:
    return _matrices([[1, -np.sin(angle), 0], [0, np.cos(angle), 0], [0, 0, 1]])


def _scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _matrices(rows: list[list]) -> np.ndarray:
    """Stack a 3x3 layout of scalars and (count,) arrays to shape (count, 3, 3)."""
    entries = np.broadcast_arrays(*[entry for row in rows for entry in row])
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)
