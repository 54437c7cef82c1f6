"""A folder with one possible layout is read; any other is refused with a remedy, never guessed."""

import unicodedata
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.params.validate import Validate
from tasks.quality.folder_names import find_split, read_label
from tasks.quality.layout import FolderLayout
from tasks.quality.read_layout import read_foreign_layout, read_layout

AS_FOUND = Validate()
BY_NAME = Validate(label_from="name")
PARTS = {"training": ["train"], "test": ["test"]}
BY_NAME_IN_PARTS = Validate.model_validate({"label_from": "name", "layout": {"parts": PARTS}})
CLASSES = ("cat", "dog")


def make(root: Path, *folders: str, same: str = "") -> Path:
    """Write six different files into each folder, or by a pattern of names such as `{}.jpg`."""
    for folder in folders:
        pattern = folder if "{}" in folder else f"{folder}/{{}}.jpg"
        for number in range(6):
            path = root / pattern.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{same or folder} {number}")
    return root


def layout(**settings: object) -> Validate:
    return Validate.model_validate({"layout": settings})


def places(root: Path, settings: Validate = AS_FOUND) -> dict[str, str]:
    """Return {split/class: number of images}; the split is training if there are no splits."""
    found = read_layout(root, settings)
    return {
        f"{split or 'training'}/{label}": number for (split, label), number in found.counts.items()
    }


