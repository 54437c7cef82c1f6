"""Ensembles are evaluated, compared, reported, registered and served as one model."""

import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from serving import display, schemas
from serving.current import open_current
from tasks import combine
from tasks.assessment import model_record
from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.registry import load
from tasks.results import TIMING, read_timing
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.hashes import file_sha256, folder_sha256
from tests.support.oracle import check
from tests.support.page import parse
from tests.support.pipeline import CLASSES, enter, run_stage

pytestmark = pytest.mark.slow

BINS = 5  # evaluate.calibration_bins of the tiny set
ENSEMBLES = """
ensembles:
  committee: {members: [tiny, plain]}
  poll: {members: [plain, tiny], vote: majority, weights: {plain: 0, tiny: 2}}
"""
NAMES = ("committee", "poll")


@pytest.fixture(scope="module")
def combined(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a pipeline with two ensembles, one of which wins."""
    root = tmp_path_factory.mktemp("combined") / "workspace"
    shutil.copytree(pipeline, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    with (root / "params.yaml").open("a") as params:
        params.write(ENSEMBLES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
        for stage in ("combine", "compare"):
            run_stage(stage)
        comparison = json.loads(Path("data/comparison.json").read_text())
        Path("data/comparison.json").write_text(json.dumps(comparison | {"winner": "committee"}))
        MlflowClient().delete_registered_model_alias(
            "tiny", "champion"
        )  # so that nobody has to be asked
        for stage in ("register", "report"):
            run_stage(stage)
        yield root


def results(name: str) -> Path:
    return Path("data/ensembles/results") / name


def costs_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "size.json").read_text()) | read_timing(folder)


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_without_ensembles_there_is_an_empty_list(pipeline: Path) -> None:
    assert files(pipeline / "data/ensembles").keys() == {"ensembles.json"}
    assert (pipeline / "data/ensembles/ensembles.json").read_text() == "{}\n"


def test_what_was_written_is_as_that_of_an_architecture(combined: Path) -> None:
    """Apart from what only a training knows."""
    trained = {path.name for path in Path("data/results/tiny").iterdir()}
    for name in NAMES:
        assert {path.name for path in Path("data/ensembles/results", name).iterdir()} == trained - {
            "history.csv",
            "samples.jpg",
        }
        table, member = (
            read_table(results(name) / "predictions.csv"),
            read_table(Path("data/results/tiny/predictions.csv")),
        )
        assert list(table) == list(member)
        pd.testing.assert_frame_equal(
            table[["path", "label", "split"]], member[["path", "label", "split"]]
        )
    costs, one = costs_of(results("committee")), costs_of(Path("data/results/tiny"))
    assert costs.keys() == one.keys() and costs["parameters"] > one["parameters"]


def test_where_another_machine_trained_the_members_the_same_bytes_come_out(combined: Path) -> None:
    """And no times of the ensemble, which would be the sums of theirs."""
    before = files(Path("data/ensembles"))
    TIMING.rename("away")
    run_stage("combine")
    assert files(Path("data/ensembles")) == before and not TIMING.exists()
    Path("away").rename(TIMING)


@pytest.mark.parametrize("name", NAMES)
def test_serving_answers_what_the_table_says(combined: Path, name: str) -> None:
    table = read_table(results(name) / "predictions.csv")
    predictor = load.load_predictor(f"data/ensembles/models/{name}")
    answers = predictor.predict(Path("data/clean") / path for path in table.path)
    shares = np.array([list(answer.probabilities.values()) for answer in answers])
    assert np.abs(shares - table.filter(regex="^p_").to_numpy()).max() < 1e-5
    assert np.abs([answer.distance for answer in answers] - table.distance).max() < 1e-5
    assert [answer.predicted for answer in answers] == table.predicted.tolist()
    chosen = json.loads((results(name) / "thresholds.json").read_text())
    assert (predictor.thresholds.confidence, predictor.thresholds.distance) == (
        chosen["confidence"],
        chosen["distance"],
    )


def test_each_is_a_row_of_the_comparison(combined: Path) -> None:
    rows = read_table(Path("data/comparison.csv")).set_index("architecture")
    assert set(rows.index) == {"tiny", "plain", *NAMES} and set(rows["rank"]) == set("1234")
    assert rows.loc["poll", ["kind", "vote", "members", "weights"]].tolist() == [
        "ensemble",
        "majority",
        "plain tiny",
        "0 1",
    ]
    weights = list(map(float, rows.weights["committee"].split()))
    assert sum(weights) == pytest.approx(1) and rows.members["committee"] == "tiny plain"
    assert rows.loc["tiny", ["kind", "vote", "members", "weights"]].tolist() == ["cnn", "", "", ""]
    assert float(rows.seconds["poll"]) == pytest.approx(
        float(rows.seconds["tiny"]) + float(rows.seconds["plain"]), abs=0.02
    )
    paired = read_table(Path("data/paired_tests.csv"))
    assert {paired.winner[0], *paired.other} == set(rows.index)


def test_chosen_weights_lose_no_more_than_a_member_alone(combined: Path) -> None:
    """Before the temperature, on the validation images that chose them."""
    weights = json.loads(Path("data/ensembles/ensembles.json").read_text())["committee"]["weights"]
    tables = [
        read_table(Path("data/results") / name / "predictions.csv").query("split == 'validation'")
        for name in weights
    ]
    truth = np.array(
        [[row[f"p_{row['label']}"] for row in table.to_dict("records")] for table in tables]
    )
    loss = -np.log(np.array(list(weights.values())) @ truth).mean()
    assert loss <= min(-np.log(truth).mean(axis=1)) + 1e-6


def test_the_report_tells_of_the_members(combined: Path) -> None:
    page = parse(Path("data/report/report.html").read_text(encoding="utf-8"))
    check(combined, page, BINS)
    marks = [attributes for attributes, _ in page.numbers if attributes["data-metric"] == "weight"]
    assert {(mark["data-model"], mark["data-member"]) for mark in marks} == set(
        itertools.product(NAMES, ("tiny", "plain"))
    )
    text = Path("data/report/report.html").read_text(encoding="utf-8")
    chapter = text[
        text.index('id="model-poll"') : text.index("</section>", text.index('id="model-poll"'))
    ]
    # Only one ensemble has such a member, and only the other one has chosen weights.
    assert text.count("A member with weight 0 does not predict and costs nothing") == 1
    assert "The weights minimise the log loss on the validation images" not in chapter
    assert text.count("The weights minimise the log loss on the validation images") == 1
    assert "Ensemble, " in chapter and "<h4>Training</h4>" not in chapter
    assert "an ensemble has no heat map. The heat maps of its members are in their" in chapter
    paths = read_table(Path("data/files.csv")).path
    phrases = {"95 %", "F1", "0 is best", "near 1 ", "weight 0"}
    known = sorted({*phrases, *CLASSES, *paths}, key=len, reverse=True)
    for loose in page.loose:
        for words in known:
            loose = loose.replace(words, "")
        assert not re.search(r"\d", loose), loose


def test_one_version_of_the_registry_answers(combined: Path) -> None:
    """The winner is one model, whose files are checked and whose answers are those of the table."""
    receipt = json.loads(Path("data/registration.json").read_text())
    assert receipt["architecture"] == "committee" and receipt["version"] == 2
    assert receipt["model_sha256"] == folder_sha256(Path("data/ensembles/models/committee"))
    table = read_table(results("committee") / "predictions.csv").query("split == 'test'")
    model = mlflow.pyfunc.load_model("models:/tiny/2")
    answers = model.predict(
        pd.DataFrame({"image": [(Path("data/clean") / path).read_bytes() for path in table.path]})
    )
    columns = [column for column in table if column.startswith("p_")]
    assert np.abs(answers[columns].to_numpy(float) - table[columns].to_numpy()).max() < 1e-5
    assert (
        answers.predicted.tolist() == table.predicted.tolist() and answers.abstained.notna().all()
    )


def test_a_server_describes_it_and_says_why_there_is_no_heat_map(combined: Path) -> None:
    current = open_current("2", "tiny", Limits())
    card = schemas.make_model_card(current)
    assert card.architecture == "committee" and card.members == json.loads(
        Path("data/ensembles/models/committee/ensemble.json").read_text()
    )["weights"]  # fmt: skip
    assert (card.height, card.width, card.channels) == (16, 20, 1)
    assert current.model.find_heat(np.zeros((16, 20, 1), np.uint8), "01") is None
    assert current.model.no_heat_map.startswith("an ensemble has no heat map of its own")
    shown = display.render_card(current.model.predictor, has_report=False)
    assert "20 × 16 pixels, grey" in shown and "tiny (" in shown


def test_it_is_assessed_with_the_images_that_its_members_were_given(combined: Path) -> None:
    for found in (
        model_record.find_record("2", "tiny", Limits()),
        model_record.find_record("data/ensembles/models/committee", None, Limits()),
    ):
        assert (
            found.own["test_accuracy"]
            == json.loads((results("committee") / "metrics.json").read_text())["test_accuracy"]
        )
        assert len(found.given) > 0 and (found.data / "splits.csv").exists()


def test_its_run_in_mlflow_has_members_and_scores(combined: Path) -> None:
    run = runs.find_run(runs.open_store(), file_sha256(results("poll") / "predictions.csv"))
    assert {name: run.data.params[name] for name in ("vote", "members", "weights")} == {
        "vote": "majority", "members": "plain tiny", "weights": "0 1",
    }  # fmt: skip
    assert "test_macro_f1" in run.data.metrics and run.info.run_name == "poll"


def test_a_member_without_weight_is_no_part_of_the_model(combined: Path) -> None:
    assert [path.name for path in Path("data/ensembles/models/poll/members").iterdir()] == ["tiny"]
    assert json.loads(Path("data/ensembles/ensembles.json").read_text())["poll"]["weights"] == {
        "plain": 0,
        "tiny": 1,
    }
    costs, member = costs_of(results("poll")), costs_of(Path("data/results/tiny"))
    assert (
        costs["parameters"] == member["parameters"]
        and costs["train_seconds"] > member["train_seconds"]
    )
    tables = [
        read_table(place / "predictions.csv")
        for place in (results("poll"), Path("data/results/tiny"))
    ]
    assert tables[0].predicted.tolist() == tables[1].predicted.tolist()


def test_members_of_other_images_are_refused(combined: Path, tmp_path: Path) -> None:
    table = read_table(Path("data/results/tiny/predictions.csv"))
    write_table(table, tmp_path / "tiny/predictions.csv")
    write_table(table[:-1], tmp_path / "plain/predictions.csv")
    with pytest.raises(
        UserError, match="other images or classes than that of tiny: expected the same"
    ):
        combine.read_members(["tiny", "plain"], tmp_path, tmp_path)
