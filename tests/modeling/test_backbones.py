"""A backbone takes raw pixels, gets the weights asked for and no others, and is cut where the training begins."""

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

SIZE = (32, 40)
SMALL = {"alpha": 0.25}
HEAD = Head(dropout=0.2, dense=(Dense(units=6, batch_norm=True, dropout=0.3), Dense(units=5)))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


def transfer(**keys: object) -> Transfer:
    return Transfer.model_validate({"backbone": "MobileNet", "options": SMALL, "weights": None, "head": HEAD} | keys)


def build(structure: Transfer, channels: int = 3, binary: bool = False) -> keras.Model:
    keras.utils.set_random_seed(1)
    return backbones.build_transfer(structure, SIZE, channels, 2 if binary else 4, binary)


def pretend_pretrained(file: Path, alpha: float = 0.25) -> Path:
    """Weights of MobileNet without its top, as Keras writes them."""
    keras.utils.set_random_seed(7)
    keras.applications.MobileNet(include_top=False, weights=None, alpha=alpha, input_shape=(*SIZE, 3)).save_weights(file)
    return file


def complaint(structure: Backbone) -> str:
    with pytest.raises(UserError) as caught:
        backbones.load_weights(build(structure), structure, SIZE)
    return str(caught.value)


def test_the_table_holds_every_image_model_of_keras() -> None:
    classes = {name for name, member in vars(keras.applications).items() if callable(member) and name[0].isupper()}
    assert set(BACKBONES) == classes


@pytest.mark.parametrize(("name", "least"), [("VGG16", 32), ("InceptionV3", 75), ("Xception", 71), ("InceptionResNetV2", 75)])
def test_the_least_size_is_that_of_keras(name: str, least: int) -> None:
    assert BACKBONES[name] == least
    with pytest.raises(UserError, match=f"at least {least}x{least}"):
        getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(least - 1, least - 1, 3))


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50", "EfficientNetV2B0"])
def test_raw_pixels_are_prepared_as_in_pretraining(name: str) -> None:
    structure = transfer(backbone=name, options={})
    model = backbones.build_features(structure, "average", SIZE, 3)
    plain = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(*SIZE, 3), pooling="avg")
    plain.set_weights(model.get_weights())
    prepare = {"MobileNet": keras.applications.mobilenet, "ResNet50": keras.applications.resnet50}.get(name)
    prepared = PIXELS.astype(np.float32) if prepare is None else prepare.preprocess_input(PIXELS.astype(np.float32))
    np.testing.assert_allclose(model.predict_on_batch(PIXELS), plain.predict_on_batch(prepared), rtol=1e-4, atol=1e-5)


def test_grey_images_are_taken_as_colours() -> None:
    structure = transfer()
    grey, colours = build(structure, 1), build(structure, 3)
    colours.set_weights(grey.get_weights())
    pixels = PIXELS[..., :1]
    np.testing.assert_allclose(grey.predict_on_batch(pixels), colours.predict_on_batch(np.repeat(pixels, 3, -1)), rtol=1e-5)


def test_a_head_from_parameters() -> None:
    model = build(transfer(head=Head(pooling="flatten", dropout=0.3, dense=(Dense(units=7, dropout=0.2),))))
    kinds = [type(layer).__name__ for layer in model.layers[len(backbones.backbone_layers(model)) :]]
    assert kinds == ["Flatten", "Dropout", "Dense", "Dropout", "Dense"]


def test_the_reference_head_has_as_many_parameters_as_stated() -> None:
    row = ARCHITECTURES["resnet50"].model_copy(update={"weights": None})
    model = backbones.build_transfer(row, SIZE, 3, 4)
    backbones.freeze(model, backbones.position(model, None))
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == 2048 * 256 + 256 + 2 * 256 + 256 * 128 + 128 + 128 * 4 + 4


@pytest.mark.parametrize("start", [None, "conv_pw_13", "conv_dw_11", "conv1"])
def test_both_sides_of_the_cut_make_the_whole(start: str | None) -> None:
    model = build(transfer())
    first = backbones.position(model, start)
    backbones.freeze(model, first)
    below, above = backbones.cut(model, first)
    whole = model.predict_on_batch(PIXELS)
    np.testing.assert_array_equal(above.predict_on_batch(below.predict_on_batch(PIXELS)), whole)
    assert not below.trainable_weights
    assert {id(weight) for weight in above.trainable_weights} == {id(weight) for weight in model.trainable_weights}


