"""The flow runs a toy pipeline with a real server, and once the real pipeline."""

import contextvars
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from ruamel.yaml import YAML

from flows import project_lock, reproduce, retrain, serve, store
from flows.reproduce import Settings
from tests.support import ROOT
from tests.support import toy_pipeline as toy
from tests.support.pipeline import TINY_PARAMS, draw_tiny, empty_store, read_dvc_yaml

pytestmark = pytest.mark.slow

DONE = ("validate", "clean", "split")
runs: list[FlowRunFilter] = []  # of this file, in order


@pytest.fixture
def root(team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Path:
    """Enter a copy of the toy pipeline; failures that may pass are tried again at once."""
    copy = toy.copy(team / "driver", tmp_path / "toy")
    monkeypatch.chdir(copy)
    monkeypatch.setattr(
        reproduce, "Settings", lambda **given: Settings(**({"delays": (0.1, 0.1)} | given))
    )
    monkeypatch.setattr(reproduce, "SETTINGS", {})
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    return copy


def run(**parameters: object) -> tuple[str, str, dict[str, str]]:
    """Run the flow; return its state, its message, and the states of its task runs by name."""
    state = retrain.retrain(**({"update": False} | parameters), return_state=True)
    runs.append(FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id])))
    with get_client(sync_client=True) as client:
        task_runs = client.read_task_runs(flow_run_filter=runs[-1])
    return state.name, state.message, {task_run.name: task_run.state.name for task_run in task_runs}


def artifact(key: str) -> str:
    """Return an artifact of the last run: other tests use the server too."""
    of_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_key, flow_run_filter=runs[-1], limit=200)
    newest = max(found, key=lambda one: one.created)
    return newest.data if isinstance(newest.data, str) else json.dumps(newest.data)


def test_only_what_is_stale_runs_one_task_run_a_stage(root: Path) -> None:
    assert run() == ("Unchanged", "nothing changed", {})
    before = (root / "work/train@b").read_text()
    toy.instruct(root, "train@b", "say epoch  1/4  loss 1", "say epoch  2/4  loss 0.5", "say done")
    name, message, states = run()
    assert (name, message) == ("Completed", "3 of 6 stages ran: train@b, evaluate@b, join")
    assert states == {
        "prepare": "Skipped",
        "train@a": "Skipped",
        "evaluate@a": "Skipped",
    } | dict.fromkeys(["train@b", "evaluate@b", "join"], "Completed")
    assert sorted(toy.ran(root)) == ["evaluate@b", "join", "train@b"]
    assert "train@b: work/train@b modified" in artifact("retrain")
    assert json.loads(artifact("stages"))[3]["state"] == "Completed"
    assert artifact("train-b") in ("50", "50.0")
    (root / "work/train@b").write_text(before)
    assert (
        run(stages=["train@b"])[2]["train@b"] == "Cached"
    )  # what the run cache holds is not run again
    assert toy.ran(root) == []


def test_force_and_stages_choose_what_runs(root: Path) -> None:
    name, _, states = run(force=True, stages=["train@a"])
    assert (name, set(states)) == ("Completed", {"prepare", "train@a"})
    assert toy.ran(root) == ["prepare", "train@a"]
    name, message, _ = run(stages=["train@c"])
    assert (name, message.partition(";")[0]) == ("Failed", "unknown stages train@c")


def test_siblings_finish_when_one_fails_and_the_next_run_goes_on(root: Path) -> None:
    toy.instruct(
        root, "train@a", "say before", "fail the loss is not a number: lower learning_rate"
    )
    toy.instruct(root, "train@b", "say other")
    name, message, states = run()
    assert name == "Failed"
    assert "train@a failed: error: the loss is not a number: lower learning_rate" in message
    assert "not run because of it: evaluate@a, join" in message
    assert states["evaluate@b"] == "Completed"
    assert (states["evaluate@a"], states["join"]) == ("NotRun", "NotRun")
    assert sorted(toy.ran(root)) == [
        "evaluate@b",
        "train@a",
        "train@b",
    ]  # a stage's own verdict is not tried again
    assert "**train@a** Failed" in artifact("retrain")
    toy.instruct(root, "train@a", "say mended")
    assert run(stages=["evaluate@a"])[1] == "2 of 3 stages ran: train@a, evaluate@a"


def test_a_passing_failure_is_tried_again_and_a_time_limit_is_none(root: Path) -> None:
    toy.instruct(root, "train@a", "once connection refused by the store")
    assert run(stages=["train@a"])[0] == "Completed"
    assert toy.ran(root) == ["train@a", "train@a"]
    toy.instruct(root, "train@b", "sleep 120")
    name, message, states = run(stages=["train@b"], time_limit=3)
    assert (name, states["train@b"]) == ("Failed", "Ended")
    assert message.startswith("train@b was ended after its time limit of 3 seconds")


def test_independent_stages_run_side_by_side_within_their_slots(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place := root / "place").mkdir()
    for stage in ("train@a", "train@b"):
        toy.instruct(root, stage, f"meet {place}")  # alone, neither would end well
    assert run(stages=["train@a", "train@b"])[0] == "Completed"
    monkeypatch.setenv("PIPELINE_WORKERS_TRAIN", "1")
    for stage in ("train@a", "train@b"):
        toy.instruct(root, stage, "stamp", "sleep 0.5", "stamp")
    run(stages=["train@a", "train@b"])
    assert toy.overlap(root, "train@a", "train@b") <= 0


