"""Every params file has all sections, loads, asks of class folders that exist, and builds the networks of its original."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.modeling.layers import build_model
from tasks.params.architectures import ARCHITECTURES, Cnn
from tasks.params.augmentation import AUGMENTATIONS, Augmentation
from tasks.params.whole import Params, load_params
from tests.support import ROOT

# The class folders of the images that each recipe is for.
TUMOURS = ["glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"]
KINDS = ["painting", "photo", "schematic", "sketch", "text"]
FOLDERS = {
    "brain_mri": TUMOURS,
    "brain_mri_best": TUMOURS,
    "brain_mri_plain": TUMOURS,
    "brain_mri_resnet50": TUMOURS,
    "brain_mri_vgg16": TUMOURS,
    "cats_dogs": ["cat", "dog"],
    "digits": list("0123456789"),
    "inception": ["cat", "dog"],
    "params": TUMOURS,  # the file of the project
    "photo_ablation": KINDS,
    "photo_filter": KINDS,
}


OPTIONAL = {"tune"}  # no stage reads it


def recipe(name: str) -> Path:
    return ROOT / "params.yaml" if name == "params" else ROOT / f"recipes/{name}.yaml"


def test_every_recipe_is_known_here() -> None:
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} == set(FOLDERS) - {"params"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_recipe_has_every_section(name: str) -> None:
    """DVC asks for those that `dvc.yaml` names; keys may be left out."""
    given = YAML(typ="safe", pure=True).load(recipe(name))
    assert set(given) | OPTIONAL == {field.alias or key for key, field in Params.model_fields.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_networks_of_a_recipe_answer_its_questions(name: str) -> None:
    for key, architecture in load_params(recipe(name)).architectures.items():
        classes = architecture.question.classes(FOLDERS[name])
        assert len(classes) >= 2
        if isinstance(architecture.structure, Cnn):
            train, binary = architecture.train, architecture.question.positive is not None
            model = build_model(architecture.structure, train.image_size, train.channels, len(classes), fused=True, binary=binary)
            assert model.output_shape == (None, len(classes)), key


def test_every_architecture_of_the_table_has_a_recipe() -> None:
    """But for those that no original has: a backbone of one's own choice, and classifiers on its features."""
    used = [architecture.structure for name in FOLDERS for architecture in load_params(recipe(name)).architectures.values()]
    without = {name for name, row in ARCHITECTURES.items() if row not in used}
    assert without == {"transfer", "linear_features", "svm_features"}


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    sections = {key: one.model_dump() for key, one in load_params(recipe("photo_ablation")).architectures.items()}
    base = sections.pop("base")
    changed = {
        key: {name for part in ("structure", "train") for name, value in one[part].items() if value != base[part][name]}
        for key, one in sections.items()
    }
    assert changed == {
        "augmentation_alone": {"augmentation"},
        "dropout_alone": {"block_dropout", "dropout"},
        "early_stopping_alone": {"early_stopping", "epochs"},
        "all_together": {"augmentation", "block_dropout", "dropout", "early_stopping", "epochs", "dense", "learning_rate"},
    }


def test_the_recipes_train_as_the_originals_say() -> None:
    """Optimizer, rate, epochs, batch and size that the originals state."""
    stated = {
        ("brain_mri_resnet50", "cnn_a"): ("adam", 1e-4, 15, 32, 224),
        ("brain_mri_resnet50", "cnn_b"): ("adam", 1e-4, 15, 64, 224),
        ("brain_mri_resnet50", "cnn_c"): ("adam", 1e-4, 15, 32, 224),
        ("brain_mri_resnet50", "resnet50"): ("adam", 1e-4, 15, 32, 224),
        ("brain_mri_plain", "plain_cnn"): ("adam", 1e-3, 20, 32, 224),
        ("photo_filter", "photo_cnn_dropout"): ("adam", 1e-3, 10, 16, 128),
        ("photo_filter", "photo_binary"): ("adam", 1e-3, 10, 16, 128),
        ("cats_dogs", "binary_cnn"): ("adam", 1e-3, 25, 32, 64),
    }
    for (name, key), (optimizer, rate, epochs, batch, side) in stated.items():
        train = load_params(recipe(name)).architectures[key].train
        settings = (train.optimizer, train.learning_rate, train.epochs, train.batch_size, train.image_size)
        assert settings == (optimizer, rate, epochs, batch, (side, side)), key


def test_every_named_augmentation_has_a_recipe() -> None:
    used = [
        architecture.train.augmentation for name in FOLDERS for architecture in load_params(recipe(name)).architectures.values()
    ]
    assert all(Augmentation.model_validate(name) in used for name in AUGMENTATIONS)
