"""A killed search resumes, workers share it, poor trials stop early, test images stay unread."""

import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks.errors import UserError
from tasks.modeling import features
from tasks.modeling.epoch_log import EpochLog
from tasks.params.whole import load_params
from tasks.tables import read_table
from tasks.tracking import runs
from tasks.tuning import study, trials
from tasks.tuning.search import Inputs, Search, define
from tests.support import ROOT, toy_backbone, toy_search
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow

PATHS = [Path("data/clean"), Path("data/splits.csv")]
DECODING = Path("data/decoding.json")


def weights(architecture: str) -> Path:
    return Path(f"data/class_weights/{architecture}.json")


def options(architecture: str, **limits: object) -> trials.Options:
    return trials.Options(architecture, *PATHS, weights(architecture), DECODING, **limits)


def search(
    architecture: str,
    limit: int | None = None,
    kind: str = "hyperband",
    minutes: float | None = None,
) -> list[study.Outcome]:
    """Run a worker here; return the trials there are."""
    trials.main(options(architecture, kind=kind, trials=limit, minutes=minutes))
    return study.find(defined(architecture, kind))


def defined(architecture: str, kind: str = "hyperband") -> Search:
    return define(load_params(), architecture, kind, Inputs(PATHS[1], weights(architecture)))


def results(found: list[study.Outcome]) -> list[study.Outcome]:
    """Return the outcomes without their times."""
    return sorted(
        (dataclasses.replace(one, seconds=0) for one in found), key=lambda one: one.number
    )


def edit(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder before any search, without the files of test and withheld images."""
    root = toy_search.make(tmp_path_factory.mktemp("search") / "template")
    for path in read_table(root / "data/splits.csv").query("split in ('test', 'withheld')").path:
        (root / "data/clean" / path).unlink()
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        runs.open_store()  # takes seconds
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of the template."""
    shutil.copytree(template, tmp_path / "project")
    enter(tmp_path / "project", monkeypatch)
    return tmp_path / "project"


@pytest.fixture(scope="module")
def searched(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, list[study.Outcome]]]:
    """Run an undisturbed search in a folder; tests only read it."""
    root = tmp_path_factory.mktemp("searched") / "project"
    shutil.copytree(template, root)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        found = search("small")
    yield root, found


def test_a_search_needs_no_test_image_and_leaves_no_checkpoint(
    searched: tuple[Path, list[study.Outcome]],
) -> None:
    root, found = searched
    rows = read_table(root / "data/splits.csv").query("split == 'test'")
    assert len(rows) == 6 and not any((root / "data/clean" / path).exists() for path in rows.path)
    assert len(found) == 4
    assert not list((root / ".cache/checkpoints").iterdir())


def test_poor_trials_are_stopped_early_and_the_best_comes_first(
    searched: tuple[Path, list[study.Outcome]],
) -> None:
    _, found = searched
    whole = [one for one in found if one.state == "finished"]
    stopped = [one for one in found if one.state == "stopped early"]
    assert whole and stopped and len(whole) + len(stopped) == 4
    assert all(one.step == 2 for one in whole) and all(one.step == 1 for one in stopped)
    assert found[0] == min(whole, key=lambda one: one.score) == study.pick_best(found)
    assert len({json.dumps(one.values) for one in found}) == 4


