"""Grad-CAM: show where a network looked (Selvaraju et al. 2017, arXiv 1610.02391).

The feature maps are the output of the last convolution, addition or activation. Pooling,
normalisation and dropout of our own blocks come after it. The weight of each map is the mean
gradient of the class's logit with respect to the map. (The gradient of the probability would vanish
where the model is confident.) The heat map is the positive part of the weighted sum. If the network
flattens the maps next, the mean gradient blurs how much each place contributed (Draelos and Carin
2020, arXiv 2011.08891).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from tasks.errors import UserError
from tasks.inference import ensemble
from tasks.modeling.keras_files import load_keras

COLOURS = "inferno"  # perceptually uniform, and safe for colour-blind readers
BATCH = 16
SKIPPED = (
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.MaxPooling2D,
)


class NoHeatMapError(UserError):
    """Grad-CAM cannot explain this model."""


@dataclass(frozen=True)
class Explainer:
    """A network cut at its last feature maps; `below` shares layers with the original model."""

    below: keras.Model  # pixels to feature maps
    above: keras.Model  # feature maps to logits

    @property
    def grid(self) -> tuple[int, int]:
        """Return height and width of the feature maps, the finest detail of a heat map."""
        return self.below.output_shape[1:3]

    def heatmaps(self, pixels: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.float32]:
        """Return a heat map (images, height, width) from 0 to 1 for one class in each image.

        `pixels` are (images, height, width, channels); `classes` has one class index for each. The
        highest value is 1. All values are 0 if nothing in the image supports the class.
        """
        starts = range(0, len(pixels), BATCH)
        return np.concatenate(
            [self._heatmaps(pixels[i : i + BATCH], classes[i : i + BATCH]) for i in starts]
        )

    def randomise(self, everything: bool) -> None:
        """Set the weights above the feature maps to random ones, as before a training.

        `everything` randomises all weights. Keras's seed decides the values.
        """
        for part in [self.below, self.above] if everything else [self.above]:
            part.set_weights(keras.models.clone_model(part).get_weights())

    def _heatmaps(self, pixels: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.float32]:
        maps = self.below(pixels, training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = self.above(maps, training=False)
            if logits.shape[1] == 1:  # one sigmoid decides between two classes
                logits = tf.concat([-logits, logits], axis=1)
            score = tf.gather(logits, tf.constant(classes, tf.int32), batch_dims=1)
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1, keepdims=True))
        heat = tf.image.resize(heat, pixels.shape[1:3])[..., 0]
        return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True)).numpy()


def load(folder: Path) -> Explainer:
    """Load the explainer of a model's folder. Raises `NoHeatMapError` if the model has none."""
    if ensemble.is_ensemble(folder):
        raise NoHeatMapError("an ensemble has no heat map of its own; ask one of its members")
    if not (folder / "model.keras").exists():
        raise NoHeatMapError(
            "Grad-CAM follows the gradient from a class back to feature maps; a scikit-learn model "
            "has none"
        )
    return build_explainer(load_keras(folder / "model.keras"))


def build_explainer(model: keras.Model) -> Explainer:
    """Cut a model at its last feature maps; its last dense layer must compute the probabilities.

    Raises `NoHeatMapError` for a model without convolutions.
    """
    operations = model.operations
    convolves = [isinstance(operation, keras.layers.Conv2D) for operation in operations]
    if not any(convolves):
        raise NoHeatMapError("Grad-CAM needs feature maps; a network without convolutions has none")
    maps = [
        operation.output
        for operation in operations[convolves.index(True) :]
        if not isinstance(operation, SKIPPED) and len(operation.output.shape) == 4
    ][-1]
    last = [operation for operation in operations if isinstance(operation, keras.layers.Dense)][-1]
    logits = keras.layers.Dense(last.units, name="logits")
    above = keras.Model(maps, logits(last.input))
    logits.set_weights(last.get_weights())
    return Explainer(keras.Model(model.input, maps), above)


def overlay(
    pixels: NDArray[np.uint8], heat: NDArray[np.float32], opacity: float = 0.6
) -> NDArray[np.uint8]:
    """Lay a heat map over an image and return RGB (height, width, 3).

    `pixels` are (height, width, 1 or 3) of any size, to which the heat map (0 to 1) is stretched.
    Its colour covers the image by `opacity` where the heat is 1, and not at all where it is 0.
    """
    size = (pixels.shape[1], pixels.shape[0])
    stretched = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    colours = matplotlib.colormaps[COLOURS](stretched)[..., :3] * 255
    share = opacity * stretched[..., np.newaxis]
    return np.rint((1 - share) * pixels + share * colours).astype(np.uint8)
