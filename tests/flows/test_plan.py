"""A plan names the stages that would run, why, and what they take, and runs none of them."""

from pathlib import Path

import pytest

from flows import estimate, plan, progress
from flows.estimate import Estimator
from tasks.params.whole import load_params
from tests.support import toy_pipeline as toy

GRAPH = {"prepare": [], "train@a": ["prepare"], "train@b": ["prepare"], "join": ["train@a"]}


def test_stages_wait_for_what_they_need_and_for_a_free_slot() -> None:
    seconds = {"prepare": 1.0, "train@a": 4.0, "train@b": 5.0, "join": 2.0}
    assert plan.schedule(GRAPH, seconds, 2) == 7.0
    assert plan.schedule(GRAPH, seconds, 1) == 12.0
    assert plan.schedule(GRAPH, {"join": 2.0}, 2) == 2.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([{"changed outs": {"out": "deleted"}}], "no outputs here yet"),
        ([{"changed deps": {"params.yaml": {"train": "modified"}}}], "params.yaml: train"),
        ([{"changed deps": {"data/raw": "modified"}}, "changed command"],
         "its command changed; the images changed"),
        ([{"changed deps": {"tasks/imaging": "modified"}}], "code changed: tasks/imaging"),
        ([{"changed deps": {"data/clean": "modified"}}], "needs clean"),
    ],
)  # fmt: skip
def test_the_reason_is_in_words(changes: list, reason: str) -> None:
    assert plan.find_reason("x", {"x": changes}, ["clean"], cached=False) == reason


def test_the_last_run_is_the_estimate_else_the_speed_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("architectures: {a: {like: cnn_a}, b: {like: cnn_a}}\n")
    speed = {"first": 1.0, "train": 0.01, "predict": 0.001, "parameters": 1e6, "peak_mb": 1000.0}
    known = Estimator(150, 100, {}, load_params().architectures, {"a": speed}, factor=2.0)
    one, other = known.estimate("train@a"), known.estimate("train@b")
    assert (one.source, other.source) == ("probe", "a guess")
    epochs = known.sections["a"].train.epochs
    assert 0.7 * epochs < one.seconds - 2 * estimate.TYPICAL["train"][0] < 1.3 * epochs
    progress.USAGE.mkdir(parents=True)
    Path(progress.USAGE, "train@a.json").write_text('{"seconds": 33.0, "peak_mb": 700}')
    last = known.estimate("train@a")
    assert (last.seconds, last.memory_mb) == (33.0 + estimate.DVC, 700)
    assert last.source == "last run"


@pytest.mark.slow
def test_a_plan_runs_nothing_and_knows_the_run_cache(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = toy.copy(team / "driver", tmp_path / "toy")
    monkeypatch.chdir(root)
    monkeypatch.setattr(estimate, "probe", dict)
    monkeypatch.setattr("sys.argv", ["plan"])
    plan.main()
    assert "nothing to run: all 6 stages are up to date" in capsys.readouterr().out
    before = (root / "work/train@b").read_text()
    (root / "out/train@b").unlink()
    toy.instruct(root, "train@a", "say other")
    plan.main()
    printed = capsys.readouterr().out
    assert "5 of 6 stages would run" in printed and "needs train@a" in printed
    assert printed.count("its outputs are in DVC's run cache") == 1
    assert toy.ran(root) == [] and (root / "work/train@b").read_text() == before