def test_each_trial_is_a_run_below_that_of_the_search(
    searched: tuple[Path, list[study.Outcome]],
) -> None:
    root, found = searched
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    found_runs = client.search_runs(
        [client.get_experiment_by_name("image-classification").experiment_id]
    )
    (parent,) = [run for run in found_runs if trials.STUDY in run.data.tags]
    children = {int(run.data.params["trial"]): run for run in found_runs if run is not parent}
    assert sorted(children) == [0, 1, 2, 3]
    assert parent.info.status == "FINISHED" and parent.data.metrics["objective"] == pytest.approx(
        found[0].score
    )
    assert parent.data.params["space.dense.0.high"] == "24"
    for one in found:
        run = children[one.number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (
            run.data.params.items()
            >= {path: str(value) for path, value in one.values.items()}.items()
        )
        assert [
            point.step for point in client.get_metric_history(run.info.run_id, "epoch/val_loss")
        ] == list(range(1, one.step + 1))
        assert run.info.status == ("FINISHED" if one.state == "finished" else "KILLED")


def test_after_a_kill_the_search_goes_on_at_the_epoch_and_ends_equal(
    searched: tuple[Path, list[study.Outcome]], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Send `kill -9` during the second epoch of a trial that is not the first."""
    undisturbed = results(searched[1])
    victim = max(one.number for one in undisturbed if one.step == 2)
    assert victim > 0
    inputs = {
        "--architecture": "small",
        "--clean": PATHS[0],
        "--splits-csv": PATHS[1],
        "--class-weights": weights("small"),
    }
    inputs["--decoding-json"] = DECODING
    command = [
        sys.executable,
        "-m",
        "tasks.tuning.trials",
        *(str(word) for pair in inputs.items() for word in pair),
    ]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as worker:
        assert killed(worker, victim)
    assert worker.returncode == -signal.SIGKILL
    before = study.find(defined("small"))
    assert {one.number: one.state for one in before}[victim] == "unfinished"
    with caplog.at_level(logging.INFO):
        found = search("small")
    assert f"trial {victim} was interrupted after 1 epochs: resuming" in caplog.messages
    assert "resuming after epoch 1" in caplog.messages
    assert sum(message.startswith("epoch ") for message in caplog.messages) == sum(
        one.step for one in found
    ) - sum(one.step for one in before)
    assert results(found) == undisturbed


def killed(worker: subprocess.Popen, victim: int) -> bool:
    """Kill the worker as soon as it tells of the first epoch of a trial."""
    at = -1
    for line in worker.stdout:
        if line.startswith("trial ") and ": dense" in line:
            at = int(line.removeprefix("trial ").partition(":")[0])
        if at == victim and line.startswith("epoch  1/"):
            worker.kill()
            return True
    return False


def test_two_workers_never_have_the_same_trial_and_a_lost_one_is_taken_up(root: Path) -> None:
    what = defined("small")
    one, other = (study.claim(study.open_study(what), what, limit=2) for _ in range(2))
    assert {one.trial.number, other.trial.number} == {0, 1}
    assert study.claim(study.open_study(what), what, limit=2) is None
    other.lock.release()  # as the operating system does when a process is killed
    again = study.claim(study.open_study(what), what, limit=2)
    assert (again.trial.number, again.values) == (other.trial.number, other.values)


def test_a_trial_that_never_gets_on_is_given_up(root: Path) -> None:
    what = defined("small")
    for _ in range(study.MAX_STARTS + 1):
        claim = study.claim(study.open_study(what), what, limit=1)
        assert claim.trial.number == 0
        claim.lock.release()
    assert study.claim(study.open_study(what), what, limit=1) is None
    assert [one.state for one in study.find(what)] == ["failed"]


def test_what_is_searched_decides_the_study_and_what_is_written_does_not(root: Path) -> None:
    def name() -> str:
        return defined("small").name

    before = name()
    edit(
        "dense: [8]}", "dense: [16], activation: tanh, epochs: 2}"
    )  # as if the best values were written
    edit("trials: 4", "trials: 9")
    assert name() == before
    names = [before, defined("small", "random").name]
    for old, new in (
        ("high: 24", "high: 32"),
        ("seed: 1", "seed: 2"),
        ("filters: [4]", "filters: [8]"),
    ):
        edit(old, new)
        names.append(name())
    PATHS[1].write_text(PATHS[1].read_text() + "\n")
    names.append(name())
    assert len(set(names)) == 6


def test_the_second_trial_of_a_head_computes_no_features(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the second fold: the features are those of all images, in any fold."""
    edit("objective: val_loss", "objective: val_macro_f1\n  folds: 2")
    computed, compute = [], features._run
    monkeypatch.setattr(
        features, "_run", lambda *arguments: computed.append(1) or compute(*arguments)
    )
    with toy_backbone.in_place_of_mobilenet():
        found = search("head", 2)
    assert len(computed) == 1
    assert len(found) == 2 and found[0].state == "finished" and found[0].step == 4
    assert 0 < found[0].score <= 1 and found[0].epochs in (1, 2)


def test_folds_keep_groups_together_and_each_usable_image_validates_once(root: Path) -> None:
    edit("factor: 2", "factor: 2\n  folds: 3")
    what = defined("forest")
    data = trials.load_data(options("forest"), what.section, None)
    assert set(data.splits.split) == {"training", "validation"} and len(data.splits) == 36
    folds = trials.split_folds(data.splits, what)
    validating = pd.concat([fold[fold.split == "validation"] for fold in folds])
    assert sorted(validating.path) == sorted(data.splits.path)
    for fold in folds:
        assert not set(fold[fold.split == "training"].group) & set(
            fold[fold.split == "validation"].group
        )
    found = search("forest", 6)
    assert {one.state for one in found} == {"finished", "stopped early"}
    assert {one.step for one in found if one.state == "finished"} == {3}


def test_more_folds_than_groups_are_refused(root: Path) -> None:
    edit("factor: 2", "factor: 2\n  folds: 9")
    with pytest.raises(
        UserError,
        match="tune.folds: received 9, expected at most 6: the class glioma_tumor has no more",
    ):
        search("forest")


def test_random_search_trains_every_trial_whole_until_the_time_is_over(root: Path) -> None:
    assert search("forest", kind="random", minutes=0) == []
    found = search("forest", 3, kind="random")
    assert [one.state for one in found] == ["finished"] * 3
    assert study.find(defined("forest")) == []


def test_a_trial_that_runs_out_of_time_goes_on_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = defined("forest")
    trial = study.claim(study.open_study(what), what, 1).trial
    watcher = trials.FoldWatcher(
        trial,
        dataclasses.replace(what, tune=what.tune.model_copy(update={"folds": 3})),
        0,
        [],
        0.0,
        0.0,
        EpochLog("tune@small", "val_loss"),
    )
    row = {"epoch": 1, "loss": 1, "accuracy": 0, "val_loss": 1, "val_accuracy": 0, "seconds": 0}
    with pytest.raises(trials.OutOfTimeError):
        watcher.report(row, 1)
    assert [(one.state, one.step) for one in study.find(what)] == [("unfinished", 1)]


def test_a_trial_that_cannot_be_trained_ends_the_search_and_names_its_values(root: Path) -> None:
    edit("filters: [4]", "padding: valid, kernel: 31, filters: [4, 4]")
    with pytest.raises(
        UserError,
        match=r"small, trial 0 \(dense.0 \d+, activation .*image_size \[32, 32\] is too small",
    ):
        search("small", 1)
    assert [one.state for one in study.find(defined("small"))] == ["failed"]


def test_a_trial_is_worth_the_epoch_that_a_training_would_keep(root: Path) -> None:
    what = defined("small")  # its objective is the loss
    history, train = [{"val_loss": 0.5}, {"val_loss": 0.2}, {"val_loss": 0.4}], what.section.train
    assert trials.select_row(history, what, what.section) == history[1]
    last = what.section.model_copy(update={"train": train.model_copy(update={"keep": "last"})})
    assert trials.select_row(history, what, last) == history[2]


def test_macro_f1_is_that_of_the_classes_with_images() -> None:
    probabilities = np.eye(3)[[0, 1, 1, 0]]
    assert trials.macro_f1(np.array([0, 1, 1, 1]), probabilities) == {
        "val_macro_f1": pytest.approx((2 / 3 + 0.8) / 2)
    }


def test_epochs_are_those_of_the_best_unless_the_schedule_reaches_to_the_end(root: Path) -> None:
    section = load_params().architectures["small"]
    assert trials.count_epochs([1, 4, 2, 3], section) == 3
    cosine = section.train.schedule.model_copy(update={"kind": "cosine"})
    assert (
        trials.count_epochs(
            [1],
            section.model_copy(
                update={"train": section.train.model_copy(update={"schedule": cosine})}
            ),
        )
        == 4
    )


def test_optuna_takes_a_trial_up_again() -> None:
    """Check what `study._find_interrupted` relies on: Optuna does not promise it."""
    one = optuna.create_study()
    trial = one.ask()
    value = trial.suggest_float("x", 0, 1)
    again = optuna.Trial(one, trial._trial_id)
    assert again.number == trial.number and again.suggest_float("x", 0, 1) == value