def test_the_cut_of_a_residual_network_lies_before_the_shortcut() -> None:
    structure = transfer(backbone="MobileNetV2", options={"alpha": 0.35})
    model = build(structure)
    for start in ("block_14_expand", "block_14_project"):  # the shortcut of block 14 begins where its expansion does
        below, _ = backbones.cut(model, backbones.position(model, start))
        assert below.output is not None and below.layers[-1].name == "block_13_project_BN"


def test_frozen_features_are_cut_behind_the_pooling() -> None:
    model = build(transfer())
    below, above = backbones.cut(model, backbones.position(model, None))
    assert below.output.shape == (None, 256)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in above.layers)


def test_batch_normalisation_of_the_backbone_is_never_trained() -> None:
    model = build(transfer())
    backbones.freeze(model, backbones.position(model, "conv1"))
    trained = [layer for layer in model.layers if layer.trainable_weights]
    normalised = [layer for layer in trained if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(normalised) == 1  # that of the head
    assert any(layer.name == "conv1" for layer in trained)


def test_weights_of_a_file_arrive(tmp_path: Path) -> None:
    file = pretend_pretrained(tmp_path / "small.weights.h5")
    structure = transfer(weights=str(file))
    model = build(structure)
    backbones.load_weights(model, structure, SIZE)
    source = keras.applications.MobileNet(include_top=False, weights=None, alpha=0.25, input_shape=(*SIZE, 3))
    source.load_weights(file)
    for layer in source.layers:
        if layer.weights:
            for mine, theirs in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_the_old_format_of_keras_is_read_too(tmp_path: Path) -> None:
    """The files that Keras downloads are of it."""
    file = tmp_path / "mobilenet_2_5_32_tf_no_top.h5"
    keras.utils.set_random_seed(7)
    source = keras.applications.MobileNet(include_top=False, weights=None, alpha=0.25, input_shape=(*SIZE, 3))
    with h5py.File(file, "w") as target:
        legacy_h5_format.save_weights_to_hdf5_group(target, source)
    structure = transfer(weights=str(file))
    model = build(structure)
    backbones.load_weights(model, structure, SIZE)
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0], source.get_layer("conv1").get_weights()[0])


def test_no_weights_only_when_said() -> None:
    structure = transfer()
    model = build(structure)
    before = model.get_weights()
    backbones.load_weights(model, structure, SIZE)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


def test_a_missing_file_is_named() -> None:
    assert "weights: /nowhere.h5 is no file; expected imagenet, or a file" in complaint(transfer(weights="/nowhere.h5"))


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    file = pretend_pretrained(tmp_path / "wide.weights.h5", alpha=0.5)
    message = complaint(transfer(weights=str(file)))
    assert message.startswith(f"weights: {file} does not fit MobileNet {{'alpha': 0.25}} without its top")
    assert "shape" in message


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    file = pretend_pretrained(tmp_path / "other.weights.h5")
    message = complaint(transfer(backbone="MobileNetV2", options={"alpha": 0.35}, weights=str(file)))
    assert "does not fit MobileNetV2" in message and "it holds 135 arrays" in message and "expected 260" in message


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "text", "truncated"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = pretend_pretrained(tmp_path / "small.weights.h5")
    file.write_bytes(file.read_bytes()[:-5000] if content is None else content)
    assert f"weights: {file} does not fit" in complaint(transfer(weights=str(file)))


def test_no_network_says_what_to_fetch_and_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = complaint(transfer(weights="imagenet", options={"alpha": 0.5}))
    assert "weights: the ImageNet weights of MobileNet could not be downloaded" in message
    assert "mobilenet_5_0_224_tf_no_top.h5" in message and f"put it into {tmp_path}/models" in message
    assert "weights: null" in message


def refuse(*_: object) -> None:
    raise urllib.error.URLError("no route to host")


def test_a_misspelt_layer_is_named_with_its_neighbours() -> None:
    model = build(transfer())
    with pytest.raises(UserError, match="has no layer 'conv_pw13'; did you mean conv_pw_13"):
        backbones.position(model, "conv_pw13")


def test_options_that_the_backbone_does_not_take() -> None:
    with pytest.raises(UserError, match="options: VGG16 does not take {'alpha': 0.5}"):
        build(transfer(backbone="VGG16", options={"alpha": 0.5}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_that_of_the_model_built_meanwhile(precision: str) -> None:
    before = keras.config.dtype_policy().name
    with backbones.precision(precision):
        model = build(transfer())
    assert keras.config.dtype_policy().name == before
    assert model.get_layer("conv1").compute_dtype == precision
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
