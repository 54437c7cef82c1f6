"""The report stands alone, names everything, escapes what it quotes, and is equal for equal inputs."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from tasks.report import cell, error_sentences
from tests.conftest import CLASSES, run_stage

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "rect"}


@pytest.fixture(scope="module")
def html(pipeline: Path) -> str:
    return (pipeline / "data/report/report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(pipeline: Path) -> str:
    return (pipeline / "data/report/report.md").read_text(encoding="utf-8")


class Balance(HTMLParser):
    """Collects the tags that are open, and fails on one that closes out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_every_tag_is_closed(html: str) -> None:
    parser = Balance()
    parser.feed(html)
    assert [tag for tag in parser.open if tag not in ("p", "li")] == []


def test_it_loads_nothing_from_elsewhere(html: str) -> None:
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)[^"']*""", html) == []
    assert re.findall(r"<(?:link|script|iframe|img)\b|@import|url\((?!#)", html) == []


def test_it_names_the_winner_the_classes_and_the_files(pipeline: Path, html: str, markdown: str) -> None:
    comparison = json.loads((pipeline / "data/comparison.json").read_text())
    for text in (html, markdown):
        assert comparison["winner"] in text.split("validation")[0]
        assert f"{comparison['test_accuracy']:.3f}" in text
        assert all(name in text for name in ("tiny", "plain", "version 1", "the first champion"))
    assert all(f">{label}<" in html for label in CLASSES)
    assert "Training/NA/truncated.jpg" in html and "Training/01/notes.txt" in html
    assert "distinct_share" not in html and "expected at least 95% of the images to have a content of their own" in html


def test_both_architectures_have_their_figures(html: str) -> None:
    assert html.count("<svg") == 4
    assert html.count("<h3>On the test images</h3>") == 2
    for words in ("learning rate", "share of the actual class", "validation"):
        assert words in html


def test_what_is_quoted_is_escaped(html: str) -> None:
    assert "<title>A &lt;tiny&gt; set</title>" in html
    assert "<tiny>" not in html


def test_the_short_form_has_a_row_for_each_architecture(pipeline: Path, markdown: str) -> None:
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    comparison = pd.read_csv(pipeline / "data/comparison.csv")
    assert [row[0] for row in rows[1:]] == comparison.architecture.tolist()
    assert {len(row) for row in rows} == {9}
    assert [row[1] for row in rows[1:]] == [f"{value:.3f}" for value in comparison.val_macro_f1]
    assert "2 files in quarantine; 1 training images withheld as copies" in markdown


def test_again_gives_the_same_bytes(workspace: Path, pipeline: Path) -> None:
    shutil.rmtree("data/report")
    run_stage("report")
    for name in ("report.html", "report.md"):
        assert (workspace / "data/report" / name).read_bytes() == (pipeline / "data/report" / name).read_bytes()


def test_architectures_with_names_like_numbers_and_nothing(workspace: Path) -> None:
    comparison = pd.read_csv("data/comparison.csv")
    names = dict(zip(comparison.architecture, ("01", "NA"), strict=True))
    comparison.assign(architecture=comparison.architecture.map(names)).to_csv("data/comparison.csv", index=False)
    for old, new in names.items():
        Path("data/results", old).rename(Path("data/results", new))
    run_stage("report")
    html = Path("data/report/report.html").read_text()
    assert "<h2>01</h2>" in html and "<h2>NA</h2>" in html and "nan" not in html


def test_nothing_in_quarantine(workspace: Path) -> None:
    Path("data/quarantine.csv").write_text("path,reason,detail,bytes\n")
    run_stage("report")
    assert "files in quarantine</summary>" not in Path("data/report/report.html").read_text()
    assert "0 files in quarantine" in Path("data/report/report.md").read_text()


def test_the_errors_in_words() -> None:
    rows = [("01", "01", 8), ("01", "NA", 1), ("01", "c", 3), ("NA", "01", 0), ("NA", "NA", 5), ("NA", "c", 0)]
    sentences = error_sentences(pd.DataFrame(rows, columns=["actual", "predicted", "count"]))
    assert sentences == ["4 of 12 01 wrong: taken 3 for c, 1 for NA", "0 of 5 NA wrong"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.12345, "0.123"),
        (9.9999, "10.000"),
        (1234.5, "1,234"),
        (11_169_476, "11,169,476"),
        ("01", "01"),
        (True, "True"),
        (-0.5, "-0.500"),
    ],
)
def test_a_cell(value: object, expected: str) -> None:
    assert cell(value) == expected
