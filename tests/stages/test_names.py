"""Classes and files of any name go through all stages, and keep their names in every output.

`EXAMPLES=200 pytest tests/stages/test_names.py` tries more names. Each example takes five seconds.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from PIL import Image

from serving import rows
from serving.explain import find_target
from tasks.imaging.picture import Limits
from tasks.quality.scan import scan
from tasks.registry import versions
from tasks.reporting.page import escape_markdown
from tasks.tables import escape_controls, read_table, write_table
from tests.support import ROOT
from tests.support.names import EXAMPLES, ODD, classes, fit, names, quick
from tests.support.page import parse
from tests.support.pipeline import enter, run_stage

EACH = 8  # images of a class
MODEL, RESULTS, EXPLANATIONS = (
    Path("data/models/tiny"),
    Path("data/results/tiny"),
    Path("data/explanations/tiny"),
)
PARAMS = """
split: {validation: 0.3, test: 0.3}
architectures: {tiny: {like: plain_cnn}}
register: {model: tiny, gate: null}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
@settings(
    quick, max_examples=EXAMPLES or 1, phases=[Phase.explicit, *[Phase.generate] * bool(EXAMPLES)]
)
@given(classes(2, 4), st.lists(names(), min_size=EACH, max_size=EACH, unique=True))
@example(
    ["$5_$10", "Corn_(maize)", "_a\rb|<i>", "é" * 127],
    ["\r", "x" * 251, "a\nb", " lead", "-rf", "a\\nb", "#a?", "NA"],
)
def test_any_names_go_through_all_stages(labels: list[str], files: list[str]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        enter(Path(folder), monkeypatch)
        Path("params.yaml").write_text(PARAMS)
        Path("tasks").symlink_to(ROOT / "tasks")
        paths = draw(labels, files)
        write_table(
            scan(Path("data/raw"), Limits(10**6, 10**6)).files, Path("data/files.csv"), "%.3f"
        )
        # Great Expectations takes seconds, and `pipeline` has such names too.
        Path("data/validation.json").write_text("[]")
        run_stage("clean")
        run_stage("split")
        train()
        for stage in ("evaluate@tiny", "combine", "compare", "register", "report"):
            run_stage(stage)
        check(labels, paths)


def draw(labels: list[str], files: list[str]) -> list[str]:
    """Draw noise for each class under file names with an image ending, and return the paths."""
    paths, rng = [], np.random.default_rng(0)
    for label in labels:
        Path("data/raw", label).mkdir(parents=True)
        for number, name in enumerate(files):
            path = f"{label}/{fit(name + '_' * 4)[:-4] if len(name.encode()) > 251 else name}.png"
            path = path if path not in paths else f"{label}/{number}.png"
            Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(Path("data/raw", path))
            paths.append(path)
    return sorted(paths)


def train() -> None:
    """Write the outputs of a training, for a model that guesses."""
    splits = read_table(Path("data/splits.csv"))
    labels, rng = sorted(set(splits.label)), np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(len(labels)), len(splits))
    known = splits[["path", "label", "split"]].assign(
        predicted=[labels[index] for index in shares.argmax(axis=1)], distance=0.5
    )
    columns = pd.DataFrame(shares, columns=[f"p_{label}" for label in labels])
    write_table(known.join(columns), RESULTS / "predictions.csv")
    history = {"epoch": [1, 2], "accuracy": 0.5, "loss": 1.0, "val_accuracy": 0.5, "val_loss": 1.0}
    write_table(pd.DataFrame(history), RESULTS / "history.csv")
    (RESULTS / "size.json").write_text('{"parameters": 9}')
    Image.new("L", (8, 8)).save(RESULTS / "samples.jpg")
    MODEL.mkdir(parents=True)
    for name, content in {
        "classes.json": labels,
        "calibration.json": {"temperature": 1.0},
        "summary.txt": 0,
    }.items():
        (MODEL / name).write_text(json.dumps(content))
    explained = (
        known.drop(columns="distance")
        .head(2)
        .assign(confidence=0.5, kind="right", picture="", overlay="")
    )
    write_table(explained, EXPLANATIONS / "explanations.csv")
    (EXPLANATIONS / "sanity.json").write_text(json.dumps({"reason": "it guesses", "images": 0}))


def check(labels: list[str], paths: list[str]) -> None:
    """Check that every name stands in the outputs of the stages."""
    assert sorted(read_table(Path("data/splits.csv")).path) == paths
    assert read_table(RESULTS / "per_class.csv").label.tolist() == labels
    scores = json.loads((RESULTS / "metrics.json").read_text())
    version = MlflowClient().get_model_version("tiny", "1")
    tags, recalls = versions.read_tags(version), [f"test_recall_{label}" for label in labels]
    assert [float(tags[name]) for name in recalls] == [scores[name] for name in recalls]
    assert len(
        [
            name
            for name in mlflow.get_run(version.run_id).data.metrics
            if name.startswith("test_recall_")
        ]
    ) == len(labels)
    assert json.loads(Path("data/registration.json").read_text(encoding="utf-8"))["champion"] == 1
    page = parse(Path("data/report/report.html").read_text(encoding="utf-8"))
    assert {
        attributes["data-label"] for _, attributes in page.tags if "data-label" in attributes
    } == set(labels)
    header = rows.make_header([f"p_{label}" for label in labels])
    assert len(set(header)) == len(header) and "".join(header).isprintable()


@quick
@given(st.sampled_from(ODD) | names())
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(
        f"- {escape_markdown(name)}: 3\n\n| {escape_markdown(name)} |\n|---|\n"
    )
    shown = (
        escape_controls(name)
        .strip(" ")
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
    )
    plain = rendered.replace("<!-- -->", "").replace("&lt;!-- --&gt;", "")
    assert plain.startswith(f"<ul>\n<li>{shown}") and "<th>" in plain and "<a " not in plain


@quick
@given(names())
def test_the_picture_of_a_file_of_any_name_can_be_written(name: str) -> None:
    with TemporaryDirectory() as folder:
        target = find_target(Path(folder), Path("scans", name))
        target.parent.mkdir()
        target.with_name(f"{target.name}.part").touch()
        assert target.parent == Path(folder, "scans") and target.suffix.lower() in (".jpg", ".jpeg")
