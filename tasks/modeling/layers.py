"""A row of the architecture table to a Keras model."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from tasks.errors import UserError
from tasks.params.architectures import Cnn


def build_model(
    structure: Cnn,
    image_size: tuple[int, int],
    channels: int,
    classes: int,
    fused: bool = False,
    binary: bool = False,
) -> keras.Model:
    """Return a model from raw `uint8` pixels (batch, height, width, channels) to probabilities (batch, classes).

    `fused` trains batch normalisation with TensorFlow's fused kernel; the weights are the same, in the same order, as
    those of the plain model that is saved. `binary` answers with one sigmoid. Raises `UserError` where the image is
    too small for the blocks.
    """
    normalization = FusedBatchNormalization if fused else keras.layers.BatchNormalization
    inputs = keras.Input((*image_size, channels), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters, pool, rate in _blocks(structure):
        _check_room(structure, pool, x, image_size)
        x = keras.layers.Conv2D(
            filters, structure.kernel, padding=structure.padding, activation="relu"
        )(x)
        if structure.batch_norm:
            x = normalization(momentum=structure.batch_norm_momentum)(x)
        if pool:
            x = keras.layers.MaxPooling2D(2)(x)
        x = dropped(x, rate)
    x = keras.layers.Flatten()(x)
    for units in structure.dense:
        x = keras.layers.Dense(units, activation=structure.activation)(x)
    x = dropped(x, structure.dropout)
    return keras.Model(inputs, answer(x, classes, binary))


def answer(x: keras.KerasTensor, classes: int, binary: bool = False) -> keras.KerasTensor:
    """Return `float32` probabilities (batch, classes) of features (batch, units).

    `binary` is one sigmoid p, answered as the two columns 1 - p and p: their cross-entropy is the binary one, and all
    that reads probabilities finds a column for each class. Raises `UserError` where there are other than two classes.
    """
    if not binary:
        return keras.layers.Dense(
            classes, activation="softmax", name="probabilities", dtype="float32"
        )(x)
    if classes != 2:
        raise UserError(f"a sigmoid tells two classes apart, received {classes}")
    positive = keras.layers.Dense(1, activation="sigmoid", name="positive", dtype="float32")(x)
    negative = keras.layers.Rescaling(-1, offset=1, name="negative", dtype="float32")(positive)
    return keras.layers.Concatenate(name="probabilities", dtype="float32")([negative, positive])


def dropped(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Return `x` with dropout; a rate of 0 adds no layer."""
    return keras.layers.Dropout(rate)(x) if rate else x


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of (batch, height, width, channels) by `FusedBatchNormV3` while training.

    Keras 3 composes it of single operations on TensorFlow, which is slower and not bit-equal from run to run.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        biased = variance * (count - 1) / count  # the kernel divides by count - 1, Keras by count
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(
            self.moving_variance * self.momentum + biased * (1 - self.momentum)
        )
        return outputs


def _blocks(structure: Cnn) -> Iterator[tuple[int, bool, float]]:
    """Filters, pooling and dropout of each block."""
    count = len(structure.filters)
    pool = structure.pool if isinstance(structure.pool, tuple) else (structure.pool,) * count
    return zip(structure.filters, pool, structure.block_dropout or (0.0,) * count, strict=True)


def _check_room(
    structure: Cnn, pool: bool, x: keras.KerasTensor, image_size: tuple[int, int]
) -> None:
    least = (structure.kernel if structure.padding == "valid" else 1) + pool
    if min(x.shape[1:3]) < least:
        raise UserError(
            f"image_size {list(image_size)} is too small for {len(structure.filters)} blocks of convolution and pooling: "
            "set image_size higher, or filters shorter"
        )
