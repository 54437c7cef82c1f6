"""A backbone takes raw pixels, gets exactly the wanted weights, and is cut below the training."""

import urllib.error
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format  # no public name

from tasks.errors import UserError
from tasks.modeling import backbones
from tasks.params.architectures import ARCHITECTURES, BACKBONES, Backbone, Dense, Head, Transfer

pytestmark = pytest.mark.slow

SIZE = (32, 40)
SMALL = {"alpha": 0.25}
HEAD = Head(dropout=0.2, dense=(Dense(units=6, batch_norm=True, dropout=0.3), Dense(units=5)))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


def transfer(**keys: object) -> Transfer:
    return Transfer.model_validate(
        {"backbone": "MobileNet", "options": SMALL, "weights": None, "head": HEAD} | keys
    )


def build(structure: Transfer, size: tuple[int, int] = SIZE) -> keras.Model:
    keras.utils.set_random_seed(1)
    return backbones.build_transfer(structure, (*size, 3), 4)


def applied(alpha: float = 0.25) -> keras.Model:
    """MobileNet without its top, as Keras makes it."""
    keras.utils.set_random_seed(7)
    return keras.applications.MobileNet(
        include_top=False, weights=None, alpha=alpha, input_shape=(*SIZE, 3)
    )


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Build a small MobileNet with `HEAD`. Tests may change only its frozen layers."""
    return build(transfer())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """Build a backbone and write its weights to a file."""
    source, file = applied(), tmp_path_factory.mktemp("weights") / "small.weights.h5"
    source.save_weights(file)
    return source, file


def complaint(model: keras.Model, structure: Backbone) -> str:
    with pytest.raises(UserError) as caught:
        backbones.load_weights(model, structure, SIZE)
    return str(caught.value)


def test_the_table_holds_every_image_model_of_keras() -> None:
    classes = {
        name
        for name, member in vars(keras.applications).items()
        if callable(member) and name[0].isupper()
    }
    assert set(BACKBONES) == classes


@pytest.mark.parametrize(
    ("name", "least"),
    [("VGG16", 32), ("InceptionV3", 75), ("Xception", 71), ("InceptionResNetV2", 75)],
)
def test_the_least_size_is_that_of_keras(name: str, least: int) -> None:
    assert BACKBONES[name] == least
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=(least - 1, least - 1, 3)
        )


@pytest.mark.parametrize(
    ("backbone", "options", "first", "channels"),
    [
        ("MobileNet", SMALL, "conv1", 1),
        ("VGG16", {}, "block1_conv1", 3),
        ("MobileNetV3Small", {"alpha": 0.75}, "conv", 3),
    ],
)
def test_raw_pixels_reach_the_first_layer_as_in_pretraining(
    backbone: str, options: dict, first: str, channels: int
) -> None:
    """Cover scaling to -1 to 1, subtraction of mean colours, and scaling in the network."""
    model = backbones.build_features(
        transfer(backbone=backbone, options=options), "average", (*SIZE, channels)
    )
    prepared = keras.Model(model.input, model.get_layer(first).input)(
        PIXELS[..., :channels], training=False
    )
    colours = np.repeat(PIXELS[..., :1], 3, -1) if channels == 1 else PIXELS
    expected = (
        colours[..., ::-1] - np.array([103.939, 116.779, 123.68])
        if backbone == "VGG16"
        else colours / 127.5 - 1
    )
    np.testing.assert_allclose(prepared, expected, rtol=1e-4, atol=1e-5)


def test_the_reference_head_is_built_layer_by_layer() -> None:
    """Of the 256 features of the small MobileNet, where ResNet50 has 2,048."""
    row = ARCHITECTURES["resnet50"].model_copy(
        update={"weights": None, "backbone": "MobileNet", "options": SMALL}
    )
    model = build(row)
    kinds = [
        type(layer).__name__ for layer in model.layers[len(backbones.list_backbone_layers(model)) :]
    ]
    assert kinds == [
        "GlobalAveragePooling2D",
        "Dense",
        "BatchNormalization",
        "Dropout",
        "Dense",
        "Dropout",
        "Dense",
    ]
    backbones.freeze(model, backbones.find_layer(model, None))
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == 256 * 256 + 256 + 2 * 256 + 256 * 128 + 128 + 128 * 4 + 4


@pytest.mark.parametrize("start", [None, "conv_dw_11", "conv1"])
def test_both_sides_of_the_cut_make_the_whole(start: str | None, model: keras.Model) -> None:
    first = backbones.find_layer(model, start)
    backbones.freeze(model, first)
    below, above = backbones.cut(model, first)
    whole = model(PIXELS, training=False)
    np.testing.assert_array_equal(above(below(PIXELS, training=False), training=False), whole)
    assert not below.trainable_weights
    assert {id(weight) for weight in above.trainable_weights} == {
        id(weight) for weight in model.trainable_weights
    }
    if start is None:
        assert below.output.shape == (
            None,
            256,
        )  # behind the pooling, before the dropout of the head
        assert any(isinstance(layer, keras.layers.Dropout) for layer in above.layers)


def test_the_cut_of_a_residual_network_lies_before_the_shortcut() -> None:
    structure = transfer(backbone="MobileNetV2", options={"alpha": 0.35})
    model = build(structure)
    for start in (
        "block_14_expand",
        "block_14_project",
    ):  # the shortcut of block 14 begins where its expansion does
        below, _ = backbones.cut(model, backbones.find_layer(model, start))
        assert below.layers[-1].name == "block_13_project_BN"


@pytest.mark.parametrize(
    ("backbone", "start", "below", "trained"),
    [
        ("VGG16", "block5_conv1", "block4_pool", ["block5_conv1", "block5_conv2", "block5_conv3"]),
        ("MobileNet", "conv_dw_13", "conv_pw_12_relu", ["conv_dw_13", "conv_pw_13"]),
    ],
)
def test_what_lies_below_the_cut_is_frozen_and_the_rest_is_trained(
    backbone: str, start: str, below: str, trained: list[str], model: keras.Model
) -> None:
    """Batch normalisation of the backbone stays pretrained; that of the head is trained."""
    cut = model if backbone == "MobileNet" else build(transfer(backbone=backbone, options={}))
    first = backbones.find_layer(cut, start)
    backbones.freeze(cut, first)
    head = [
        layer.name
        for layer in cut.layers[len(backbones.list_backbone_layers(cut)) :]
        if layer.weights
    ]
    assert [layer.name for layer in cut.layers if layer.trainable_weights] == [*trained, *head]
    assert any(name.startswith("batch_normalization") for name in head)
    assert backbones.cut(cut, first)[0].layers[-1].name == below


def test_inception_is_cut_before_its_branches() -> None:
    """What `mixed9` joins begins at `mixed8`, on four branches whose layers Keras only numbers."""
    model = build(transfer(backbone="InceptionV3", options={}), (75, 75))
    names = [layer.name for layer in model.layers]
    first = backbones.find_layer(model, names[names.index("mixed8") + 1])
    backbones.freeze(model, first)
    below, _ = backbones.cut(model, first)
    assert below.layers[-1].name == "mixed8"
    trained = [layer for layer in backbones.list_backbone_layers(model) if layer.trainable_weights]
    assert len(trained) == 2 * 9  # convolutions of the last two blocks
    assert all(isinstance(layer, keras.layers.Conv2D) for layer in trained)


def test_weights_of_a_file_arrive(pretrained: tuple[keras.Model, Path]) -> None:
    """And none where none are asked for."""
    source, file = pretrained
    model = build(transfer())
    before = model.get_weights()
    backbones.load_weights(model, transfer(), SIZE)
    assert all(
        np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True)
    )
    backbones.load_weights(model, transfer(weights=str(file)), SIZE)
    for layer in source.layers:
        if layer.weights:
            for mine, theirs in zip(
                model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)


def test_the_old_format_of_keras_is_read_too(
    pretrained: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    """The files that Keras downloads are of it."""
    source, file = pretrained[0], tmp_path / "mobilenet_2_5_32_tf_no_top.h5"
    with h5py.File(file, "w") as target:
        legacy_h5_format.save_weights_to_hdf5_group(target, source)
    structure = transfer(weights=str(file))
    model = build(structure)
    backbones.load_weights(model, structure, SIZE)
    np.testing.assert_array_equal(
        model.get_layer("conv1").get_weights()[0], source.get_layer("conv1").get_weights()[0]
    )


def test_a_missing_file_is_named(model: keras.Model) -> None:
    told = complaint(model, transfer(weights="/nowhere.h5"))
    assert "weights: /nowhere.h5 is not a file; expected imagenet, or a file" in told


def test_weights_of_another_width_or_backbone_are_refused(
    model: keras.Model, pretrained: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    wide = tmp_path / "wide.weights.h5"
    applied(alpha=0.5).save_weights(wide)
    message = complaint(model, transfer(weights=str(wide)))
    assert message.startswith(
        f"weights: {wide} does not fit MobileNet {{'alpha': 0.25}} without its top"
    )
    assert "shape" in message
    message = complaint(
        model, transfer(backbone="MobileNetV2", options={"alpha": 0.35}, weights=str(pretrained[1]))
    )
    assert (
        "does not fit MobileNetV2" in message
        and "it contains 135 arrays" in message
        and "expected 260" in message
    )


@pytest.mark.parametrize("content", [b"no weights", None], ids=["text", "truncated"])
def test_a_damaged_file_is_refused(
    content: bytes | None, model: keras.Model, pretrained: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    file = tmp_path / "small.weights.h5"
    file.write_bytes(content or pretrained[1].read_bytes()[:-5000])
    assert f"weights: {file} does not fit" in complaint(model, transfer(weights=str(file)))


def test_no_network_says_what_to_fetch_and_where_to_put_it(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = complaint(model, transfer(weights="imagenet", options={"alpha": 0.5}))
    assert "weights: the ImageNet weights of MobileNet could not be downloaded" in message
    assert (
        "mobilenet_5_0_224_tf_no_top.h5" in message and f"put it into {tmp_path}/models" in message
    )
    assert "weights: null" in message


def refuse(*_: object) -> None:
    raise urllib.error.URLError("no route to host")


def test_a_misspelt_layer_is_named_with_its_neighbours(model: keras.Model) -> None:
    with pytest.raises(UserError, match="has no layer 'conv_pw13'; did you mean conv_pw_13"):
        backbones.find_layer(model, "conv_pw13")


def test_options_that_the_backbone_does_not_take() -> None:
    with pytest.raises(UserError, match="options: VGG16 does not take {'alpha': 0.5}"):
        build(transfer(backbone="VGG16", options={"alpha": 0.5}))


def test_half_precision_is_that_of_the_model_built_meanwhile() -> None:
    before = keras.config.dtype_policy().name
    with backbones.use_precision("bfloat16"):
        model = build(transfer())
    assert keras.config.dtype_policy().name == before
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
