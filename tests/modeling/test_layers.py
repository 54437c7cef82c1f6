"""Models have the layers of the table, train the same when fused, and load without our code."""

import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.errors import UserError
from tasks.modeling.layers import FusedBatchNormalization, build_model
from tasks.params.architectures import ARCHITECTURES, Cnn

pytestmark = pytest.mark.slow

SMALL = Cnn(filters=(4, 8), dense=(8,), dropout=0.0)
CNNS = {name: row for name, row in ARCHITECTURES.items() if isinstance(row, Cnn)}
# Shape, classes, parameters, and the parameters of each layer counted by hand: (inputs + 1) *
# outputs, and 4 for each channel of a normalisation.
COUNTS = {
    "plain_cnn": (
        (224, 224, 3),
        4,
        11_169_476,
        [28 * 32, 289 * 64, 577 * 128, (26 * 26 * 128 + 1) * 128, 129 * 4],
    ),
    "cnn_a": (
        (224, 224, 3),
        4,
        12_939_844,
        [28 * 32, 289 * 64, 577 * 128, 4 * 224, (28 * 28 * 128 + 1) * 128, 129 * 4],
    ),
    "cnn_b": (
        (224, 224, 3),
        4,
        3_310_308,
        [28 * 16, 145 * 32, 289 * 64, 577 * 128, 4 * 240, (14 * 14 * 128 + 1) * 128, 129 * 4],
    ),
    "cnn_c": (
        (224, 224, 3),
        4,
        13_105_220,
        [76 * 32, 801 * 64, 1601 * 128, 4 * 224, (28 * 28 * 128 + 1) * 128, 129 * 4],
    ),
    "photo_cnn": (
        (128, 128, 3),
        5,
        33_578_789,
        [28 * 16, 145 * 32, 289 * 64, (64 * 64 * 64 + 1) * 128, 129 * 5],
    ),
    "photo_cnn_dropout": (
        (64, 64, 3),
        5,
        8_412_965,
        [28 * 16, 145 * 32, 289 * 64, (32 * 32 * 64 + 1) * 128, 129 * 5],
    ),
    "photo_binary": (
        (64, 64, 3),
        2,
        8_412_449,
        [28 * 16, 145 * 32, 289 * 64, (32 * 32 * 64 + 1) * 128, 129],
    ),
    "binary_cnn": ((64, 64, 3), 2, 813_217, [28 * 32, 289 * 32, (14 * 14 * 32 + 1) * 128, 129]),
    "mnist_cnn": ((28, 28, 1), 10, 347_146, [10 * 32, (13 * 13 * 32 + 1) * 64, 65 * 10]),
    "mnist_mlp": ((28, 28, 1), 10, 101_770, [785 * 128, 129 * 10]),
}


def test_the_activation_is_that_of_the_dense_layers() -> None:
    model = build_model(SMALL.model_copy(update={"activation": "tanh"}), (32, 32, 1), 4)
    told = [
        (type(layer).__name__, layer.activation.__name__)
        for layer in model.layers
        if hasattr(layer, "activation")
    ]
    assert told == [("Conv2D", "relu"), ("Conv2D", "relu"), ("Dense", "tanh"), ("Dense", "softmax")]


@pytest.mark.parametrize("name", CNNS)
def test_every_architecture_has_the_parameters_of_its_original(name: str) -> None:
    (*size, channels), classes, total, layers = COUNTS[name]
    model = build_model(CNNS[name], (*size, channels), classes, binary=classes == 2)
    assert model.count_params() == total == sum(layers)


@pytest.mark.parametrize("name", CNNS)
def test_raw_pixels_in_and_probabilities_out(name: str) -> None:
    model = build_model(CNNS[name], (36, 32, 1), 3)
    probabilities = model(
        np.random.default_rng(0).integers(0, 256, (2, 36, 32, 1), dtype=np.uint8), training=False
    )
    assert (model.input.dtype, model.input_shape) == ("uint8", (None, 36, 32, 1))
    assert probabilities.shape == (2, 3)
    assert np.allclose(np.sum(probabilities, axis=1), 1, atol=1e-6)


