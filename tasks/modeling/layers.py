"""A row of the architecture table to a Keras model."""

import keras
import tensorflow as tf

from tasks.modeling.architectures import Cnn


def build_model(structure: Cnn, image_size: tuple[int, int], channels: int, classes: int, fused: bool = False) -> keras.Model:
    """Return a model from raw `uint8` pixels (batch, height, width, channels) to softmax probabilities (batch, classes).

    `fused` trains batch normalisation with TensorFlow's fused kernel; the weights are the same, in the same order, as
    those of the plain model that is saved. Raises `ValueError` where the image is too small for the blocks.
    """
    normalization = FusedBatchNormalization if fused else keras.layers.BatchNormalization
    inputs = keras.Input((*image_size, channels), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters in structure.filters:
        _check_room(structure, x, image_size)
        x = keras.layers.Conv2D(filters, structure.kernel, padding=structure.padding, activation="relu")(x)
        if structure.batch_norm:
            x = normalization(momentum=structure.batch_norm_momentum)(x)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    for units in structure.dense:
        x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(structure.dropout)(x)
    return keras.Model(inputs, answer(x, classes, False))


def answer(x: keras.KerasTensor, classes: int, binary: bool) -> keras.KerasTensor:
    """Return probabilities (batch, classes) in float32."""
    return keras.layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32")(x)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of (batch, height, width, channels) by `FusedBatchNormV3` while training.

    Keras 3 composes it of single operations on TensorFlow, which is slower and not bit-equal from run to run.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        biased = variance * (count - 1) / count  # the kernel divides by count - 1, Keras by count
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + biased * (1 - self.momentum))
        return outputs


def _check_room(structure: Cnn, x: keras.KerasTensor, image_size: tuple[int, int]) -> None:
    least = structure.kernel + 1 if structure.padding == "valid" else 2
    if min(x.shape[1:3]) < least:
        raise ValueError(
            f"image_size {list(image_size)} is too small for {len(structure.filters)} blocks of convolution and pooling: "
            "set image_size higher, or filters shorter"
        )
