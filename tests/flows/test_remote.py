"""Two workers, each with its own clone, cache and settings, run stages for a driver."""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from ruamel.yaml import YAML

from flows import process, remote, reproduce, retrain
from flows.graph import read_graph, read_inputs
from flows.reproduce import Settings
from tasks.errors import UserError
from tests.flows.conftest import publish
from tests.support import ROOT
from tests.support import toy_pipeline as toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clones(team: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the toy pipeline with its remotes, and clone it twice."""
    folder = toy.copy(team, tmp_path_factory.mktemp("remote") / "team")
    (folder / "driver/flows").symlink_to(ROOT / "flows")
    publish(folder / "driver")
    for name in ("one", "other"):
        subprocess.run(
            ["git", "clone", "--quiet", str(folder / "origin"), str(folder / name)], check=True
        )
    return folder


@pytest.fixture
def root(clones: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter the driver's folder; failures that may pass are tried again at once."""
    monkeypatch.chdir(clones / "driver")
    monkeypatch.setattr(
        reproduce, "Settings", lambda **given: Settings(**({"delays": (0.1, 0.1)} | given))
    )
    monkeypatch.setattr(reproduce, "SETTINGS", {})
    toy.ran(clones / "driver")
    yield clones / "driver"
    publish(clones / "driver")


@pytest.fixture(scope="module")
def workers(clones: Path, server: str) -> Iterator[list[Path]]:
    """Start two workers of pool `gpu` in the clones."""
    folders = [clones / "one", clones / "other"]
    for folder in folders:
        start_worker(folder)
    with get_client(sync_client=True) as client:
        toy.until(lambda: "gpu" in {pool.name for pool in client.read_work_pools()})
        toy.until(lambda: len(client.read_workers_for_work_pool("gpu")) == 2)
    yield folders
    for folder in folders:
        toy.kill(folder)


def start_worker(folder: Path) -> None:
    """Start `make worker POOL=gpu` in a clone, with its own settings of Prefect."""
    variables = {
        "PREFECT_HOME": str(folder.parent / f"{folder.name}.home"),
        "PREFECT_API_URL": get_current_settings().api.url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    subprocess.Popen(
        [sys.executable, "-m", "flows.serve", "worker", "gpu"],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(**parameters: object) -> tuple[str, str]:
    state = retrain.retrain(update=False, remote={"train": "gpu"}, return_state=True, **parameters)
    return state.name, state.message


def test_two_workers_train_at_once_for_a_driver_that_trains_nothing(
    root: Path, workers: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (place := root.parent / "place").mkdir()
    toy.instruct(root, "train@a", f"meet {place}", "say epoch  1/1  loss 0.5")
    toy.instruct(
        root, "train@b", f"meet {place}", "fail the loss is not a number: lower learning_rate"
    )
    toy.instruct(root, "prepare", "say new inputs, of which no commit has a record")
    publish(root)
    name, message = run()
    assert name == "Failed"
    assert "train@b failed: error: the loss is not a number: lower learning_rate" in message
    assert "not run because of it: evaluate@b, join" in message
    assert "epoch  1/1  loss 0.5" in caplog.text
    assert toy.ran(root) == ["prepare", "evaluate@a"]
    assert sorted(toy.ran(folder)[0] for folder in workers) == ["train@a", "train@b"]
    assert (root / "out/evaluate@a").read_text().endswith((root / "work/prepare").read_text())


def test_a_stage_whose_worker_died_is_taken_up_again(
    root: Path, workers: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        remote, "SILENCE", 10.0
    )  # less than Prefect's shortest time between heartbeats
    hanging = root.parent / "hanging"
    toy.instruct(root, "train@a", f"hang {hanging}")
    publish(root)
    died: list[Path] = []

    def kill_it() -> None:
        toy.until(hanging.exists)
        died.extend(folder for folder in workers if "train@a" in toy.ran(folder))
        toy.kill(died[0])

    killer = threading.Thread(target=kill_it)
    killer.start()
    assert run(stages=["train@a"]) == ("Completed", "1 of 2 stages ran: train@a")
    killer.join()
    assert toy.ran(root) == []
    assert "train@a" in toy.ran(next(folder for folder in workers if folder not in died))
    start_worker(died[0])


def test_an_interrupt_of_the_driver_ends_the_stage_at_the_worker(
    root: Path, workers: list[Path]
) -> None:
    hanging = root.parent / "hanging again"
    toy.instruct(root, "train@a", "stubborn", "spawn 300", f"hang {hanging}")
    publish(root)
    flow = toy.start_flow(root, "--stages", "train@a", "--remote", "train=gpu")
    try:
        toy.until(hanging.exists)
        os.killpg(flow.pid, signal.SIGINT)
        assert flow.wait(30) == 130
    finally:
        flow.kill()
    toy.until(
        lambda: (
            not [
                words
                for folder in workers
                for words in toy.processes(folder).values()
                if "repro" in words or "spawned" in words
            ]
        ),
        30,
    )


def test_what_workers_cannot_see_is_refused(root: Path) -> None:
    graph = read_graph()
    with pytest.raises(UserError, match="remote: unknown trian; known are evaluate, evaluate@a"):
        remote.prepare({"trian": "gpu"}, graph, set(graph))
    assert remote.prepare({"train": "gpu"}, graph, {"prepare"}) == {}
    (root / "notes.txt").write_text("no stage reads this\n")
    remote.refuse_unready(["train@a"])
    toy.instruct(root, "train@a", "say changed")
    with pytest.raises(
        UserError,
        match=r"workers see only committed files, and these are not:\n  M work/train@a\ncommit",
    ):
        remote.refuse_unready(["train@a", "train@b"])
    toy.git(root, "commit", "--quiet", "--all", "--message", "changed")
    with pytest.raises(
        UserError, match="workers cannot fetch commit .*: origin does not have it; git push it"
    ):
        remote.refuse_unready(["train@a"])


def test_the_command_line_names_verbs_and_pools() -> None:
    assert [retrain.read_pair(text) for text in ("train=gpu", "train@a=big")] == [
        ("train", "gpu"),
        ("train@a", "big"),
    ]
    with pytest.raises(
        argparse.ArgumentTypeError, match="expected VERB=POOL such as train=gpu, received train"
    ):
        retrain.read_pair("train")


def test_a_stage_with_results_out_of_the_cache_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "read_files", lambda stage: (["work/join"], ["out/join"]))
    with pytest.raises(
        UserError, match="join must run here: DVC's cache does not keep its output out/join"
    ):
        remote.refuse_unready(["join"])


def test_what_goes_elsewhere_never_runs_here(root: Path) -> None:
    toy.instruct(root, "train@a", "say other")
    with process.end_together():
        state = remote.take("train@a", 60)
    assert state.is_failed()
    assert toy.ran(root) == []


def test_the_records_of_a_stages_inputs_are_cut_to_what_it_reads(root: Path) -> None:
    inputs, pointers = read_inputs("join")
    assert inputs == ["out/evaluate@a", "out/evaluate@b"]
    assert set(YAML(typ="safe").load(pointers["dvc.lock"])["stages"]) == {
        "evaluate@a",
        "evaluate@b",
    }
    assert read_inputs("prepare")[0] == []
