"""Build a CNN from its structure, and the layers that every network shares."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from tasks.errors import UserError
from tasks.params.architectures import Cnn


def build_model(
    structure: Cnn,
    shape: tuple[int, int, int],
    classes: int,
    binary: bool = False,
    fused: bool = False,
) -> keras.Model:
    """Build a model from raw `uint8` pixels (batch, *shape) to probabilities (batch, classes).

    `shape` is (height, width, channels). `binary` decides by one sigmoid. `fused` trains batch
    normalisation with TensorFlow's fused kernel; its weights and their order are the same as in the
    plain model. Raises `UserError` if the image is too small for the blocks.
    """
    normalization = FusedBatchNormalization if fused else keras.layers.BatchNormalization
    inputs = keras.Input(shape, dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters, pool, rate in _blocks(structure):
        _check_size(structure, pool, x, shape)
        x = keras.layers.Conv2D(
            filters, structure.kernel, padding=structure.padding, activation="relu"
        )(x)
        if structure.batch_norm:
            x = normalization(momentum=structure.batch_norm_momentum)(x)
        if pool:
            x = keras.layers.MaxPooling2D(2)(x)
        x = add_dropout(x, rate)
    x = keras.layers.Flatten()(x)
    for units in structure.dense:
        x = keras.layers.Dense(units, activation=structure.activation)(x)
    x = add_dropout(x, structure.dropout)
    return keras.Model(inputs, add_outputs(x, classes, binary))


def add_outputs(x: keras.KerasTensor, classes: int, binary: bool = False) -> keras.KerasTensor:
    """Return `float32` probabilities (batch, classes) of features (batch, units).

    `binary` computes one sigmoid p and returns the columns 1 - p and p. Their cross-entropy is the
    binary cross-entropy, and every reader of probabilities finds one column for each class. With
    `binary`, raises `UserError` unless there are two classes.
    """
    if not binary:
        return keras.layers.Dense(
            classes, activation="softmax", name="probabilities", dtype="float32"
        )(x)
    if classes != 2:
        raise UserError(f"a sigmoid decides between two classes, received {classes}")
    positive = keras.layers.Dense(1, activation="sigmoid", name="positive", dtype="float32")(x)
    negative = keras.layers.Rescaling(-1, offset=1, name="negative", dtype="float32")(positive)
    return keras.layers.Concatenate(name="probabilities", dtype="float32")([negative, positive])


def add_dropout(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Return `x` with dropout; a rate of 0 adds no layer."""
    return keras.layers.Dropout(rate)(x) if rate else x


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation that trains with `FusedBatchNormV3`.

    On TensorFlow, Keras 3 composes batch normalisation of single operations. Those are slower, and
    their results differ from run to run in the last bits.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalise inputs (batch, height, width, channels); update the moving averages."""
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
    """Return filters, pooling and dropout rate of each block."""
    count = len(structure.filters)
    pool = structure.pool if isinstance(structure.pool, tuple) else (structure.pool,) * count
    return zip(structure.filters, pool, structure.block_dropout or (0.0,) * count, strict=True)


def _check_size(
    structure: Cnn, pool: bool, x: keras.KerasTensor, shape: tuple[int, int, int]
) -> None:
    """Raise `UserError` if a feature map is too small for the next block."""
    least = (structure.kernel if structure.padding == "valid" else 1) + pool
    if min(x.shape[1:3]) < least:
        raise UserError(
            f"image_size {list(shape[:2])} is too small for {len(structure.filters)} blocks of "
            "convolution and pooling: set image_size higher, or filters shorter"
        )