def kinds(name: str, **kwargs: bool) -> list[tuple]:
    """Return the layers that matter for an original, in order, with the attribute that matters."""
    told = {"Conv2D": "filters", "Dropout": "rate", "Dense": "units", "MaxPooling2D": "pool_size"}
    layers = build_model(CNNS[name], (32, 32, 3), 2, **kwargs).layers
    return [
        (type(one).__name__, getattr(one, told[type(one).__name__]))
        for one in layers
        if type(one).__name__ in told
    ]


def test_the_order_of_layers_is_that_of_the_originals() -> None:
    assert kinds("photo_binary", binary=True) == [
        ("Conv2D", 16), ("MaxPooling2D", (2, 2)), ("Dropout", 0.25), ("Conv2D", 32),
        ("Conv2D", 64), ("Dropout", 0.25),
        ("Dense", 128), ("Dropout", 0.5), ("Dense", 1),
    ]  # fmt: skip
    assert kinds("photo_cnn") == [
        ("Conv2D", 16), ("MaxPooling2D", (2, 2)), ("Conv2D", 32), ("Conv2D", 64),
        ("Dense", 128), ("Dense", 2),
    ]  # fmt: skip
    assert kinds("mnist_mlp") == [("Dense", 128), ("Dense", 2)]


def test_the_table_is_followed() -> None:
    structure = Cnn(
        filters=(3, 5), kernel=5, padding="valid", batch_norm=False, dense=(7, 6), dropout=0.25
    )
    layers = build_model(structure, (40, 40, 1), 2).layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert [(one.filters, one.kernel_size, one.padding) for one in convolutions] == [
        (3, (5, 5), "valid"),
        (5, (5, 5), "valid"),
    ]
    assert [layer.units for layer in layers if isinstance(layer, keras.layers.Dense)] == [7, 6, 2]
    assert [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)] == [0.25]
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    normalized = build_model(
        SMALL.model_copy(update={"batch_norm_momentum": 0.8}), (8, 8, 1), 2
    ).layers
    assert [
        layer.momentum for layer in normalized if isinstance(layer, keras.layers.BatchNormalization)
    ] == [0.8, 0.8]


@pytest.mark.parametrize(
    ("structure", "size", "fits"),
    [
        (Cnn(filters=(4, 4)), (4, 4), True),
        (Cnn(filters=(4, 4)), (3, 64), False),
        (Cnn(filters=(4, 4), padding="valid"), (10, 10), True),
        (Cnn(filters=(4, 4), padding="valid"), (64, 9), False),
        (Cnn(filters=(4, 4), padding="valid", pool=False), (5, 5), True),
        (Cnn(filters=(4, 4), padding="valid", pool=False), (4, 5), False),
        (Cnn(filters=(4, 4), pool=(True, False)), (2, 2), True),
        (Cnn(filters=()), (1, 1), True),
    ],
)
def test_an_image_too_small_for_the_blocks(
    structure: Cnn, size: tuple[int, int], fits: bool
) -> None:
    if fits:
        assert build_model(structure, (*size, 1), 2).output_shape == (None, 2)
    else:
        with pytest.raises(
            UserError,
            match="is too small for 2 blocks of convolution and pooling: set image_size higher",
        ):
            build_model(structure, (*size, 1), 2)


