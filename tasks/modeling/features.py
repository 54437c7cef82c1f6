"""Features of images from the frozen layers of a network, computed once and cached.

They are kept in `.cache/features` for every head, epoch and architecture that uses them. The key
is the content: the pixels, the backbone, its weights, the cut, the precision, and the augmentation.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from tasks.imaging import arrays, augmentation
from tasks.modeling.images import Images
from tasks.params.architectures import Backbone
from tasks.params.augmentation import Augmentation

CACHE = Path(".cache/features")
BATCH = 64

# Takes a batch of pixels and the slice of rows that it comes from.
Change = Callable[[NDArray[np.uint8], slice], "NDArray[np.uint8] | tf.Tensor"]


@dataclass(frozen=True)
class View:
    """One augmented copy of the images: augmented as in epoch `number` of an uncached training."""

    augmentation: Augmentation
    seed: int
    number: int


def compute(below: keras.Model, structure: Backbone, images: Images) -> NDArray[np.float32]:
    """Return features (images, ...) of the unchanged images, in the order of `images.rows`."""
    return arrays.load_or_make(
        CACHE,
        _describe(below, structure, images),
        (len(images.rows), *below.output.shape[1:]),
        np.dtype(np.float32),
        lambda: _run(below, images, lambda pixels, rows: pixels, structure.backbone),
    )


def compute_view(
    below: keras.Model, structure: Backbone, images: Images, view: View
) -> NDArray[np.float16]:
    """Return features (images, ...) of an augmented copy of the images."""
    drawn = augmentation.draw(
        view.augmentation, view.seed, view.number, len(images.rows), images.pixels.shape[1:3]
    )

    def change(pixels: NDArray[np.uint8], rows: slice) -> tf.Tensor:
        transforms, tones, displacements = (array[rows] for array in drawn)
        return augmentation.apply(pixels, transforms, tones, displacements, view.augmentation.fill)

    key = [view.augmentation.model_dump_json(), view.seed, view.number]
    return arrays.load_or_make(
        CACHE,
        [*_describe(below, structure, images), *key],
        (len(images.rows), *below.output.shape[1:]),
        np.dtype(np.float16),
        lambda: _run(below, images, change, structure.backbone),
    )


def _describe(below: keras.Model, structure: Backbone, images: Images) -> list[object]:
    """Return what the features depend on, as the key of the cache."""
    return [
        structure.backbone,
        sorted(structure.options.items()),
        len(below.layers),
        below.output.dtype,
        keras.__version__,
        tf.__version__,
        _digest(below.get_weights()),
        _digest(images.pixels[images.rows[rows]] for rows in _slices(images)),
        images.pixels.shape[1:],
    ]


def _run(
    below: keras.Model, images: Images, change: Change, name: str
) -> Iterator[NDArray[np.float32]]:
    """Yield the features of one batch after another, and show the progress."""
    run = tf.function(
        lambda pixels: tf.cast(below(pixels, training=False), tf.float32),
        input_signature=[tf.TensorSpec((None, *images.pixels.shape[1:]), tf.uint8)],
        jit_compile=False,
    )
    with tqdm(total=len(images.rows), desc=f"features of {name}", unit=" images") as progress:
        for rows in _slices(images):
            yield run(change(images.pixels[images.rows[rows]], rows)).numpy()
            progress.update(rows.stop - rows.start)


def _slices(images: Images) -> Iterator[slice]:
    count = len(images.rows)
    return (slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _digest(blocks: Iterable[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()
