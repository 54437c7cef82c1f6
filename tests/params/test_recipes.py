"""Each recipe gives a whole params file and trains as its original says."""

import runpy
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from tasks.errors import UserError
from tasks.params import recipe
from tasks.params.architectures import ARCHITECTURES
from tasks.params.augmentation import AUGMENTATIONS, Augmentation
from tasks.params.whole import Params, load_params
from tests.support import ROOT

RECIPES = ROOT / "recipes"
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
    "demo": TUMOURS,
    "digits": list("0123456789"),
    "inception": ["cat", "dog"],
    "photo_ablation": KINDS,
    "photo_filter": KINDS,
}

BASE = """
# About the base.

first:               # of the first
  kept: 1            # how many
  # Of the next.
  changed: {a: 1}    # beside
  replaced: 3        # of the base
  long: null         # a text
  deep:
    under: 1

second: {}           # of the second
third: {a: 1}
"""
CHANGES = """# About the recipe,
#
# and why.
first:
  replaced: [4]      # of the recipe
  changed: {b: 2}

  long: A text that leaves no room
  deep:

    # Of the new one.
    new: |
      # no comment

      at all
    under: null
second:
  one:               # of one
    a: 1
"""
WRITTEN = """# About the recipe,
#
# and why.

first:               # of the first
  kept: 1            # how many
  # Of the next.
  changed: {b: 2}    # beside
  replaced: [4]      # of the recipe
  # a text
  long: A text that leaves no room
  deep:
    under: null
    # Of the new one.
    new: |
      # no comment

      at all

second:              # of the second
  one:               # of one
    a: 1

third: {a: 1}
"""


@cache
def render(name: str) -> str:
    return recipe.render(name, RECIPES)


@cache
def load_recipe(name: str) -> Params:
    """Return the params that a recipe writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(render(name))
        return load_params(path)


def read(text: str | Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)


def test_every_recipe_is_known_here() -> None:
    assert recipe.list_recipes(RECIPES) == sorted(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_questions_of_a_recipe_fit_its_folders(name: str) -> None:
    for key, architecture in load_recipe(name).architectures.items():
        assert len(architecture.question.classes(FOLDERS[name])) >= 2, key


@pytest.mark.parametrize("name", FOLDERS)
def test_a_recipe_has_every_section_and_changes_only_its_own_keys(name: str) -> None:
    base = YAML(typ="rt").load(RECIPES / "base.yaml")
    changes, written = read(RECIPES / f"{name}.yaml"), read(render(name))
    assert set(written) == {field.alias or key for key, field in Params.model_fields.items()}
    assert written == lay(base, changes)
    whole = [section for section in ("architectures", "ensembles", "tune") if section in changes]
    assert all(written[section] == changes[section] for section in whole)


def lay(base: CommentedMap, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the expected params. A mapping in braces in the base is one value."""
    spread = [
        key
        for key in changes
        if isinstance(base.get(key), CommentedMap) and not base[key].fa.flow_style()
    ]
    return dict(base) | changes | {key: lay(base[key], changes[key]) for key in spread}


def test_a_new_key_of_the_base_is_in_every_recipe(tmp_path: Path) -> None:
    folder = shutil.copytree(RECIPES, tmp_path / "recipes")
    text = (folder / "base.yaml").read_text()
    text = text.replace("\ntrain:", "\nnew: {key: 1}\n\ntrain:").replace(
        "\n  epochs:", "\n  more: 2  # why\n  epochs:"
    )
    (folder / "base.yaml").write_text(text)
    for name in FOLDERS:
        written = recipe.render(name, folder)
        assert (
            "\n\nnew: {key: 1}\n\ntrain:" in written and "\n  more: 2  # why\n  epochs:" in written
        )
        gained = read(written)
        assert gained.pop("new") == {"key": 1} and gained["train"].pop("more") == 2
        assert gained == read(render(name))


def render_toy(folder: Path, changes: str) -> str:
    (folder / "base.yaml").write_text(BASE)
    (folder / "toy.yaml").write_text(changes)
    return recipe.render("toy", folder)


def test_comments_stay_with_their_keys(tmp_path: Path) -> None:
    assert render_toy(tmp_path, CHANGES) == WRITTEN


def test_braces_over_keys_of_the_base_are_refused(tmp_path: Path) -> None:
    """They would replace all keys of the base."""
    with pytest.raises(
        UserError,
        match=r"toy.yaml: first.deep: expected one key a line.* received deep: \{new: 1\}",
    ):
        render_toy(tmp_path, "first:\n  deep: {new: 1}  # why\n")


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(
        UserError,
        match=r"unknown recipe 'digit'; did you mean digits\? known are brain_mri, .*, photo_fi",
    ):
        recipe.render("digit", RECIPES)


def test_edits_are_overwritten_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "demo", "digits"):
        (tmp_path / "recipes").mkdir(exist_ok=True)
        shutil.copy(RECIPES / f"{name}.yaml", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    params = Path("params.yaml")

    def write(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["recipe", *words])
        runpy.run_path(recipe.__file__, run_name="__main__")
        return params.read_text()

    assert write("digits") == render("digits")
    assert write("demo") == render("demo")  # no edits are lost
    for edit in ("one", "another"):
        params.write_text(f"# my {edit}\n")
        with pytest.raises(
            SystemExit,
            match="has edits that are not committed.* make recipe NAME=digits ARGS=--force",
        ):
            write("digits")
        assert params.read_text() == f"# my {edit}\n"
        git("init", "--quiet")  # a repository without the commit changes nothing
    git("add", "params.yaml")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "mine")
    assert write("digits") == render("digits")
    params.write_text("# my own\n")
    assert write("demo", "--force") == render("demo")


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def test_every_architecture_of_the_table_has_a_recipe() -> None:
    """Except three that no original has: any backbone, and classifiers on its features."""
    used = [
        architecture.structure
        for name in FOLDERS
        for architecture in load_recipe(name).architectures.values()
    ]
    without = {name for name, row in ARCHITECTURES.items() if row not in used}
    assert without == {"transfer", "linear_features", "svm_features"}


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    sections = {
        key: one.model_dump() for key, one in load_recipe("photo_ablation").architectures.items()
    }
    base = sections.pop("base")
    changed = {
        key: {
            name
            for part in ("structure", "train")
            for name, value in one[part].items()
            if value != base[part][name]
        }
        for key, one in sections.items()
    }
    assert changed == {
        "augmentation_alone": {"augmentation"},
        "dropout_alone": {"block_dropout", "dropout"},
        "early_stopping_alone": {"early_stopping", "epochs"},
        "all_together": {
            "augmentation",
            "block_dropout",
            "dropout",
            "early_stopping",
            "epochs",
            "dense",
            "learning_rate",
        },
    }


def test_the_recipes_train_as_the_originals_say() -> None:
    """Optimizer, learning rate, epochs, batch size and image size are those of the originals."""
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
        train = load_recipe(name).architectures[key].train
        settings = (
            train.optimizer,
            train.learning_rate,
            train.epochs,
            train.batch_size,
            train.image_size,
        )
        assert settings == (optimizer, rate, epochs, batch, (side, side)), key


def test_every_named_augmentation_has_a_recipe() -> None:
    used = [
        architecture.train.augmentation
        for name in FOLDERS
        for architecture in load_recipe(name).architectures.values()
    ]
    assert all(Augmentation.model_validate(name) in used for name in AUGMENTATIONS)
