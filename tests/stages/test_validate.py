"""Every file gets one row. An unmet expectation stops the stage and names the files."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.params.validate import Expectations
from tasks.quality.data_docs import SHOWN, Offender, Result, write_page
from tasks.quality.expectations import RULES, validate_expectations
from tasks.quality.scan import FILES_COLUMNS, Scan, scan
from tasks.tables import read_table
from tasks.validate import main
from tests.support.names import ODD
from tests.support.pipeline import CLASSES

NO_LIMITS = Limits()


def save(path: Path, size: tuple[int, int] = (40, 36), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)).save(
        path
    )
    return path


def row(raw: Path, path: str, limits: Limits = NO_LIMITS) -> pd.Series:
    return scan(raw, limits).files.set_index("path").loc[path]


def test_a_usable_image(tmp_path: Path) -> None:
    path = save(tmp_path / "Training/cat/a.png")
    found = row(tmp_path, "Training/cat/a.png")
    assert found[["subset", "label", "status", "format", "mode"]].tolist() == [
        "training",
        "cat",
        "usable",
        "PNG",
        "L",
    ]
    assert (found.width, found.height, found.bytes) == (40, 36, path.stat().st_size)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    values = np.asarray(Image.open(path))
    assert (found["mean"], found["std"]) == pytest.approx((values.mean(), values.std()))
    assert len(found["hash"]) == 60
    assert pd.isna(found.reason)


def test_width_and_height_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "cat/a.jpg", exif=exif)
    found = row(tmp_path, "cat/a.jpg")
    assert (found.width, found.height) == (30, 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"text", "not_an_image"),
        (None, "truncated"),
        (b"x" * 5000, "too_many_bytes"),
    ],
)
def test_a_rejected_file_keeps_its_row_with_a_reason(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    whole = save(tmp_path / "cat/whole.png").read_bytes()
    (tmp_path / "cat/bad.png").write_bytes(whole[:-400] if content is None else content)
    files = scan(tmp_path, Limits(max_bytes=4000)).files
    assert files.path.tolist() == ["cat/bad.png", "cat/whole.png"]
    assert files.status.tolist() == ["rejected", "usable"]
    bad = files.iloc[0]
    assert (bad.label, bad.reason) == ("cat", reason) and bad.detail


def test_too_many_pixels(tmp_path: Path) -> None:
    save(tmp_path / "cat/a.png")
    assert row(tmp_path, "cat/a.png", Limits(max_pixels=1000)).reason == "too_many_pixels"


@pytest.mark.parametrize("stray", ["a.png", "Training/a.png", "extra/bird/a.png", "Notes/a.png"])
def test_a_file_outside_the_class_folders(tmp_path: Path, stray: str) -> None:
    save(tmp_path / "Training/cat/a.png")
    save(tmp_path / stray)
    found = row(tmp_path, stray)
    assert (found.status, found.reason) == ("rejected", "outside_class_folder")
    assert found.sha256


def test_class_folders_without_splits(tmp_path: Path) -> None:
    for path in ("cat/a.png", "dog/deeper/b.png", "top.png"):
        save(tmp_path / path)
    files = scan(tmp_path, Limits()).files
    assert files.label.tolist() == ["cat", "dog", ""]
    assert files.status.tolist() == ["usable", "usable", "rejected"]
    assert set(files.subset) == {""}


def test_junk_has_no_row_and_images_without_a_class_are_left_aside(tmp_path: Path) -> None:
    for path in (
        "train/cat/a.png",
        "train/cat/.b.png",
        "__MACOSX/cat/._a.png",
        "train/dog/c.png",
        "test/d.png",
    ):
        save(tmp_path / path)
    files = scan(tmp_path, Limits()).files
    assert files.path.tolist() == ["test/d.png", "train/cat/a.png", "train/dog/c.png"]
    assert files.status.tolist() == ["aside", "usable", "usable"]


def test_a_class_that_is_named_like_a_split(tmp_path: Path) -> None:
    """A folder `test` with images, beside plain class folders, is a class."""
    for path in ("test/a.png", "control/b.png"):
        save(tmp_path / path)
    assert scan(tmp_path, Limits()).files.label.tolist() == ["control", "test"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/a.png")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/cat").symlink_to(tmp_path / "elsewhere")
    assert scan(tmp_path / "raw", Limits()).files.path.tolist() == ["cat/a.png"]


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_folder_says_how_to_get_images(tmp_path: Path, exists: bool) -> None:
    raw = tmp_path / "raw"
    if exists:
        (raw / "cat").mkdir(parents=True)
    with pytest.raises(
        UserError,
        match="expected images in class folders, found no file; `make data FROM=<folder>`",
    ):
        scan(raw, Limits())


def write_params(root: Path, expectations: str) -> None:
    (root / "params.yaml").write_text(
        f"validate: {{expectations: {expectations}}}\narchitectures: {{cnn_a: {{}}}}\n"
    )


def validate() -> list[dict]:
    main(
        Path("raw"),
        Path("data/files.csv"),
        Path("data/validation.json"),
        Path("data/decoding.json"),
        Path("data/data_docs"),
    )
    return json.loads(Path("data/validation.json").read_text())


@pytest.mark.slow
def test_an_error_stops_with_names_after_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        save(Path(f"raw/cat/{number}.png"), seed=number)
    Path("raw/cat/notes.txt").write_text("text")
    write_params(tmp_path, "{usable_share: {minimum: 0.9, level: error}}")
    with pytest.raises(UserError) as caught:
        validate()
    message = str(caught.value)
    for expected in (
        "usable_share: expected at least 90% of the files to be usable images; "
        "1 of 4 files do not: cat/notes.txt",
        "classes: expected at least 2 classes; found 1: cat",
        "images_per_class: expected at least 10 usable images in each class; "
        "1 of 1 classes do not: cat",
    ):
        assert expected in message
    assert message.count("error:") == 3 and "Mend the files" in message
    results = {
        result["expectation"]: result
        for result in json.loads(Path("data/validation.json").read_text())
    }
    assert not results["usable_share"]["met"] and results["usable_share"]["offenders"] == [
        "cat/notes.txt"
    ]
    assert read_table(Path("data/files.csv")).path.tolist() == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "cat/notes.txt",
    ]
    page = Path("data/data_docs/index.html").read_text()
    assert "3 of 9 expectations are not met" in page and "the pipeline stops here" in page
    assert "cat/notes.txt</span> <q>a text file" in page


@pytest.mark.slow
def test_the_same_as_a_warning_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("raw/cat/a.png"), size=(30, 8))
    write_params(
        tmp_path,
        "{classes: {minimum: 2, level: warn}, images_per_class: {minimum: 1, level: error}, "
        "side: {minimum: 9, level: warn}, contrast: {minimum: 1, level: 'off'}}",
    )
    with caplog.at_level("INFO"):
        results = {result["expectation"]: result for result in validate()}
    assert "contrast" not in results
    page = Path("data/data_docs/index.html").read_text()
    assert "2 of 9 expectations are not met" in page and "the pipeline goes on" in page
    assert page.count("<strong>not checked") == 1
    assert [name for name, result in results.items() if not result["met"]] == ["classes", "side"]
    assert (
        "warn: side: expected images of at least 9 pixels on the shorter side; "
        "1 of 1 images do not: cat/a.png" in caplog.text
    )


def usable(**columns: list) -> pd.DataFrame:
    """Return rows of usable images that meet every expectation, except in the given columns."""
    count = len(next(iter(columns.values())))
    numbers = [str(number) for number in range(count)]
    rows = {
        "path": [f"{number}.png" for number in numbers],
        "label": ["cat", "dog"] * (count // 2),
        "status": ["usable"] * count,
    }
    rows |= {
        "width": [64] * count,
        "height": [64] * count,
        "std": [9.0] * count,
        "sha256": numbers,
        "format": ["PNG"] * count,
        "detail": ["found"] * count,
    }
    rows["levels"] = [99] * count
    return pd.DataFrame(rows | columns)


TABLES = {
    "fine": usable(std=[1.0] * 4),
    "one class": usable(label=["cat"] * 4),
    "the rest": usable(
        path=[
            "0.png",
            "1.png",
            "2.png",
            "a.jpg",
            "b.png",
            "c.jpeg",
            "d.tif",
            "e.dcm",
            "f.dcm",
            "g.png",
        ],
        label=["cat"] * 9 + ["dog"],
        status=["rejected"] * 3 + ["usable"] * 7,
        format=[*["PNG"] * 5, "MPO", "TIFF", "PNG", "DICOM", "PNG"],
        width=[*[64] * 4, 31, *[64] * 5],
        height=[*[64] * 8, 32, 64],
        std=[*[9.0] * 5, 0.5, *[9.0] * 4],
        levels=[*[32] * 4, 31, *[256] * 5],
        sha256=[*"012abcdedg"],
    ),
}
BROKEN = {
    "usable_share": ("the rest", ["0.png", "1.png", "2.png"]),
    "classes": ("one class", ["cat"]),
    "images_per_class": ("the rest", ["dog"]),
    "imbalance": ("the rest", ["dog"]),
    "side": ("the rest", ["b.png"]),
    "contrast": ("the rest", ["c.jpeg"]),
    "levels": ("the rest", ["b.png"]),
    "distinct_share": ("the rest", ["d.tif", "f.dcm"]),
    "format_matches_name": ("the rest", ["a.jpg", "e.dcm"]),
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict[str, Result]]:
    """Judge each of `TABLES`; return the results by table and expectation."""
    small = {
        "images_per_class": {"minimum": 2, "level": "warn"},
        "imbalance": {"maximum": 5, "level": "warn"},
    }
    expectations = Expectations.model_validate(small)
    return {name: judge(files, expectations) for name, files in TABLES.items()}


def judge(files: pd.DataFrame, expectations: Expectations) -> dict[str, Result]:
    return {result.expectation: result for result in validate_expectations(files, expectations)}


def names(result: Result) -> list[str]:
    return [offender.name for offender in result.offenders]


@pytest.mark.slow
def test_every_expectation_is_judged(verdicts: dict) -> None:
    assert set(verdicts["fine"]) == set(RULES) == set(Expectations.model_fields) == set(BROKEN)
    for table, results in verdicts.items():
        assert {name for name, result in results.items() if not result.met} == {
            n for n, (where, _) in BROKEN.items() if where == table
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_expectation_names_its_offenders(name: str, verdicts: dict) -> None:
    table, offenders = BROKEN[name]
    result = verdicts[table][name]
    assert not result.met
    assert names(result) == offenders
    assert all(offender in result.message for offender in offenders)


@pytest.mark.slow
def test_a_class_of_unusable_files_counts_as_empty_and_ten_of_many_offenders_are_named() -> None:
    """The result keeps all of them."""
    files = usable(label=["cat", "dog"] * 14, status=["usable", "rejected"] * 14, std=[0.0] * 28)
    results = judge(files, Expectations())
    assert results["classes"].met
    assert names(results["images_per_class"]) == ["dog"]
    contrast = results["contrast"]
    assert len(contrast.offenders) == 14
    assert contrast.message.endswith(" and 4 more") and contrast.message.count(".png") == 10


@pytest.mark.slow
def test_offenders_of_any_name_are_named_as_they_are_and_no_markup_of_the_page(
    tmp_path: Path,
) -> None:
    odd = list(dict.fromkeys(["<b>&amp;", "&lt;", *ODD]))[: len(ODD) // 2 * 2]
    files = usable(path=[f"{name}.png" for name in odd], std=[0.0] * len(odd))
    results = judge(files, Expectations())
    assert names(results["contrast"]) == sorted(files.path)
    write_page(Scan(files, None, {}), list(results.values()), tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;amp;" in page and "<b>&amp;" not in page


def test_the_page_needs_no_other_file_and_lists_the_first_offenders(tmp_path: Path) -> None:
    offenders = tuple(Offender(f"{number}.png", "0") for number in range(SHOWN + 1))
    result = Result("contrast", "warn", False, "contrast", "0", "message", offenders)
    write_page(Scan(usable(std=[0.0] * 2), 12, {}), [result], tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert not re.search(r"https?:|<script|<link|url\(|@import|src=", page)
    assert f"{SHOWN - 1}.png<" in page and f"{SHOWN}.png<" not in page
    assert f"The first {SHOWN} are shown" in page


def test_the_table_of_the_pipeline(pipeline: Path) -> None:
    files = read_table(pipeline / "data/files.csv")
    assert list(files.columns) == list(FILES_COLUMNS)
    on_disk = [
        path.relative_to(pipeline / "data/raw").as_posix()
        for path in (pipeline / "data/raw").rglob("*")
        if path.is_file()
    ]
    assert files.path.tolist() == sorted(on_disk)
    assert sorted(set(files.label)) == CLASSES
    rejected = files[files.status == "rejected"].set_index("path").reason.to_dict()
    assert rejected == {
        "Training/01/notes.txt": "not_an_image",
        "Training/NA/truncated.jpg": "truncated",
    }


def test_a_second_run_writes_the_same_bytes(workspace: Path, pipeline: Path) -> None:
    outputs = [Path("data/files.csv"), Path("data/validation.json"), Path("data/decoding.json")]
    page = Path("data/data_docs/index.html")
    for output in (*outputs, page):
        output.unlink()
    main(Path("data/raw"), *outputs, page.parent)
    for output in (*outputs, page):
        assert output.read_bytes() == (pipeline / output).read_bytes()
