"""The names in the YAML files of CI and schedules exist, and CI's make targets work."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import Flow
from ruamel.yaml import YAML

from flows import publish, serve
from flows.assess import assess
from flows.predict import predict
from flows.retrain import retrain
from tests.support import ROOT
from tests.support import toy_pipeline as toy

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def load(path: Path) -> dict:
    return YAML(typ="safe").load(path)


def steps(workflow: Path) -> list[str]:
    """Return the commands of a workflow's steps."""
    return [
        step["run"]
        for job in load(workflow)["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_step_is_a_make_target(workflow: Path) -> None:
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert steps(workflow)
    for step in steps(workflow):
        assert re.fullmatch(r'make ([a-z]+)( ARGS="\$ARGUMENTS")?', step)[1] in targets


def test_secrets_come_only_from_the_store() -> None:
    for workflow in WORKFLOWS:
        for line in workflow.read_text().splitlines():
            if re.search(r"(KEY|TOKEN|PASSWORD|SECRET)\w*:", line):
                assert re.search(r"\$\{\{ (secrets\.\w+|github\.token) }}$", line), line


def test_the_deployments_name_the_flow_its_parameters_and_the_pool() -> None:
    deployments = load(ROOT / "prefect.yaml")["deployments"]
    flows = {
        "flows/retrain.py:retrain": retrain,
        "flows/predict.py:predict": predict,
        "flows/assess.py:assess": assess,
    }
    assert [deployment["name"] for deployment in deployments] == [
        "nightly",
        "on-change",
        "by-hand",
        "folder",
        "labelled",
    ]
    for deployment in deployments:
        flow = flows[deployment["entrypoint"]]
        assert deployment["work_pool"]["name"] == serve.POOL
        given = dict(deployment.get("parameters") or {})
        for trigger in deployment.get("triggers", []):
            given |= trigger["parameters"]
        flow.validate_parameters(
            given | {predict: {"images": []}, assess: {"images": "/scans"}}.get(flow, {})
        )
        assert set(given) <= set(inspect.signature(flow.fn).parameters)


@pytest.mark.parametrize("flow", [retrain, predict, assess])
def test_the_pages_of_prefect_document_every_parameter(flow: Flow) -> None:
    properties = flow.parameters.properties
    assert set(properties) == set(inspect.signature(flow.fn).parameters)
    assert all(described.get("description") for described in properties.values()), properties


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toy pipeline after a run, on a branch, with a Git and a DVC remote."""
    folder = tmp_path_factory.mktemp("team")
    root = toy.make(folder / "toy")
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder / "origin")], check=True)
    toy.git(root, "remote", "add", "origin", str(folder / "origin"))
    toy.git(root, "push", "--quiet", "origin", "main")
    toy.dvc(root, "remote", "add", "--quiet", "--default", "store", str(folder / "store"))
    (root / "data/report").mkdir(parents=True)
    (root / "data/report/report.md").write_text("### a wins\n")
    toy.git(root, "add", ".")
    toy.git(root, "commit", "--quiet", "--message", "remote")
    toy.git(root, "switch", "--quiet", "--create", "change")
    params = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(params + "train: {epochs: 7}\n")
    toy.dvc(root, "repro", "--quiet")
    return root


def make(root: Path, *arguments: str, path: str = "") -> str:
    """Run a make target of the project in another folder, with this environment."""
    variables = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([path, str(Path(sys.executable).parent), os.environ["PATH"]]),
    } | {
        f"GIT_{who}_{what}": "test@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    command = [
        "make",
        "--file",
        str(ROOT / "Makefile"),
        "--old-file",
        ".venv/installed",
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=root, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_push_and_pull_carry_objects_and_pointers(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(team, "push")
    assert toy.git(team, "show", "--name-only", "--format=%s", "origin/change").split() == [
        "Retrain",
        "dvc.lock",
    ]
    assert "params.yaml" in toy.git(team, "status", "--porcelain")  # only pointers are committed
    monkeypatch.chdir(team)
    assert not [
        command for command in publish.list_commands() if "commit" in command
    ]  # nothing is left
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--branch", "change", str(team.parent / "origin"), str(clone)],
        check=True,
    )
    make(clone, "pull")
    assert (clone / "out/join").read_text() == (team / "out/join").read_text()


@pytest.mark.slow
def test_the_comment_on_a_pull_request_has_report_metrics_and_parameters(
    team: Path, tmp_path: Path
) -> None:
    (tmp_path / "gh").write_text('#!/bin/sh\necho "$@" > posted\n')
    (tmp_path / "gh").chmod(0o755)
    make(team, "post", "PR=12", "BASE=main", path=str(tmp_path))
    assert (
        team / "posted"
    ).read_text() == "pr comment 12 --edit-last --create-if-none --body-file comment.md\n"
    comment = (team / "comment.md").read_text()
    assert comment.startswith("### a wins\n")
    assert "#### Metrics against main" in comment
    assert re.search(r"\| params\.yaml\s*\| train\.epochs\s*\| -\s*\| 7", comment)