def test_a_second_run_in_the_folder_waits_or_is_refused(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    context = contextvars.copy_context()  # which has the address of the server
    waiting = threading.Thread(target=lambda: ended.append(context.run(run)[0]))
    with FileLock(project_lock.LOCK):
        assert run(overlap="refuse")[0] == "Refused"
        waiting.start()
        toy.until(lambda: "waiting for it to end" in caplog.text)
        assert ended == []
    waiting.join(60)
    assert ended == ["Unchanged"]


def test_publishing_pushes_commits_and_can_be_made_up_for(root: Path, tmp_path: Path) -> None:
    toy.git(root, "switch", "--quiet", "--create", "retrain")
    toy.instruct(root, "join", "say published")
    (tmp_path / "store").write_text("a file where DVC needs a folder")
    name, message, _ = run(publish=True)
    assert name == "Failed"
    assert message.startswith("publishing failed: dvc push --run-cache: ERROR: ")
    (tmp_path / "store").unlink()
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "origin")], check=True)
    assert run(publish=True)[2]["publish"] == "Completed"
    assert toy.git(root, "show", "--name-only", "--format=%s", "origin/retrain").split() == [
        "Retrain",
        "dvc.lock",
    ]
    assert any((tmp_path / "store").rglob("*"))


def test_a_lost_registry_is_filled_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (root / "data").mkdir()
    store.RECEIPT.write_text("{}")
    run()
    assert not store.RECEIPT.exists()
    store.RECEIPT.write_text("{}")
    store.DEFAULT_FILE.touch()
    run()
    assert store.RECEIPT.exists()


def test_a_schedule_fires_a_run_of_the_deployed_flow(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments = YAML(typ="safe").load(ROOT / "prefect.yaml")
    (polling,) = [one for one in deployments["deployments"] if one["name"] == "on-change"]
    polling |= {
        "schedules": [{"interval": 10, "slug": "poll"}],
        "parameters": {"overlap": "refuse", "update": False},
    }
    YAML(typ="safe").dump(deployments | {"deployments": [polling]}, root / "prefect.yaml")
    (root / "flows").symlink_to(ROOT / "flows")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    before = unchanged_runs()
    worker = serve.serve()
    try:
        toy.until(lambda: len(unchanged_runs() - before) >= 1, 90)
    finally:
        worker.end("the test is over")
        worker.process.wait()
    toy.until(lambda: not toy.processes(root), 20)


def unchanged_runs() -> set[str]:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=200)
    return {str(run.id) for run in runs if run.deployment_id and run.state_name == "Unchanged"}


def interrupt(flow: subprocess.Popen) -> None:
    os.killpg(flow.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("end", "status"),
    [(interrupt, 130), (subprocess.Popen.kill, -signal.SIGKILL)],
    ids=["interrupt", "kill -9"],
)
def test_an_ended_run_leaves_no_process_and_no_lock(
    root: Path, end: Callable[[subprocess.Popen], None], status: int
) -> None:
    toy.instruct(root, "train@a", "stubborn", "spawn 120", "sleep 120")
    toy.instruct(root, "train@b", "spawn 120", "sleep 120")
    flow = toy.start_flow(root)
    toy.until(lambda: toy.at_work(root, "train@a") and toy.at_work(root, "train@b"))
    ended = time.monotonic()
    end(flow)
    toy.until(lambda: not toy.processes(root), 20)
    assert time.monotonic() - ended < 10
    output = flow.communicate()[0]
    assert flow.returncode == status, output
    locks = json.loads((root / ".dvc/tmp/rwlock").read_text())
    assert not locks.get("read") and not locks.get("write")
    toy.instruct(root, "train@a", "say again")
    assert "Running stage 'train@a'" in toy.dvc(root, "repro", "train@a")


def test_wrong_input_ends_in_one_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["retrain"])
    with pytest.raises(
        SystemExit,
        match=r"error: data/raw.dvc is missing: bring images with `make data FROM=<folder>`",
    ):
        retrain.main()
    (root / "params.yaml").write_text("train: {epochs: 0}\narchitectures: {a: {like: plain_cnn}}\n")
    with pytest.raises(SystemExit, match=r"^error: params.yaml has 1 mistake:\n  train.epochs"):
        retrain.main()


def test_the_real_pipeline_gives_the_bytes_of_its_stages(
    pipeline: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages before the class weights are not run again."""
    monkeypatch.chdir(tiny_project(tmp_path / "project", pipeline))
    (tmp_path / "mlflow.db").write_bytes(empty_store())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    name, message, _ = run(stages=["train@tiny"])
    assert (name, message) == ("Completed", "2 of 5 stages ran: weigh, train@tiny")
    made = [
        path
        for place in ("data/models/tiny", "data/results/tiny")
        for path in Path(place).rglob("*")
        if path.is_file()
    ]
    assert {"model.keras", "predictions.csv", "history.csv"} <= {path.name for path in made}
    for path in made:
        assert path.name == ".gitignore" or path.read_bytes() == (pipeline / path).read_bytes(), (
            path
        )


def tiny_project(root: Path, pipeline: Path) -> Path:
    """Make a project of the real stages, with the tiny images and params; three stages are done."""
    draw_tiny(root / "data/raw")
    for name in ("dvc.yaml", "prefect.toml", "tasks"):
        (root / name).symlink_to(ROOT / name)
    (root / "params.yaml").write_text(TINY_PARAMS + "weigh: {method: balanced}\n")
    toy.git(root, "init", "--quiet")
    toy.dvc(root, "init", "--quiet")
    done = [out for stage in DONE for out in read_dvc_yaml()[stage]["outs"]]
    for out in done:
        copy = shutil.copytree if (pipeline / out).is_dir() else shutil.copyfile
        copy(pipeline / out, root / out)
    toy.dvc(root, "commit", "--quiet", "--force", *DONE)
    return root
