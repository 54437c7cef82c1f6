"""Heat maps follow the formula of the paper, mark what supports a class, and depend on training."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.errors import UserError
from tasks.inference import gradcam
from tasks.modeling import saved
from tasks.modeling.backbones import build_transfer
from tasks.modeling.layers import build_model
from tasks.params.architectures import ARCHITECTURES, Cnn, Head, Transfer

pytestmark = pytest.mark.slow

SIZE = (32, 40)
PIXELS = np.random.default_rng(0).integers(
    0, 256, (20, *SIZE, 3), dtype=np.uint8
)  # more than one batch
POOLED = Cnn(filters=(4, 6), batch_norm=False, dense=(), dropout=0.2)


def pooled(head: np.ndarray, activation: str = "softmax") -> keras.Model:
    """Build a network of two maps, bright and dark, their means, and a dense layer `head`."""
    inputs = keras.Input((*SIZE, 1), dtype="uint8")
    maps = keras.layers.Conv2D(2, 1, activation="relu", name="maps")(
        keras.layers.Rescaling(1 / 255)(inputs)
    )
    means = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Dropout(0.5)(keras.layers.MaxPooling2D(2)(maps))
    )
    model = keras.Model(
        inputs, keras.layers.Dense(head.shape[1], activation=activation, name="answer")(means)
    )
    model.get_layer("maps").set_weights(
        [np.array([1.0, -1.0]).reshape(1, 1, 1, 2), np.array([-0.5, 0.5])]
    )
    model.get_layer("answer").set_weights([head, np.zeros(head.shape[1])])
    return model


def heatmap(model: keras.Model, pixels: np.ndarray, class_index: int) -> np.ndarray:
    return gradcam.build_explainer(model).heatmaps(pixels[np.newaxis], [class_index])[0]


def patch() -> np.ndarray:
    """Return a grey image with one bright patch."""
    pixels = np.full((*SIZE, 1), 100, np.uint8)
    pixels[8:16, 20:30] = 220
    return pixels


def test_it_marks_the_patch_that_speaks_for_the_class() -> None:
    model = pooled(np.array([[-1.0, 1.0], [0.0, 0.0]]))
    inside = patch()[..., 0] == 220
    heat = heatmap(model, patch(), 1)
    assert (heat.shape, heat.dtype) == (SIZE, np.float32)
    assert (heat[inside] == 1).all()
    assert (heat[~inside] == 0).all()
    assert not heatmap(model, patch(), 0).any()  # the patch speaks against it


def test_it_is_the_formula_of_the_paper() -> None:
    """After a mean and a dense layer the gradient is known: the weights of the class."""
    keras.utils.set_random_seed(1)
    model = build_transfer(
        Transfer(backbone="MobileNet", options={"alpha": 0.25}, weights=None), (64, 64, 3), 5
    )
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    explainer = gradcam.build_explainer(model)
    classes = [4, 0, 2]
    kernel = model.layers[-1].get_weights()[0]
    maps = explainer.below(pixels, training=False).numpy()
    expected = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel[:, classes]), 0)
    expected = keras.ops.image.resize(expected[..., None], (64, 64)).numpy()[..., 0]
    expected /= expected.max(axis=(1, 2), keepdims=True)
    assert explainer.grid == (2, 2)
    np.testing.assert_allclose(explainer.heatmaps(pixels, classes), expected, atol=1e-3)


def test_a_model_that_is_sure_is_explained_alike() -> None:
    """The gradient of its probability would be 0 everywhere."""
    head = np.random.default_rng(2).normal(size=(2, 3))
    assert pooled(head * 1e5)(PIXELS[:1, ..., :1]).numpy().max() == 1
    for number in range(3):
        unsure, sure = (
            heatmap(pooled(head * scale), PIXELS[0, ..., :1], number) for scale in (1, 1e5)
        )
        np.testing.assert_allclose(sure, unsure, atol=1e-5)


def test_one_sigmoid_answers_for_two_classes() -> None:
    binary = build_model(POOLED, (*SIZE, 3), 2, binary=True)
    softmax = build_model(POOLED, (*SIZE, 3), 2)
    kernel, bias = binary.get_layer("positive").get_weights()
    softmax.set_weights(
        [*binary.get_weights()[:-2], np.hstack([-kernel, kernel]), np.hstack([-bias, bias])]
    )
    for number in (0, 1):
        np.testing.assert_allclose(
            heatmap(binary, PIXELS[0], number),
            heatmap(softmax, PIXELS[0], number),
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "name", ["plain_cnn", "cnn_b", "photo_binary"]
)  # without normalisation, with it, with dropout
def test_our_networks_are_cut_before_their_last_pooling(name: str) -> None:
    row = ARCHITECTURES[name]
    model = build_model(
        row.model_copy(update={"filters": tuple(3 for _ in row.filters), "dense": (4,)}),
        (*SIZE, 3),
        3,
    )
    explainer = gradcam.build_explainer(model)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert explainer.grid == convolutions[-1].output.shape[1:3]
    heats = explainer.heatmaps(PIXELS, [0, 1] * 10)
    assert heats.shape == (20, *SIZE)
    assert heats.min() == 0
    assert set(heats.max(axis=(1, 2))) <= {0, 1}


def test_a_flat_backbone_is_cut_at_its_last_convolution() -> None:
    model = build_transfer(
        Transfer(backbone="VGG16", weights=None, head=Head(pooling="flatten")), (*SIZE, 3), 2
    )
    explainer = gradcam.build_explainer(model)
    assert explainer.below.layers[-1].name == "block5_conv3"
    assert explainer.grid == (2, 2)  # before the last pooling


def test_a_saved_residual_backbone_is_cut_at_its_last_activation(tmp_path: Path) -> None:
    structure = Transfer(
        backbone="MobileNetV2", options={"alpha": 0.35}, weights=None, head=Head(pooling="max")
    )
    saved.save(build_transfer(structure, (*SIZE, 3), 2), None, tmp_path)
    explainer = gradcam.load(tmp_path)
    assert explainer.below.layers[-1].name == "out_relu"
    assert explainer.grid == (1, 2)
    assert explainer.heatmaps(PIXELS[:2], [0, 1]).shape == (2, *SIZE)


def test_a_perceptron_and_a_forest_have_no_feature_maps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without convolutions"):
        heatmap(build_model(Cnn(filters=()), (*SIZE, 3), 3), PIXELS[0], 0)
    (tmp_path / "model.skops").touch()
    with pytest.raises(UserError, match="scikit-learn"):
        gradcam.load(tmp_path)


def test_explaining_leaves_the_model_as_it_was() -> None:
    model = build_model(POOLED, (*SIZE, 3), 3)
    before = model(PIXELS, training=False).numpy()
    gradcam.build_explainer(model).heatmaps(PIXELS, [0] * 20)
    assert np.array_equal(model(PIXELS, training=False), before)


@pytest.mark.parametrize("everything", [False, True])
def test_random_weights_change_the_maps(everything: bool) -> None:
    keras.utils.set_random_seed(1)
    explainer = gradcam.build_explainer(
        build_model(Cnn(filters=(8, 8), dense=(16,)), (*SIZE, 3), 4)
    )
    weights, before = explainer.below.get_weights(), explainer.heatmaps(PIXELS, [0] * 20)
    explainer.randomise(everything)
    after = explainer.heatmaps(PIXELS, [0] * 20)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] < 0.5
    kept = [
        np.array_equal(one, other)
        for one, other in zip(weights, explainer.below.get_weights(), strict=True)
    ]
    assert all(kept) != everything


@pytest.mark.parametrize("channels", [1, 3])
def test_the_overlay_covers_what_is_hot_and_leaves_what_is_cold(channels: int) -> None:
    pixels = PIXELS[0, ..., :channels]
    plain = gradcam.overlay(pixels, np.zeros((4, 4), np.float32))
    assert (plain.shape, plain.dtype) == ((*SIZE, 3), np.uint8)
    assert np.array_equal(plain, np.broadcast_to(pixels, plain.shape))
    hottest = gradcam.overlay(np.zeros_like(pixels), np.ones((4, 4), np.float32), opacity=1)
    assert (hottest == [252, 255, 164]).all()  # the upper end of inferno
    half = gradcam.overlay(np.zeros_like(pixels), np.ones((4, 4), np.float32), opacity=0.5)
    assert (half == [126, 127, 82]).all()