def both(*splits: str) -> dict[str, int]:
    return {f"{split}/{label}": 6 for split in splits for label in CLASSES}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["cat", "dog"], both("training")),
        (["cat/2019", "cat/2020", "dog/2019"], {"training/cat": 12, "training/dog": 6}),
        (["Training/cat", "Training/dog", "Testing/cat", "Testing/dog"], both("training", "test")),
        (
            ["training_set/cat", "training_set/dog", "test_set/cat", "test_set/dog"],
            both("training", "test"),
        ),
        (
            ["trainImages/cat", "trainImages/dog", "val2017/cat", "val2017/dog"],
            both("training", "validation"),
        ),
        (
            ["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_pred/seg_pred"],
            both("training"),
        ),
        (["data/archive/cat", "data/archive/dog"], both("training")),
        (
            ["set/train/cat", "set/train/dog", "set/valid/cat", "set/valid/dog"],
            both("training", "validation"),
        ),
        (["train/cat", "train/dog", "test"], both("training")),
        (["train/cat", "train/dog", "test/unknown"], both("training")),
        (
            ["train/images/cat", "train/images/dog", "test/images/cat", "test/images/dog"],
            both("training", "test"),
        ),
        (["cat", "dog", "test/cat", "test/dog"], both("training", "test")),
        (["car", "train", "bus"], {"training/bus": 6, "training/car": 6, "training/train": 6}),
        (
            ["test", "val", "control"],
            {"training/control": 6, "training/test": 6, "training/val": 6},
        ),
        (["data/train/cat", "data/train/dog", "LICENSE{}", "cover_{}.jpg"], both("training")),
        (
            [
                "cat",
                "dog",
                "notes/{}.txt",
                ".ipynb_checkpoints",
                "__MACOSX/cat",
                "dog/.git",
                "$RECYCLE.BIN",
            ],
            both("training"),
        ),
    ],
)
def test_a_clear_layout_is_read(
    tmp_path: Path, folders: list[str], expected: dict[str, int]
) -> None:
    assert places(make(tmp_path, *folders)) == expected


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["train", "valid", "test"], "train, valid hold images without class folders"),
        (
            ["train/images", "train/labels/{}.txt", "val/images"],
            "hold images without class folders",
        ),
        (["cat", "dog", "all/cat", "all/dog"], "all holds the folders cat, dog, which"),
        (
            ["train/cat", "test/cat", "set/train/cat", "set/test/cat"],
            "set holds the folders test, train, which are also beside it",
        ),
        (
            ["site_a/yes", "site_a/no", "site_b/yes", "site_b/no"],
            "can be read in more than one way",
        ),
        (
            ["trainval/x", "trainval/y", "test/x", "test/y"],
            r"layout: \{parts: \{\}, depth: 1\}   if x, y are the classes",
        ),
        (
            ["a/train/cat", "a/train/dog", "b/train/cat"],
            r"layout: \{parts: \{\}, depth: 2\}   if cat, dog are the classes",
        ),
        (
            ["archive/A/cat", "archive/A/dog", "archive/B/cat"],
            r"training: \[archive/A\].*\n.*depth: 2\}   if cat, dog",
        ),
        (
            ["train/A/cat", "train/B/cat", "test/A/cat"],
            r"in train/, A, B hold folders of the same names (.|\n)*depth: 1\}",
        ),
        (
            ["cat/train", "cat/test", "dog/train", "dog/test"],
            "expected the splits above the classes, as in test/cat/",
        ),
        (["fold_1/0", "fold_1/1", "fold_2/0", "fold_2/1"], "can be read in more than one way"),
        (
            ["COVID/images", "COVID/masks", "Normal/images", "Normal/masks"],
            "can be read in more than one way",
        ),
        (["train/cat", "train/dog", "extra/cat", "extra/dog"], "can be read in more than one way"),
        (["cat", "dog", "test"], r"parts: \{test: \[test\]\}.* leaves its images\s+aside"),
        (["test/cat", "test/dog", "val/cat", "val/dog"], "no folder is named like training"),
        (
            ["cat.{}.jpg", "dog.{}.jpg"],
            r"The names say cat \(6\), dog \(6\): set validate.label_from: name",
        ),
        (["{}.jpg"], "Expected a folder for each class"),
        (["photos\\cat\\{}.jpg"], "the names hold backslashes"),
        (["images_{}.zip"], "unpack it"),
        (["Cat", "cat", "dog"], "'Cat' and 'cat'"),
        (["dog", "dog ", "cat"], "'dog' and 'dog '"),
        (
            [unicodedata.normalize("NFC", "Bär"), unicodedata.normalize("NFD", "Bär")],
            "coding of letters",
        ),
    ],
)
def test_an_unclear_layout_is_refused_with_what_to_do(
    tmp_path: Path, folders: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        places(make(tmp_path, *folders))


@pytest.mark.parametrize(
    ("folders", "settings", "expected"),
    [
        (
            ["site_a/cat", "site_a/dog", "site_b/cat"],
            layout(depth=1),
            {"training/cat": 12, "training/dog": 6},
        ),
        (["site_a/x", "site_b/x"], layout(depth=0), {"training/site_a": 6, "training/site_b": 6}),
        (
            ["train/A/cat", "train/B/cat", "test/A/cat"],
            layout(depth=1),
            {"test/cat": 6, "training/cat": 12},
        ),
        (
            ["train/2019", "bus/2019"],
            layout(parts={}, depth=0),
            {"training/bus": 6, "training/train": 6},
        ),
        (
            ["a/cat", "a/dog", "b/cat", "b/dog", "c/cat"],
            layout(parts={"training": ["a"], "test": ["b"]}),
            both("training", "test"),
        ),
        (
            ["cat", "dog", "test"],
            layout(parts={}),
            {"training/cat": 6, "training/dog": 6, "training/test": 6},
        ),
        (["cat", "dog", "test"], layout(parts={"test": ["test"]}), both("training")),
        (["Cat", "cat"], layout(similar_names="keep"), {"training/Cat": 6, "training/cat": 6}),
        (
            ["train/cat.{}.jpg", "train/dog.{}.jpg", "test/cat.{}.jpg", "test/dog.{}.jpg"],
            BY_NAME,
            both("training", "test"),
        ),
        (["train/cat.{}.jpg", "train/dog.{}.jpg", "test1/{}.jpg"], BY_NAME, both("training")),
        (["train/cat.{}.jpg", "test/a/cat.{}.jpg"], BY_NAME, {"test/cat": 6, "training/cat": 6}),
        (
            ["train/cat.{}.jpg", "test/cat.{}.jpg"],
            BY_NAME_IN_PARTS,
            {"test/cat": 6, "training/cat": 6},
        ),
        (["cat.{}.jpg", "dog ({}).png"], BY_NAME, both("training")),
    ],
)
def test_a_setting_chooses(
    tmp_path: Path, folders: list[str], settings: Validate, expected: dict[str, int]
) -> None:
    assert places(make(tmp_path, *folders), settings) == expected


@pytest.mark.parametrize("settings", [BY_NAME, layout(depth=3)])
def test_images_without_any_class_are_refused(tmp_path: Path, settings: Validate) -> None:
    with pytest.raises(UserError, match="no image has a class: expected .*<class>"):
        places(make(tmp_path, "cat/{}.jpg", "dog/{}.jpg"), settings)


def test_a_foreign_folder_is_never_refused(tmp_path: Path) -> None:
    assert read_foreign_layout(make(tmp_path, "val/cat", "test/cat")).splits == {
        "test": "test",
        "val": "validation",
    }
    assert read_foreign_layout(make(tmp_path / "sites", "a/cat", "b/cat")).splits == {"": ""}


def test_a_missing_folder_of_the_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder tests with images; the folders are cat, dog"):
        places(make(tmp_path, "cat", "dog"), layout(parts={"test": ["tests"]}))


def test_a_class_of_copies_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "cat", "dog")
    make(tmp_path, "mixed", same="cat")
    with pytest.raises(
        UserError, match=r"every file of cat \(6\), mixed \(6\) is also a file of another class"
    ):
        places(tmp_path)


