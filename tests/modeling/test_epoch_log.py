"""The progress of a training has what a display shows of it."""

import json
from pathlib import Path

import pytest

from tasks.modeling.epoch_log import EpochLog

ROW = {"epoch": 4, "loss": 0.5, "accuracy": 0.7, "val_loss": 0.6, "val_accuracy": 0.8, "seconds": 2}


def test_each_epoch_and_each_phase_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    watch = EpochLog("train@head", started=1.0).watch()
    file = Path(".cache/progress/train@head.json")
    watch.on_phase("features", 0, 9)
    found = json.loads(file.read_text())
    assert (found["phase"], found["epoch"], found["epochs"]) == ("features", 0, 9)
    with caplog.at_level("INFO"):
        watch.on_epoch(ROW | {"phase": 2}, 9)
    assert caplog.messages == [
        "epoch  4/9  loss 0.5000  accuracy 0.700  val_loss 0.6000  val_accuracy 0.800  2.0 s, "
        "at most 10 s left"
    ]
    found = json.loads(file.read_text())
    del found["updated"]
    assert found == {
        "stage": "train@head",
        "started": 1.0,
        "epoch": 4,
        "epochs": 9,
        "phase": "phase 2",
        "loss": 0.5,
        "val_loss": 0.6,
        "score": 0.8,
        "metric": "val_accuracy",
        "epoch_seconds": 2,
    }
