"""The page needs no other file, every reader can use it, and all its numbers are correct."""

import itertools
import json
import re
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks.reporting.page import escape_markdown
from tasks.tracking import runs
from tests.support import ROOT
from tests.support.oracle import check
from tests.support.page import Page, parse
from tests.support.pipeline import CLASSES, run_stage

MODELS = ("tiny", "plain")
COSTS = ("time", "parameters", "training")
BINS = 5  # evaluate.calibration_bins of the tiny set
PHRASES = ("95 %", "F1", "0 is best", "near 1 ")  # digits that no run changes
HTML, SHORT = Path("data/report/report.html"), Path("data/report/report.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def html(pipeline: Path) -> str:
    return (pipeline / HTML).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return parse(html)


@pytest.fixture(scope="module")
def short(pipeline: Path) -> str:
    return (pipeline / SHORT).read_text(encoding="utf-8")


def report() -> str:
    """Make the report again in the current folder and return its page."""
    run_stage("report")
    return HTML.read_text(encoding="utf-8")


def change(path: str, **values: object) -> None:
    """Put other values into a JSON file."""
    Path(path).write_text(json.dumps(json.loads(Path(path).read_text()) | values))


def tracked() -> list[str]:
    """Return the paths of all artefacts of all trainings' runs, their order no matter."""
    client, folders, found = MlflowClient(), [""], []
    for run in mlflow.search_runs([runs.open_store()], output_format="list"):
        folders = [""]
        while folders:
            for entry in client.list_artifacts(run.info.run_id, folders.pop()):
                (folders if entry.is_dir else found).append(entry.path)
    return found


def test_every_number_comes_out_again(pipeline: Path, page: Page) -> None:
    assert len(page.numbers) > 300
    check(pipeline, page, BINS)


def test_no_number_stands_there_without_its_mark(pipeline: Path, page: Page) -> None:
    paths = pd.read_csv(pipeline / "data/files.csv", dtype=str).path
    known = sorted({*CLASSES, *MODELS, *PHRASES, *paths}, key=len, reverse=True)
    for text in page.loose:
        for words in known:
            text = text.replace(words, "")
        assert not re.search(r"\d", text), text


def test_it_loads_nothing_from_elsewhere(html: str, page: Page) -> None:
    addresses = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "action", "srcset")
        if name in attributes
    ]
    assert [
        address[:40]
        for address in addresses
        if not address.startswith(("#", "data:image/jpeg;base64,"))
    ] == []
    assert not page.of("link", "iframe", "object", "embed", "base")
    assert page.of("script") == [{}]
    assert re.findall(r"@import|url\((?!#)|https?://", html) == []


def test_links_lead_somewhere_and_names_are_given_once(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.of("a", "use")]
    assert {link.removeprefix("#") for link in links} <= set(ids) and f"#model-{MODELS[0]}" in links


def test_landmarks_headings_and_a_way_past_the_contents(page: Page) -> None:
    names = [tag for tag, _ in page.tags]
    assert all(names.count(tag) == 1 for tag in ("h1", "main", "nav", "header", "footer"))
    levels = [int(tag[1]) for tag in names if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(
        later <= earlier + 1 for earlier, later in itertools.pairwise(levels)
    )
    assert page.of("a")[0]["href"] == f"#{page.of('main')[0]['id']}"
    assert page.of("html")[0]["lang"] == "en"


def test_tables_and_pictures_say_what_they_are(page: Page) -> None:
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") > 10
    assert all(attributes["scope"] in ("col", "row", "colgroup") for attributes in page.of("th"))
    assert (
        all(len(attributes["alt"]) > 5 for attributes in page.of("img"))
        and len(page.of("img")) > 50
    )
    assert all(
        attributes["role"] == "img" and len(attributes["aria-label"]) > 20
        for attributes in page.of("svg")
    )
    regions = [attributes for attributes in page.of("div") if attributes.get("class") == "scroll"]
    assert (
        all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)
        and regions
    )