def test_the_notes_name_what_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "train/cat", "train/dog", "test", "__MACOSX", "train/cat/.DS_Store_{}")
    (tmp_path / "train/bird").mkdir()
    found = read_layout(tmp_path, Validate())
    assert found.notes == (
        "splits: train → training",
        "test is left aside: its images (6) have no class; "
        "`python -m serving.predict data/raw/test` predicts them",
        "left out, because they hold no image: bird",
        "hidden or junk, left out: .DS_Store_0, .DS_Store_1, .DS_Store_2, .DS_Store_3, "
        ".DS_Store_4, .DS_Store_5, __MACOSX",
    )
    assert found.counts == {("training", "cat"): 6, ("training", "dog"): 6}
    assert found.is_aside("test/1.jpg") and not found.is_aside("train/cat/1.jpg")


def test_a_file_in_no_class_folder_has_no_class() -> None:
    found = FolderLayout({"train": "training"}, depth=1)
    assert found.find_place("train/images/cat/1.jpg") == ("training", "cat")
    assert found.find_place("train/cat.jpg") == ("training", "")
    assert found.find_place("readme.jpg") == ("", "")
    assert found.expected == "expected <part>/<folder>/<class>/<file>"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("TRAIN", "training"),
        ("Seg_Train", "training"),
        ("trainingset", "training"),
        ("01-train (2)", "training"),
        ("validation", "validation"),
        ("ValImages", "validation"),
        ("holdout", "test"),
        ("test2017", "test"),
        ("trainval", None),
        ("train_test_split", None),
        ("contest", None),
        ("restraint", None),
        ("cat", None),
    ],
)
def test_splits_by_name(name: str, split: str | None) -> None:
    assert find_split(name) == split


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.12.jpg", "cat"),
        ("cat (12).png", "cat"),
        ("american_bulldog_10.jpg", "american_bulldog"),
        ("dog7.jpg", "dog"),
        ("dog.jpg", "dog"),
        ("0001.jpg", ""),
        ("frame_01_02.png", "frame_01"),
    ],
)
def test_labels_by_name(name: str, label: str) -> None:
    assert read_label(name) == label
