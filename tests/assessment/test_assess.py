"""Assess a model on a foreign folder: the overlap, the scores, the page, an untouched folder."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from PIL import Image, ImageOps
from sklearn.metrics import accuracy_score, f1_score, recall_score

from flows.assess import assess, default_output
from tasks.assessment.assess import main
from tasks.errors import UserError
from tasks.registry import load
from tasks.tables import read_table
from tasks.tracking import runs
from tests.support import draw, toy_model
from tests.support.page import parse
from tests.support.pipeline import CLASSES, enter

pytestmark = pytest.mark.slow

NAMES = {label: f"Folder {number}" for number, label in enumerate(CLASSES)}
MAPPING = (
    "".join(f"{folder}: {json.dumps(label)}\n" for label, folder in NAMES.items()) + "other: null\n"
)
NAME = "foreign"
BOUNDS = {f"{name}_{end}" for name in ("accuracy", "macro_f1") for end in ("low", "high")}
BROKEN = {"Training/Folder 0/text.jpg": "not_an_image", "Folder 1.jpg": "outside_class_folder"}


@dataclass(frozen=True)
class Foreign:
    """A folder of images, and of each copy its path, kind, and what it copies."""

    images: Path
    truth: pd.DataFrame

    @property
    def stamps(self) -> dict[str, tuple]:
        paths = sorted(self.images.rglob("*"))
        return {
            str(path): (
                path.stat().st_mtime_ns,
                path.read_bytes() if path.is_file() else sorted(path.iterdir()),
            )
            for path in paths
        }


@pytest.fixture(scope="module")
def root(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Copy the project, and make it the current folder."""
    root = tmp_path_factory.mktemp("assess") / "project"
    shutil.copytree(pipeline, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    (root / "classes.yaml").write_text(MAPPING)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        yield root


@pytest.fixture(scope="module")
def foreign(root: Path) -> Foreign:
    """Make 12 copies of given images, 20 new images, 4 in another folder, and 2 broken files."""
    images, clean, rows = root.parent / NAME, root / "data/clean", []
    splits = read_table(root / "data/splits.csv").drop_duplicates(["sha256", "split"])
    chosen = [
        row
        for part, count in (("training", 8), ("validation", 3), ("withheld", 1))
        for row in splits[splits.split == part].head(count).itertuples()
    ]
    for number, (row, kind) in enumerate(
        zip(chosen, itertools.cycle(["exact", "near", "mirrored"]), strict=False)
    ):
        path = images / ("Training" if number % 2 else "val") / NAMES[row.label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "exact":
            shutil.copyfile(clean / row.path, path)
        else:
            with Image.open(clean / row.path) as image:
                (ImageOps.mirror(image) if kind == "mirrored" else image).save(path)
        rows.append((path.relative_to(images).as_posix(), kind, row.sha256, row.split))
    draw.draw_folders(
        images,
        {"Training": dict.fromkeys(NAMES.values(), 5), "Testing": {"other": 4}},
        seed=99,
        size=48,
    )
    for path in BROKEN:
        (images / path).write_text("no image")
    return Foreign(images, pd.DataFrame(rows, columns=["path", "kind", "sha256", "split"]))


@pytest.fixture(scope="module")
def output(root: Path, foreign: Foreign) -> Path:
    """Assess the champion."""
    before = foreign.stamps
    main(foreign.images, "champion", Path("data/assessments/one"), classes=Path("classes.yaml"))
    assert foreign.stamps == before
    return root / "data/assessments/one"


@pytest.fixture(scope="module")
def scores(output: Path) -> dict[str, float]:
    return json.loads((output / "metrics.json").read_text())


@pytest.fixture(scope="module")
def predictions(output: Path) -> pd.DataFrame:
    return read_table(output / "predictions.csv")


def test_overlap_is_found_to_the_image(output: Path, foreign: Foreign) -> None:
    found = read_table(output / "overlap.csv")
    expected = foreign.truth.sort_values("path", ignore_index=True)
    pd.testing.assert_frame_equal(
        found[["path", "kind", "sha256", "split"]], expected, check_dtype=False
    )
    splits = read_table(Path("data/splits.csv")).set_index("path")
    assert splits.sha256[found.copy_of].tolist() == found.sha256.tolist()
    assert splits.split[found.copy_of].tolist() == found.split.tolist()


def test_each_image_once_by_what_its_folder_means(
    predictions: pd.DataFrame, foreign: Foreign
) -> None:
    assert len(predictions) == predictions.path.nunique() == len(foreign.truth) + 20
    assert (
        predictions.label.tolist()
        == predictions.folder.map({folder: label for label, folder in NAMES.items()}).tolist()
    )
    assert dict(zip(predictions.path, predictions.overlap, strict=True)) == dict.fromkeys(
        predictions.path, ""
    ) | dict(zip(foreign.truth.path, foreign.truth.kind, strict=True))


def test_the_answers_are_those_of_the_command_line(
    predictions: pd.DataFrame, foreign: Foreign
) -> None:
    answers = load.load_predictor("champion").predict(
        foreign.images / path for path in predictions.path
    )
    assert predictions.predicted.tolist() == [answer.predicted for answer in answers]
    assert predictions.abstained.tolist() == [str(answer.abstained) for answer in answers]
    assert predictions.unfamiliar.tolist() == [str(answer.unfamiliar) for answer in answers]
    for label in CLASSES:
        assert predictions[f"p_{label}"].tolist() == pytest.approx(
            [answer.probabilities[label] for answer in answers], rel=1e-5
        )


@pytest.mark.parametrize("prefix", ["external", "external_without_overlap"])
def test_both_columns_come_out_again(
    prefix: str, scores: dict[str, float], predictions: pd.DataFrame
) -> None:
    rows = predictions if prefix == "external" else predictions[predictions.overlap == ""]
    assert len(rows) == scores[f"{prefix}_images"] == (32 if prefix == "external" else 20)
    assert scores[f"{prefix}_accuracy"] == pytest.approx(accuracy_score(rows.label, rows.predicted))
    assert scores[f"{prefix}_macro_f1"] == pytest.approx(
        f1_score(rows.label, rows.predicted, labels=CLASSES, average="macro"), abs=1e-6
    )
    recalls = recall_score(rows.label, rows.predicted, labels=CLASSES, average=None)
    assert [scores[f"{prefix}_recall_{label}"] for label in CLASSES] == pytest.approx(
        recalls, abs=1e-6
    )
    answered = rows[rows.abstained == "False"]
    assert scores[f"{prefix}_coverage"] == pytest.approx(len(answered) / len(rows), abs=1e-6)
    if len(answered):
        assert scores[f"{prefix}_answered_accuracy"] == pytest.approx(
            (answered.label == answered.predicted).mean(), abs=1e-6
        )
    assert scores[f"{prefix}_unfamiliar"] == (rows.unfamiliar == "True").sum()
    assert {
        f"{prefix}_{name}"
        for name in (*BOUNDS, "calibration_error", "calibration_error_before", "brier")
    } <= set(scores)


def test_its_own_test_stands_beside(scores: dict[str, float]) -> None:
    winner = json.loads(Path("data/comparison.json").read_text())["winner"]
    own = json.loads(Path(f"data/results/{winner}/metrics.json").read_text())
    given = json.loads(Path(f"data/results/{winner}/thresholds.json").read_text())
    for name in (
        "accuracy",
        "accuracy_low",
        "macro_f1",
        "calibration_error",
        f"recall_{CLASSES[1]}",
    ):
        assert scores[f"test_{name}"] == own[f"test_{name}"]
    assert (
        scores["test_coverage"] == given["abstain"]["test"]["coverage"]
        and scores["test_images"] == 20
    )


def test_folders_and_quarantine(output: Path, foreign: Foreign) -> None:
    table = read_table(output / "folders.csv").set_index("folder")
    assert table["class"].to_dict() == {folder: label for label, folder in NAMES.items()} | {
        "other": ""
    }
    assert (
        table.images.astype(int).sum() == 36
        and table.images["other"] == "4"
        and table.rejected["Folder 0"] == "1"
    )
    assert table.overlap.astype(int).sum() == len(foreign.truth)
    quarantine = read_table(output / "quarantine.csv")
    assert dict(zip(quarantine.path, quarantine.reason, strict=True)) == BROKEN


def test_the_page_quotes_the_metrics_and_stands_alone(
    output: Path, scores: dict[str, float]
) -> None:
    html = (output / "report.html").read_text(encoding="utf-8")
    page = parse(html)
    quoted = [(marks, text) for marks, text in page.numbers if marks["data-metric"] in scores]
    assert {
        "external_accuracy",
        "external_without_overlap_macro_f1_low",
        "test_accuracy",
        "external_brier_before",
    } <= {marks["data-metric"] for marks, _ in quoted}
    for marks, _ in quoted:
        assert float(marks["value"]) == pytest.approx(scores[marks["data-metric"]], rel=1e-6), marks
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and {
        link["href"].removeprefix("#") for link in page.of("a", "use")
    } <= set(ids)
    assert re.findall(r"@import|url\((?!#)|https?://", html) == [] and not page.of("link", "iframe")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(
        later <= earlier + 1 for earlier, later in itertools.pairwise(levels)
    )
    assert len(page.of("table")) == len(page.of("caption")) and all(
        len(image["alt"]) > 3 for image in page.of("img")
    )
    assert (
        len(page.of("img")) > 2 * 12
        and "Training</h" not in html
        and "comparison-title" not in html
    )


def test_the_short_form(output: Path, scores: dict[str, float]) -> None:
    short = (output / "report.md").read_text(encoding="utf-8")
    rows = {
        line.split("|")[1].strip(): line.strip("|").split("|")[1:]
        for line in short.splitlines()
        if line.startswith("| ")
    }
    columns = ("external", "external_without_overlap", "test")
    assert [text.split()[0] for text in rows["accuracy"]] == [
        f"{scores[f'{column}_accuracy']:.3f}" for column in columns
    ]
    assert (
        "4 exact, 4 mirrored, 4 near" in short
        and "2 of 38 files cannot be used" in short
        and "nan" not in short
    )


def test_the_registry_keeps_a_trace(
    output: Path, scores: dict[str, float], foreign: Foreign
) -> None:
    found = mlflow.search_runs([runs.open_store()], "tags.version = '1'", output_format="list")
    run = next(run for run in found if run.info.run_name == f"assess {NAME}")
    assert run.data.tags["registered_model"] == "tiny" and run.data.tags["assessed_images"] == str(
        foreign.images
    )
    assert run.data.metrics["external_accuracy"] == pytest.approx(scores["external_accuracy"])
    found = [entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id)]
    assert sorted(found) == ["metrics.json", "report.html", "report.md"]


def test_again_gives_the_same_bytes(output: Path, foreign: Foreign) -> None:
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    main(foreign.images, "1", output, name="tiny", classes=Path("classes.yaml"))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_models_folder_uses_the_tables_beside_it(
    output: Path, foreign: Foreign, tmp_path: Path
) -> None:
    winner = json.loads(Path("data/comparison.json").read_text())["winner"]
    main(foreign.images, f"data/models/{winner}", tmp_path / "out", classes=Path("classes.yaml"))
    for name in ("overlap.csv", "predictions.csv", "metrics.json"):
        assert (tmp_path / "out" / name).read_bytes() == (output / name).read_bytes()


def test_without_the_given_images_the_hash_decides_and_no_picture_leaves_where_none_may(
    foreign: Foreign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine, which has the registry and params.yaml alone."""
    params = Path("params.yaml").read_text().replace("report: {", "report: {thumbnails: false, ")
    (tmp_path / "params.yaml").write_text(params)
    shutil.copy("classes.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    main(foreign.images, "champion", Path("out"), classes=Path("classes.yaml"))
    found = read_table(Path("out/overlap.csv"))
    exact = found[found.kind == "exact"]
    assert exact.path.tolist() == sorted(foreign.truth.path[foreign.truth.kind == "exact"])
    assert set(foreign.truth.path) <= set(found.path)  # and some that only look alike
    assert found.correlation.isna().sum() == len(found) - len(exact) and set(found.copy_of) == {""}
    html = Path("out/report.html").read_text()
    assert "found by their hash alone" in html and "Worst errors" in html
    assert "<img" not in html and "base64" not in html
    assert {path.suffix for path in Path("out").iterdir()} == {".html", ".md", ".csv", ".json"}


def test_where_all_overlap_nothing_is_claimed(foreign: Foreign, tmp_path: Path) -> None:
    for path in foreign.truth.path:
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(foreign.images / path, tmp_path / "in" / path)
    main(tmp_path / "in", "champion", tmp_path / "out", classes=Path("classes.yaml"))
    scores = json.loads((tmp_path / "out/metrics.json").read_text())
    assert [name for name in scores if "without_overlap" in name] == [
        "external_without_overlap_images",
        "external_without_overlap_classes",
    ]
    assert "Every image overlaps" in (tmp_path / "out/report.html").read_text()


def test_another_question_by_a_model_of_unknown_past(foreign: Foreign, tmp_path: Path) -> None:
    """Map four folders to two of three classes. The overlap is unknown: one column is missing."""
    model = toy_model.write(tmp_path / "models/random", 3)
    names = ["zebra", "NA", "NA", "null", "~"]
    (tmp_path / "three.yaml").write_text(
        "".join(
            f"{folder}: {name}\n"
            for folder, name in zip([*NAMES.values(), "other"], names, strict=True)
        )
    )
    (tmp_path / "out").mkdir()
    main(foreign.images, str(model), tmp_path / "out", classes=tmp_path / "three.yaml")
    predictions = read_table(tmp_path / "out/predictions.csv")
    assert set(predictions.label) == {"zebra", "NA"} and set(predictions.folder) == set(
        list(NAMES.values())[:3]
    )
    scores = json.loads((tmp_path / "out/metrics.json").read_text())
    assert not [
        name
        for name in scores
        if "without" in name or name.startswith("test_") or "coverage" in name
    ]
    assert not (tmp_path / "out/overlap.csv").exists()
    html = (tmp_path / "out/report.html").read_text()
    assert "so the overlap is not known" in html and "never abstains" in html and "nan" not in html


def test_mistakes_are_told_in_words_and_write_nothing(foreign: Foreign, tmp_path: Path) -> None:
    taken, empty = tmp_path / "taken", tmp_path / "empty"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    (empty / "a").mkdir(parents=True)
    (empty / "a/b.jpg").write_text("no image")
    odd = tmp_path / "odd"
    (odd / "a").mkdir(parents=True)
    Path(os.fsdecode(bytes(odd / "a") + b"/\xe9.jpg")).write_text("no image")
    before = foreign.stamps
    for images, model, classes, output, message in (
        (tmp_path / "nowhere", "champion", None, tmp_path / "out", "nowhere is not a folder"),
        (
            foreign.images,
            "champion",
            None,
            foreign.images / "out",
            "is only read: pass another folder with --output",
        ),
        (foreign.images, "champion", None, taken, "holds something else than an assessment"),
        (
            foreign.images,
            "champion",
            Path("nowhere.yaml"),
            tmp_path / "out",
            "nowhere.yaml is missing",
        ),
        (
            foreign.images,
            "imagenet:VGG16",
            None,
            tmp_path / "out",
            "expected champion, challenger, a version",
        ),
        (foreign.images, "7", None, tmp_path / "out", "tiny has no version 7"),
        (foreign.images, "champion", None, tmp_path / "out", "5 of the 5 class folders"),
        (
            odd,
            "champion",
            None,
            tmp_path / "out",
            r"names that are not UTF-8, such as '\\udce9.jpg'",
        ),
        (
            empty,
            "champion",
            None,
            tmp_path / "out",
            r"received 1 files and no usable image \(1 not_an_image\)",
        ),
    ):
        with pytest.raises(UserError, match=message):
            main(images, model, output, classes=classes)
    assert (
        foreign.stamps == before
        and not (tmp_path / "out").exists()
        and len(list(taken.iterdir())) == 1
    )


def test_equal_words_go_to_an_equal_place() -> None:
    assert default_output("/scans/Other hospital/", "data/models/cnn_a") == Path(
        "data/assessments/Other_hospital-cnn_a"
    )
    assert default_output("/scans/b", "champion") == Path("data/assessments/b-champion")


def test_as_a_run_of_prefect(foreign: Foreign, server: str, tmp_path: Path) -> None:
    state = assess(
        str(foreign.images), classes="classes.yaml", output=str(tmp_path / "out"), return_state=True
    )
    assert state.is_completed() and state.message == f"report: {tmp_path / 'out/report.html'}"
