"""Usable images go to clean and rejected files to quarantine; raw stays as it is."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tasks.clean import QUARANTINE_COLUMNS, main
from tasks.errors import UserError
from tasks.tables import read_table, write_table

ROWS = [
    ("Testing/cat/same.jpg", "usable", "", ""),
    ("Training/cat/same.jpg", "usable", "", ""),
    ("Training/dog/same.jpg", "usable", "", ""),
    ("Training/dog/same.png", "rejected", "truncated", 'image file is truncated, "really"'),
    ("Training/cat/same.png", "rejected", "empty", "0 bytes"),
    ("notes.txt", "rejected", "outside_class_folder", "expected <part>/<class>/<file>"),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a raw folder whose files hold their own path, and their table."""
    for path, *_ in ROWS:
        (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / path).write_text(path)
    files = pd.DataFrame(ROWS, columns=["path", "status", "reason", "detail"])
    write_table(files.assign(bytes=files.path.str.len()), tmp_path / "files.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clean() -> None:
    main(Path("raw"), Path("files.csv"), Path("clean"), Path("quarantine"), Path("quarantine.csv"))


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_file_goes_to_one_place_under_its_own_path(root: Path) -> None:
    clean()
    usable = [path for path, status, *_ in ROWS if status == "usable"]
    rejected = [path for path, status, *_ in ROWS if status == "rejected"]
    assert texts(root / "clean") == {path: path for path in usable}
    assert texts(root / "quarantine") == {path: path for path in rejected}


def test_the_rejected_are_listed_with_their_reasons(root: Path) -> None:
    clean()
    listed = read_table(root / "quarantine.csv")
    assert listed.columns.tolist() == list(QUARANTINE_COLUMNS)
    expected = [
        (path, reason, detail, len(path))
        for path, status, reason, detail in ROWS
        if status == "rejected"
    ]
    assert list(listed.itertuples(index=False, name=None)) == expected


def test_raw_is_left_as_it_was(root: Path) -> None:
    before = {path: path.stat() for path in (root / "raw").rglob("*")}
    clean()
    assert {path: path.stat() for path in (root / "raw").rglob("*")}.keys() == before.keys()
    for path, was in before.items():
        now = path.stat()
        assert (now.st_mtime_ns, now.st_ino, now.st_size, now.st_mode) == (
            was.st_mtime_ns,
            was.st_ino,
            was.st_size,
            was.st_mode,
        )


def test_copies_are_files_of_their_own(root: Path) -> None:
    """An edit of a file under clean must not change raw, so there are no links."""
    clean()
    (root / "clean/Training/cat/same.jpg").write_text("changed")
    assert (root / "raw/Training/cat/same.jpg").read_text() == "Training/cat/same.jpg"


def test_nothing_rejected_still_makes_a_folder_and_a_table(root: Path) -> None:
    files = read_table(root / "files.csv").query("status == 'usable'")
    write_table(files, root / "files.csv")
    clean()
    assert (root / "quarantine").is_dir() and texts(root / "quarantine") == {}
    assert (root / "quarantine.csv").read_text() == "path,reason,detail,bytes\n"


def test_a_broken_file_more_changes_nothing_under_clean(root: Path) -> None:
    clean()
    before = texts(root / "clean")
    for folder in ("clean", "quarantine"):
        shutil.rmtree(root / folder)  # as DVC does
    (root / "raw/Training/cat/new.jpg").write_text("broken")
    row = pd.DataFrame(
        [("Training/cat/new.jpg", "rejected", "not_an_image", "", 6)],
        columns=[*read_table(root / "files.csv").columns],
    )
    write_table(pd.concat([read_table(root / "files.csv"), row]), root / "files.csv")
    clean()
    assert texts(root / "clean") == before
    assert "Training/cat/new.jpg" in texts(root / "quarantine")


def test_a_rejected_file_of_unknown_size(root: Path) -> None:
    """A file that cannot be read has no bytes in its row, and goes to quarantine too."""
    files = read_table(root / "files.csv").astype({"bytes": "Int64"})
    files.loc[3, "bytes"] = pd.NA
    write_table(files, root / "files.csv")
    clean()
    assert pd.isna(read_table(root / "quarantine.csv").bytes[0])
    assert "Training/dog/same.png" in texts(root / "quarantine")


def test_a_listed_file_that_is_gone(root: Path) -> None:
    (root / "raw/Training/dog/same.jpg").unlink()
    with pytest.raises(
        UserError,
        match="raw/Training/dog/same.jpg is listed but gone: run the validate stage again",
    ):
        clean()


def test_the_pipeline_kept_every_byte(pipeline: Path) -> None:
    def contents(folder: str) -> dict[str, bytes]:
        root = pipeline / "data" / folder
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    assert contents("clean") | contents("quarantine") == contents("raw")
    assert set(contents("quarantine")) == set(read_table(pipeline / "data/quarantine.csv").path)