def batch(seed: int = 0) -> np.ndarray:
    """Return activations with a different mean and spread in each channel."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(6, 5, 7, 3)) * [1, 5, 0.1] + [0, 30, -2]).astype(np.float32)


def test_fused_normalisation_is_that_of_keras() -> None:
    fused, plain = (
        FusedBatchNormalization(momentum=0.9),
        keras.layers.BatchNormalization(momentum=0.9),
    )
    for layer in (fused, plain):
        layer.build((None, 5, 7, 3))
        layer.gamma.assign([0.5, 2, 1])
        layer.beta.assign([1, 0, -1])
    for seed in range(3):
        assert np.allclose(
            fused(batch(seed), training=True), plain(batch(seed), training=True), atol=1e-4
        )
    assert np.allclose(fused.moving_mean, plain.moving_mean, rtol=1e-5, atol=1e-6)
    assert np.allclose(fused.moving_variance, plain.moving_variance, rtol=1e-5)
    learnt = [np.array(weight) for weight in fused.weights]
    assert np.allclose(fused(batch(9), training=False), plain(batch(9), training=False), atol=1e-4)
    assert all(np.array_equal(one, other) for one, other in zip(learnt, fused.weights, strict=True))


def test_one_step_of_training_is_equal_with_and_without_the_fused_kernel() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 12, 10, 3), dtype=np.uint8)
    targets = rng.integers(0, 3, 8)
    fused, plain = (build_model(SMALL, (12, 10, 3), 3, fused=choice) for choice in (True, False))
    plain.set_weights(fused.get_weights())
    assert any(isinstance(layer, FusedBatchNormalization) for layer in fused.layers)
    losses = []
    for model in (fused, plain):
        model.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False
        )
        losses.append(model.train_on_batch(pixels, targets))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert [weight.path.split("/")[-1] for weight in fused.weights] == [
        weight.path.split("/")[-1] for weight in plain.weights
    ]
    for one, other in zip(fused.get_weights(), plain.get_weights(), strict=True):
        assert np.allclose(one, other, atol=1e-4)
    assert np.allclose(fused(pixels, training=False), plain(pixels, training=False), atol=1e-4)


def test_one_sigmoid_trains_as_with_binary_cross_entropy() -> None:
    """Take two steps with two columns, and with one sigmoid as the original notebooks have it."""
    rng = np.random.default_rng(0)
    pixels, targets = rng.integers(0, 256, (8, 12, 10, 3), dtype=np.uint8), rng.integers(0, 2, 8)
    weights = rng.uniform(0.5, 2, 8)
    model = build_model(SMALL, (12, 10, 3), 2, binary=True)
    sigmoid = keras.models.clone_model(
        keras.Model(model.inputs, model.get_layer("positive").output)
    )
    sigmoid.set_weights(model.get_weights())
    before = model.get_weights()
    for one, loss in ((model, "sparse_categorical_crossentropy"), (sigmoid, "binary_crossentropy")):
        one.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    for _ in range(2):
        losses = [
            one.train_on_batch(pixels, targets, sample_weight=weights) for one in (model, sigmoid)
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert not any(
        np.allclose(one, other, atol=1e-4)
        for one, other in zip(before[:2], model.get_weights(), strict=False)
    )
    for one, other in zip(model.get_weights(), sigmoid.get_weights(), strict=True):
        assert np.allclose(one, other, atol=1e-3)
    columns = np.array(model(pixels, training=False))
    assert np.allclose(columns[:, 1:], sigmoid(pixels, training=False), atol=1e-3)
    assert np.allclose(columns.sum(axis=1), 1, atol=1e-6)


def test_one_sigmoid_tells_two_classes_apart_and_no_more() -> None:
    with pytest.raises(UserError, match="a sigmoid decides between two classes, received 3"):
        build_model(SMALL, (12, 10, 3), 3, binary=True)


@pytest.mark.parametrize(("classes", "binary"), [(3, False), (2, True)])
def test_the_saved_model_loads_without_our_code(classes: int, binary: bool, tmp_path: Path) -> None:
    """The plain one with the weights of the fused one: every object in it is Keras's own."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 10, 3), dtype=np.uint8)
    fused, plain = (
        build_model(SMALL, (12, 10, 3), classes, fused=choice, binary=binary)
        for choice in (True, False)
    )
    fused(pixels, training=True)  # its normalisation has seen images
    plain.set_weights(fused.get_weights())
    plain.save(tmp_path / "model.keras")
    config = zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()
    assert set(re.findall(r'"registered_name": ([^,}]+)', config)) <= {"null", '"Functional"'}
    assert {module.partition(".")[0] for module in re.findall(r'"module": "([^"]+)"', config)} == {
        "keras"
    }
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.abs(loaded(pixels, training=False) - fused(pixels, training=False)).max() < 1e-5
