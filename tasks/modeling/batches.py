"""Batches of images for TensorFlow.

Order and augmentation depend only on the seed, the epoch and the index of an image. So a resumed
training sees the same batches as an uninterrupted one.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.imaging import augmentation
from tasks.modeling.images import Images
from tasks.params.train import Train

PREDICT_BATCH = 64


def is_blending(params: Train) -> bool:
    """Tell whether training blends pairs of images; their targets are then shares of classes."""
    return params.augmentation is not None and params.augmentation.mixup is not None


def batch(images: Images) -> tf.data.Dataset:
    """Return batches of (pixels, targets) in the order of the rows."""

    def generate() -> Iterator[tuple[NDArray[Any], ...]]:
        for start in range(0, len(images.rows), PREDICT_BATCH):
            chosen = slice(start, start + PREDICT_BATCH)
            yield images.pixels[images.rows[chosen]], images.targets[chosen]

    dataset = tf.data.Dataset.from_generator(
        generate, output_signature=_signature(images.pixels)[:2]
    )
    return dataset.apply(_declare_count(len(images.rows), PREDICT_BATCH)).prefetch(2)


def batch_validation(images: Images, params: Train, classes: int) -> tf.data.Dataset:
    """Return batches of (pixels, targets), with the targets in the form that the loss takes."""
    dataset = batch(images)
    if not is_blending(params):
        return dataset
    return dataset.map(lambda pixels, targets: (pixels, tf.one_hot(targets, classes)))


def batch_training(images: Images, params: Train, epoch: int, classes: int) -> tf.data.Dataset:
    """Return batches of (pixels, targets, weights), shuffled and augmented for this epoch."""
    count = len(images.rows)
    order = np.random.default_rng([params.seed, epoch, 1]).permutation(count)
    if params.augmentation is None:
        dataset = _shuffle(images, params.batch_size, order, epoch)
    else:
        dataset = _draw(images, params, order, epoch).map(_change(params, classes))
    return dataset.apply(_declare_count(count, params.batch_size)).prefetch(2)


def _shuffle(images: Images, size: int, order: NDArray[np.intp], epoch: int) -> tf.data.Dataset:
    """Return batches of (pixels, targets, weights); the pixels are those of this epoch's view."""
    views = images.cached_views
    source = views[epoch % len(views)] if views else images.pixels

    def generate() -> Iterator[tuple[NDArray[Any], ...]]:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = chosen if views else images.rows[chosen]
            yield source[rows], images.targets[chosen], images.weights[chosen]

    return tf.data.Dataset.from_generator(generate, output_signature=_signature(source))


def _draw(images: Images, params: Train, order: NDArray[np.intp], epoch: int) -> tf.data.Dataset:
    """Return batches of (pixels, targets, weights) and what `_change` needs to change them."""
    wanted, count = params.augmentation, len(images.rows)
    assert wanted is not None
    drawn = (
        augmentation.draw_shares(wanted, params.seed, epoch, count),
        *augmentation.draw(wanted, params.seed, epoch, count, images.pixels.shape[1:3]),
    )

    def generate() -> Iterator[tuple[NDArray[Any], ...]]:
        for start in range(0, count, params.batch_size):
            chosen = order[start : start + params.batch_size]
            pixels = images.pixels[images.rows[chosen]]
            changes = (array[chosen] for array in drawn)
            yield pixels, images.targets[chosen], images.weights[chosen], *changes

    signature = (
        *_signature(images.pixels),
        *(tf.TensorSpec((None, *array.shape[1:])) for array in drawn),
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def _change(params: Train, classes: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Return the function that changes a batch of `_draw` and blends its images if wanted."""
    fill = params.augmentation.fill if params.augmentation else ""

    def change(*parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels, targets, weights, shares, transforms, tones, displacements = parts
        pixels = augmentation.apply(pixels, transforms, tones, displacements, fill)
        if is_blending(params):
            return augmentation.mix(pixels, targets, weights, shares, classes)
        return pixels, targets, weights

    return change


def _declare_count(count: int, size: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Declare the number of batches.

    Without it Keras requests one batch more, and the optimizer counts a step without images.
    """
    return tf.data.experimental.assert_cardinality(math.ceil(count / size))


def _signature(pixels: NDArray[Any]) -> tuple[tf.TensorSpec, ...]:
    inputs = tf.TensorSpec((None, *pixels.shape[1:]), pixels.dtype)
    return inputs, tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,), tf.float32)
