"""Folders map to classes by name or by a file. All others are listed, with a file to start from."""

from pathlib import Path

import pytest

from tasks.assessment.class_mapping import map_folders, read_classes, suggest
from tasks.errors import UserError

CLASSES = ["01", "NA", "no_tumor", "tumeur née"]


def read(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "classes.yaml").write_text(text)
    return read_classes(tmp_path / "classes.yaml")


def refused(folders: list[str], said: dict[str, str]) -> str:
    with pytest.raises(UserError) as error:
        map_folders(dict.fromkeys(folders, 1234), said, CLASSES, Path("/scans"))
    return str(error.value)


def test_names_are_never_numbers_or_nothing(tmp_path: Path) -> None:
    said = read(tmp_path, '01: NA\nno: 01\nNull: null\n"a: b # c": no_tumor\nyes: ~\nleft:\n')
    assert said == {
        "01": "NA",
        "no": "01",
        "Null": "null",
        "a: b # c": "no_tumor",
        "yes": "~",
        "left": "",
    }
    folders = dict.fromkeys([*said, "tumeur née"], 1)
    assert map_folders(folders, said, CLASSES, Path("x")) == {
        "01": "NA", "no": "01", "Null": None, "a: b # c": "no_tumor", "yes": None, "left": None,
        "tumeur née": "tumeur née",
    }  # fmt: skip


def test_a_class_may_be_called_null() -> None:
    assert map_folders({"a": 1}, {"a": "null"}, ["null", "b"], Path("x")) == {"a": "null"}


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("No Tumor", "no_tumor"),
        ("notumor", "no_tumor"),
        ("NO-TUMOUR", "no_tumor"),
        ("na", "NA"),
        ("cat", None),
    ],
)
def test_what_a_name_resembles(name: str, close: str | None) -> None:
    assert suggest(name, CLASSES) == close


def test_nothing_is_guessed_and_the_draft_is_accepted(tmp_path: Path) -> None:
    folders, said = (
        ["NA", "No Tumor", "na", "cats: many", "left", "turned"],
        {"left": "null", "turned": "tumeur nee", "gone": "NA"},
    )
    message = refused(folders, said)
    assert message.startswith(
        "4 of the 6 class folders in /scans are not a class of the model "
        "(01, NA, no_tumor, tumeur née):\n"
    )
    assert "  No Tumor     1,234 images; did you mean no_tumor?\n" in message
    assert "  cats: many   1,234 images\n" in message
    assert (
        "  turned       1,234 images, given as 'tumeur nee'; did you mean tumeur née?\n" in message
    )
    drafted = read(tmp_path, message.partition("left out:\n")[2])
    assert map_folders(dict.fromkeys(folders, 1), drafted, CLASSES, Path("x")) == {
        "NA": "NA", "No Tumor": "no_tumor", "na": "NA", "cats: many": None, "left": None,
        "turned": "tumeur née",
    }  # fmt: skip


def test_all_left_out() -> None:
    assert "all folders are left out" in refused(["a"], {"a": "null"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "expected only lines such as"),
        ("a: [b]", "expected only lines such as"),
        ("", "received None"),
        ("a: b\na: c", "duplicate key"),
        ("a: 'b", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.yaml is missing: .*\(--classes\)"):
        read_classes(tmp_path / "nowhere.yaml")
