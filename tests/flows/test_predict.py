"""The flow runs the command line, and its state is the outcome."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.states import State

from flows.predict import predict
from tests.support import ROOT, toy_model
from tests.support.draw import LABELS, draw_set

pytestmark = pytest.mark.slow


@pytest.fixture
def run(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., State]:
    """Return the flow for eight drawn images in `images` and a model with random weights."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    draw_set(Path("images"), {"": dict.fromkeys(LABELS, 2)}, size=24)
    toy_model.write(Path("models/random"), 1)
    return lambda **arguments: predict(
        **{"images": ["images"], "model": "models/random"} | arguments, return_state=True
    )


def test_a_folder_is_answered_and_what_has_no_answer_is_told(run: Callable[..., State]) -> None:
    Path("images/notes.txt").write_text("notes")
    state = run(explain="seen")
    assert state.is_completed() and state.name == "Incomplete"
    assert state.message == "9 files, 8 predicted by models/random, 1 without a prediction"
    rows = list(csv.DictReader(Path("predictions.csv").read_text().splitlines()))
    assert len(rows) == 9 and all(
        (Path("seen") / row["path"]).exists() for row in rows if not row["error"]
    )


def test_a_mistake_fails_in_words(run: Callable[..., State]) -> None:
    state = run(model="models/none")
    assert state.is_failed() and state.message.startswith(
        "error: models/none is not a folder: expected one that training wrote"
    )


def test_a_time_limit_ends_it(run: Callable[..., State]) -> None:
    state = run(time_limit=1)
    assert (
        state.is_failed()
        and state.name == "Ended"
        and "time limit of 1 seconds; run again" in state.message
    )
