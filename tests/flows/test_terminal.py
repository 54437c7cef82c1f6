"""A run is shown as a live table that fits the terminal, or as plain lines without noise."""

import io
import json
import logging
import time
from pathlib import Path

import pytest
from prefect.states import Completed, Failed
from rich.console import Console

from flows import progress, result, terminal
from flows.stage_table import Row, select_rows
from flows.terminal import LiveDisplay, PlainDisplay


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def draw(display: LiveDisplay, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    display.console = console
    console.print(display.draw())
    return console.file.getvalue().splitlines()


def test_plain_lines_have_states_and_what_a_stage_says_and_the_log_has_all(
    capsys: pytest.CaptureFixture,
) -> None:
    display = PlainDisplay()
    display.begin(["train@a", "split"])
    display.start("train@a")
    noise = ["Running stage 'train@a':", "> python -m tasks.train", "Updating lock file 'dvc.lock'"]
    noise += ["WARNING: All log messages before absl::InitializeLog() is called", " "]
    for line in [*noise, "30 images", "warn: few images"]:
        display.show("train@a", line)
    display.end("train@a", Completed())
    display.end("split", Completed(name="Skipped"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["train@a: started", "train@a: 30 images", "warning: train@a: few images"]
    assert printed[3].startswith("train@a: done after ") and len(printed) == 4
    assert progress.log_file("train@a").read_text().splitlines()[: len(noise)] == noise


@pytest.mark.parametrize("width", [100, 50])
def test_the_table_has_a_trainings_progress_and_fits(width: int) -> None:
    display = LiveDisplay()
    display.begin(["prepare", "train@a", "train@b", "join"])
    display.end("prepare", Completed())
    for stage in ("train@a", "train@b"):
        display.start(stage)
    facts = {"epoch": 3, "epochs": 10, "loss": 0.5, "score": 0.875, "metric": "val_macro_f1"}
    facts |= {"updated": time.time(), "epoch_seconds": 60.0}
    progress.PROGRESS.mkdir(parents=True)
    Path(progress.PROGRESS, "train@a.json").write_text(json.dumps(facts))
    display.show("train@b", "epoch  2/4  loss 0.25  val_loss 0.3  2.0 s, at most 4 s left")
    display.start("join")
    display.show("join", "files:  40%|████      | 4/10 [00:02<01:03, 2 files/s]")
    display.warn("few images")
    lines = draw(display, width, 30)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "epoch 3/10  loss 0.500" in text and "epoch 2/4" in text and "! few images" in text
    assert "files 4/10" in text and not progress.log_file("join").read_text()
    assert ("7:00" in text) == (width == 100)


def test_progress_of_an_earlier_run_is_not_shown() -> None:
    progress.PROGRESS.mkdir(parents=True)
    facts = {"epoch": 3, "epochs": 10, "updated": 100.0}
    Path(progress.PROGRESS, "train@a.json").write_text(json.dumps(facts))
    assert progress.read_training("train@a", since=200.0) is None
    assert progress.read_training("train@a", since=50.0).share == 0.3
    Path(progress.PROGRESS, "train@a.json").write_text("{")
    assert progress.read_training("train@a", since=50.0) is None


def test_a_low_terminal_counts_finished_and_waiting_stages() -> None:
    states = ["Completed"] * 8 + ["Failed", "Running"] + ["Waiting"] * 10
    rows = {f"stage{number}": Row(state) for number, state in enumerate(states)}
    chosen = select_rows(rows, 6)
    assert len(chosen.stages) <= 6 and {"stage8", "stage9"} <= set(chosen.stages)
    assert len(chosen.stages) + len(chosen.before) + len(chosen.after) == len(rows)
    display = LiveDisplay()
    display.rows = rows
    assert len(draw(display, 100, 16)) <= 16


def test_prefects_own_lines_are_left_out(capsys: pytest.CaptureFixture) -> None:
    log = logging.getLogger("prefect.runs")
    with terminal.open_display() as display:
        assert isinstance(display, PlainDisplay)
        log.warning("the server is away")
        log.info("a line", extra={"stage_line": True})
        engine = log.makeRecord(log.name, logging.ERROR, str(terminal.PREFECT / "task_engine.py"),
                                1, "Finished in state Failed()", (), None)  # fmt: skip
        log.handle(engine)
    assert capsys.readouterr().out == "warning: the server is away\n"
    assert terminal.current() is not display


def test_a_failed_stage_is_told_with_its_last_lines(capsys: pytest.CaptureFixture) -> None:
    display = LiveDisplay()
    display.start("train@a")
    for number in range(20):
        display.show("train@a", f"line {number}")
    display.end("train@a", Failed())
    terminal.print_failure("train@a", display.rows["train@a"])
    printed = capsys.readouterr().out
    assert "train@a failed after" in printed and ".cache/logs/train@a.log" in printed
    assert "line 19" in printed and "line 11" not in printed


def test_the_result_fits_100_columns_and_a_run_without_models_ends_in_its_message(
    capsys: pytest.CaptureFixture,
) -> None:
    result.print_result("nothing changed")
    assert capsys.readouterr().out.split() == ["nothing", "changed"]
    Path("data/models").mkdir(parents=True)
    scores = (
        "all classes,a_name_of_thirty_characters_xx,0.91,0.88,0.8,0.94,0.87,1142788,3725,strong"
    )
    heads = "question,architecture,val_macro_f1,test_accuracy,test_accuracy_low,test_accuracy_high,"
    heads += "test_without_copies_accuracy,parameters,seconds,overfitting"
    result.COMPARISON_CSV.write_text(f"{heads}\n{scores}\n")
    winner = {"winner": "a_name", "ranked_by": "val_macro_f1", "test_accuracy": 0.88}
    winner |= {"test_accuracy_low": 0.8, "test_accuracy_high": 0.94}
    result.COMPARISON_JSON.write_text(json.dumps(winner))
    receipt = {"version": 2, "model": "toy", "architecture": "a_name", "verdict": "promoted"}
    receipt |= {"champion": 2, "checks": [{"met": True, "text": "macro F1 0.9"}]}
    result.RECEIPT.write_text(json.dumps(receipt))
    result.print_result("1 of 1 stages ran")
    printed = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 100
    assert "88.0%, 95 % interval 80.0% to 94.0%" in printed and "1:02:05" in printed
    assert "0.800 to 0.940" in printed and "✓ macro F1 0.9" in printed and "data/models" in printed