def test_every_model_has_its_figures(page: Page) -> None:
    labels = [attributes["aria-label"] for attributes in page.of("svg")]
    assert len(labels) == 2 + len(COSTS) + 7 * len(MODELS)
    for words in (
        "ROC curve",
        "Precision against recall",
        "Accuracy against confidence",
        "learning rate by epoch",
        "answered",
    ):
        assert sum(words in label for label in labels) == len(MODELS), words


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_in_both_schemes(scheme: str) -> None:
    light, dark = re.findall(
        r":root \{(.*?)\}", (ROOT / "tasks/reporting/templates/style.css").read_text(), re.DOTALL
    )
    colours = dict(re.findall(r"--([\w]+): (#\w{6})", light if scheme == "light" else dark))
    for name in ("ink", "muted", "accent", "good", "bad"):
        assert (
            min(contrast(colours[name], colours[ground]) for ground in ("page", "raised")) >= 4.5
        ), name
    assert contrast(colours["ink"], colours["heat"]) >= 4.5
    for name in [f"c{number}" for number in range(8)]:
        assert contrast(colours[name], colours["page"]) >= 2.9, name


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (
            share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
            for share in shares
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_the_verdict_comes_first(pipeline: Path, html: str, short: str) -> None:
    comparison = json.loads((pipeline / "data/comparison.json").read_text())
    for text in (html[html.index("<main") :].split('id="data"')[0], short.split("|")[0]):
        assert (
            comparison["winner"] in text
            and f"{comparison['test_accuracy']:.3f}" in text
            and "promoted" in text
        )
        assert "the first champion" in text and "before: none" in text.lower()


def test_the_chapter_on_data_names_what_was_left_out(html: str) -> None:
    assert (
        "Training/NA/<wbr>truncated.jpg" in html.replace("<wbr>NA", "NA") or "truncated.jpg" in html
    )
    assert "expected at least 95% of the images to have a content of their own" in html
    assert "Training images withheld because" in html


def test_what_is_quoted_is_escaped(html: str) -> None:
    assert "<title>A &lt;tiny&gt; set</title>" in html and "<tiny>" not in html


def test_the_short_form_has_a_row_for_each_model_and_the_errors_in_words(
    pipeline: Path, short: str
) -> None:
    rows = [line.strip("| ").split(" | ") for line in short.splitlines() if line.startswith("| ")]
    comparison = pd.read_csv(pipeline / "data/comparison.csv")
    assert [row[0] for row in rows[1:]] == comparison.architecture.tolist()
    assert {len(row) for row in rows} == {9}
    assert [row[1][:5] for row in rows[1:]] == [f"{value:.3f}" for value in comparison.val_macro_f1]
    first = pd.read_csv(
        pipeline / f"data/results/{comparison.architecture[0]}/confusion.csv",
        dtype={"actual": str},
        keep_default_na=False,
    )
    wrong = first[first.actual != first.predicted].groupby("actual")["count"].sum()
    for label, images in wrong[wrong > 0].items():
        assert f"- {escape_markdown(label)}: {images} of 5 wrong, predicted as " in short
    assert "Files in quarantine: 2. Training images withheld as copies: 1." in short
    assert "![" not in short and "<img" not in short


def test_again_gives_the_same_bytes_and_mlflow_has_figures_tables_and_pictures(
    workspace: Path, pipeline: Path
) -> None:
    shutil.rmtree("data/report")
    run_stage("report")
    for path in (HTML, SHORT):
        assert path.read_bytes() == (pipeline / path).read_bytes()
    found = tracked()
    for name in (
        "figures/roc.svg",
        "figures/calibration.svg",
        "tables/per_class.csv",
        "tables/metrics.json",
        "samples.jpg",
    ):
        assert found.count(name) == len(MODELS), name
    assert [
        name for name in found if name.startswith("explanations/") and name.endswith("_overlay.jpg")
    ]


def test_what_is_rare_is_told(workspace: Path) -> None:
    """Empty quarantine, copies of all test images, a model without heat maps, no gate decision."""
    Path("data/quarantine.csv").write_text("path,reason,detail,bytes\n")
    for model in MODELS:
        path = Path(f"data/results/{model}/metrics.json")
        scores = {
            name: value
            for name, value in json.loads(path.read_text()).items()
            if not name.startswith("test_without_copies_")
        }
        path.write_text(
            json.dumps(scores | {"test_without_copies_images": 0, "test_without_copies_classes": 0})
        )
    change("data/explanations/tiny/sanity.json", reason="a scikit-learn model has none")
    change(
        "data/registration.json",
        verdict="undecided",
        reason="because of that",
        checks=[],
        champion_before=3,
    )
    rename_models(dict(zip(MODELS, ("01", "NA"), strict=True)))
    html, short = report(), SHORT.read_text()
    assert 'id="model-01"' in html and 'id="model-NA"' in html and "nan" not in html
    assert "Every file is a usable image." in html and "Files in quarantine: 0." in short
    assert "every test image has a copy" in html
    assert "All test images have a copy in training." in short
    assert html.count("No heat maps: a scikit-learn model has none.") == 1
    for words in ("left to a person", "because of that", "Decision of the gate"):
        assert words in html


def rename_models(names: dict[str, str]) -> None:
    """Call models otherwise in all tables and folders."""
    for table in ("comparison", "paired_tests", "shared_questions"):
        path = Path(f"data/{table}.csv")
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows.replace(dict.fromkeys(("architecture", "winner", "other"), names)).to_csv(
            path, index=False
        )
    for old, new in names.items():
        for folder in ("models", "results", "explanations"):
            Path("data", folder, old).rename(Path("data", folder, new))


def test_no_picture_leaves_where_none_may(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh store, so that all that lies there was handed on with this setting."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/fresh.db")
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("report: {", "report: {thumbnails: false, "))
    for stage in ("train@plain", "evaluate@plain", "explain@plain", "report"):
        run_stage(stage)
    html, found = HTML.read_text(), tracked()
    assert "<img" not in html and "data:image" not in html and "base64" not in html
    for path in Path("data/report").iterdir():
        assert path.suffix in (".html", ".md") and not re.search(
            rb"\xff\xd8\xff|\x89PNG|GIF8|/9j/|iVBORw0", path.read_bytes()
        )
    drawn = {"layers.png", "history.png", "confusion.png"}  # of networks and numbers
    assert "figures/roc.svg" in found and {Path(name).suffix for name in {*found} - drawn} <= {
        ".svg",
        ".csv",
        ".json",
        ".txt",
    }
    assert "Left out: <code>report.thumbnails</code> is false" in html
