"""Where a network looked: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), and pictures of it.

The feature maps are those of the last layer that convolution, addition or activation gave, before pooling, normalisation
and dropout of our own blocks. Each map is weighed by the mean gradient of the class's logit (not of its probability, whose
gradient vanishes where the model is sure) with respect to it; what is positive of their sum speaks for the class. Behind a
flattened map that mean blurs what each place contributed (Draelos and Carin 2020, arXiv 2011.08891).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from PIL import Image

from tasks.errors import UserError
from tasks.inference import ensemble
from tasks.modeling.saved import load_keras

COLOURS = "inferno"  # perceptually uniform, and safe for colour-blind readers
BATCH = 16
PASSED_OVER = (
    keras.layers.BatchNormalization, keras.layers.Dropout, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D,
)  # fmt: skip


class NoHeatMapError(UserError):
    """A model that Grad-CAM has nothing to say of."""


@dataclass(frozen=True)
class Explainer:
    """A network cut at its last feature maps; `below` shares the layers of the model that it was made of."""

    below: keras.Model  # pixels to feature maps
    above: keras.Model  # feature maps to logits

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the feature maps: no heat map is finer."""
        return self.below.output_shape[1:3]

    def heatmaps(self, pixels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """Return what speaks for one class in each image: float32 (images, height, width), 0 to 1.

        `pixels` are `uint8` (images, height, width, channels), `classes` the number of a class for each. The highest value
        is 1; all are 0 where nothing speaks for the class.
        """
        starts = range(0, len(pixels), BATCH)
        return np.concatenate(
            [self._heatmaps(pixels[i : i + BATCH], classes[i : i + BATCH]) for i in starts]
        )

    def randomise(self, everything: bool) -> None:
        """Start the weights above the feature maps anew, or those of `everything`, as before a training; by Keras's seed."""
        for part in [self.below, self.above] if everything else [self.above]:
            part.set_weights(keras.models.clone_model(part).get_weights())

    def _heatmaps(self, pixels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        maps = self.below(pixels, training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = self.above(maps, training=False)
            if logits.shape[1] == 1:
                logits = tf.concat([-logits, logits], axis=1)  # one sigmoid answers for two classes
            score = tf.gather(logits, tf.constant(classes, tf.int32), batch_dims=1)
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1, keepdims=True))
        heat = tf.image.resize(heat, pixels.shape[1:3])[..., 0]
        return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True)).numpy()


def load(folder: Path) -> Explainer:
    """Return the explainer of a model's folder. Raises `NoHeatMapError`, which says why there is none."""
    if ensemble.is_one(folder):
        raise NoHeatMapError("an ensemble has no heat map of its own; ask one of its members")
    if not (folder / "model.keras").exists():
        raise NoHeatMapError(
            "Grad-CAM follows the gradient from a class back to feature maps; a scikit-learn model has none"
        )
    return explainer(load_keras(folder / "model.keras"))


def explainer(model: keras.Model) -> Explainer:
    """Cut a model whose last dense layer gives the answer, as all of ours. Raises `NoHeatMapError` where nothing convolves."""
    operations = model.operations
    convolves = [isinstance(operation, keras.layers.Conv2D) for operation in operations]
    if not any(convolves):
        raise NoHeatMapError("Grad-CAM needs feature maps; a network without convolutions has none")
    maps = [
        operation.output
        for operation in operations[convolves.index(True) :]
        if not isinstance(operation, PASSED_OVER) and len(operation.output.shape) == 4
    ][-1]
    answer = [operation for operation in operations if isinstance(operation, keras.layers.Dense)][
        -1
    ]
    logits = keras.layers.Dense(answer.units, name="logits")
    above = keras.Model(maps, logits(answer.input))
    logits.set_weights(answer.get_weights())
    return Explainer(keras.Model(model.input, maps), above)


def heatmap(model: keras.Model, pixels: np.ndarray, class_index: int) -> np.ndarray:
    """Return what speaks for a class in one `uint8` image (height, width, channels): float32 (height, width), 0 to 1.

    For many images make the `explainer` once. Raises `NoHeatMapError` as it does.
    """
    return explainer(model).heatmaps(pixels[np.newaxis], [class_index])[0]


def overlay(pixels: np.ndarray, heat: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lay a heat map over a picture: `uint8` RGB (height, width, 3).

    `pixels` are `uint8` (height, width, 1 or 3) of any size: the heat map (0 to 1) is stretched to it. Its colour covers
    the picture by `opacity` where the heat is 1, and not at all where it is 0.
    """
    size = (pixels.shape[1], pixels.shape[0])
    stretched = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    colours = matplotlib.colormaps[COLOURS](stretched)[..., :3] * 255
    share = opacity * stretched[..., np.newaxis]
    return np.uint8(np.rint((1 - share) * pixels + share * colours))
