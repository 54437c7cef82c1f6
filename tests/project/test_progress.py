"""A display finds the progress of a stage in a file, and a plan finds what the stage cost."""

import json
import time
from pathlib import Path

import pytest

from tasks import progress, stage


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)


def test_progress_is_replaced_as_a_whole() -> None:
    before = time.time()
    progress.write_progress("train@cnn_a", epoch=1, epochs=3, loss=0.5)
    progress.write_progress("train@cnn_a", epoch=2, epochs=3)
    (file,) = progress.PROGRESS.iterdir()
    found = json.loads(file.read_text())
    assert before <= found.pop("updated") <= time.time()
    assert file.name == "train@cnn_a.json"
    assert found == {"stage": "train@cnn_a", "epoch": 2, "epochs": 3}


def test_a_cache_that_cannot_be_written_stops_nothing() -> None:
    Path(".cache").touch()
    progress.write_progress("train@cnn_a", epoch=1)
    progress.write_usage("train@cnn_a")
    assert Path(".cache").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "dvc_stage", "expected"),
    [
        ({"architecture": "cnn_a"}, "", "train@cnn_a"),
        ({}, "", "train"),
        ({"architecture": "cnn_a"}, "evaluate@cnn_b", "evaluate@cnn_b"),
    ],
)
def test_a_finished_stage_leaves_its_cost_under_its_name(
    arguments: dict, dvc_stage: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/project/tasks/train.py"])
    monkeypatch.setenv("DVC_STAGE", dvc_stage)
    stage.record_usage(arguments)
    (file,) = progress.USAGE.iterdir()
    found = json.loads(file.read_text())
    assert file.stem == found["stage"] == expected
    assert found["seconds"] > 0 and 20 < found["peak_mb"] < 100_000
