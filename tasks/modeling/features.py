"""What a frozen network makes of the images, computed once and kept in `.cache/features` for every head, epoch and architecture.

The key is the content: pixels, backbone, its weights, where it was cut, precision, and the changes of a view.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tasks.imaging import augmentation
from tasks.imaging.arrays import load_or_make
from tasks.modeling.training import Images
from tasks.params.architectures import Backbone
from tasks.params.augmentation import Augmentation

CACHE = Path(".cache/features")
BATCH = 64

Change = Callable[
    [np.ndarray, slice], np.ndarray | tf.Tensor
]  # of a batch of pixels, and which of the rows it is


def plain(below: keras.Model, structure: Backbone, images: Images) -> np.ndarray:
    """Return `float32` features (images, ...) of the unchanged images, in the order of `images.rows`."""
    return _kept(below, structure, images, np.float32, [], lambda pixels, chosen: pixels)


def view(
    below: keras.Model,
    structure: Backbone,
    images: Images,
    changes: Augmentation,
    seed: int,
    number: int,
) -> np.ndarray:
    """Return `float16` features of images that are changed as in epoch `number` of an uncached training."""
    drawn = augmentation.draw(changes, seed, number, len(images.rows), images.pixels.shape[1:3])

    def change(pixels: np.ndarray, chosen: slice) -> tf.Tensor:
        return augmentation.apply(pixels, *(array[chosen] for array in drawn), changes.fill)

    return _kept(
        below, structure, images, np.float16, [changes.model_dump_json(), seed, number], change
    )


def _kept(
    below: keras.Model,
    structure: Backbone,
    images: Images,
    dtype: type,
    more: Sequence[object],
    change: Change,
) -> np.ndarray:
    network = [
        structure.backbone,
        sorted(structure.options.items()),
        len(below.layers),
        below.output.dtype,
        keras.__version__,
    ]
    content = [
        *network,
        tf.__version__,
        _digest(below.get_weights()),
        _digest(_pixels(images)),
        images.pixels.shape[1:],
        *more,
    ]
    shape = (len(images.rows), *below.output.shape[1:])
    return load_or_make(
        CACHE,
        content,
        shape,
        np.dtype(dtype),
        lambda: _compute(below, images, change, structure.backbone),
    )


def _compute(below: keras.Model, images: Images, change: Change, name: str) -> Iterator[np.ndarray]:
    run = tf.function(
        lambda pixels: tf.cast(below(pixels, training=False), tf.float32),
        input_signature=[tf.TensorSpec((None, *images.pixels.shape[1:]), tf.uint8)],
        jit_compile=False,
    )
    count = len(images.rows)
    with tqdm(total=count, desc=f"features of {name}", unit=" images") as progress:
        for start in range(0, count, BATCH):
            chosen = slice(start, min(start + BATCH, count))
            yield run(change(images.pixels[images.rows[chosen]], chosen)).numpy()
            progress.update(chosen.stop - start)


def _pixels(images: Images) -> Iterator[np.ndarray]:
    return (
        images.pixels[images.rows[start : start + BATCH]]
        for start in range(0, len(images.rows), BATCH)
    )


def _digest(arrays: Sequence[np.ndarray] | Iterator[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
