"""The graph and the status of a real, small DVC project."""

import shutil
from pathlib import Path

import pytest

from flows.graph import (
    DvcError,
    downstream,
    read_graph,
    read_status,
    refuse_without_git,
    run_dvc,
    upstream,
)
from tasks.errors import UserError, describe_error
from tasks.tracking.hashes import git_revision
from tests.support import toy_pipeline as toy

pytestmark = pytest.mark.slow

GRAPH = {
    "prepare": [],
    "train@a": ["prepare"],
    "evaluate@a": ["train@a"],
    "train@b": ["prepare"],
    "evaluate@b": ["train@b"],
    "join": ["evaluate@a", "evaluate@b"],
}


@pytest.fixture(scope="module")
def project(team: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the toy pipeline with an import."""
    root = toy.copy(team / "driver", tmp_path_factory.mktemp("graph") / "project")
    (root / "images").mkdir()
    (root / "images" / "one").write_text("1")
    toy.dvc(root, "import-url", "images", "raw")
    return root


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def test_the_graph_is_that_of_dvc_yaml_in_execution_order_without_the_import() -> None:
    graph = read_graph()
    assert graph == GRAPH
    order = list(graph)
    assert all(
        order.index(needed) < order.index(stage) for stage in graph for needed in graph[stage]
    )


def test_the_status_names_what_changed_and_nothing_else(project: Path) -> None:
    assert read_status() == {}
    (project / "images" / "two").write_text("2")  # an import's source is no stage
    assert read_status() == {}
    before = (project / "work/train@b").read_text()
    toy.instruct(project, "train@b", "say something else")
    assert list(read_status()) == ["train@b"]
    (project / "work/train@b").write_text(before)
    assert read_status() == {}


def test_upstream_is_what_a_stage_needs_and_downstream_what_needs_it() -> None:
    assert upstream(["evaluate@b"], GRAPH) == {"evaluate@b", "train@b", "prepare"}
    assert upstream([], GRAPH) == set()
    assert downstream({"train@a"}, GRAPH) == {"train@a", "evaluate@a", "join"}
    assert downstream(set(), GRAPH) == set()


def test_an_unknown_stage_is_told_with_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"unknown stages train@c, merge; known are prepare, train@a, .*join"
    ):
        upstream(["train@c", "join", "merge"], GRAPH)


def test_what_dvc_refuses_comes_in_its_words(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text("stages: {prepare: {command: ls}}\n")
    with pytest.raises(DvcError, match=r"dvc\.yaml"):
        read_graph()
    (project / "dvc.yaml").write_text(before)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DvcError, match="not inside of a DVC repository"):
        read_status()
    with pytest.raises(DvcError, match=r"dvc status: .*not inside of a DVC repository"):
        run_dvc("status")


def test_without_git_the_one_command_is_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless DVC is configured to work without Git."""
    root = toy.copy(project, tmp_path / "unpacked")
    shutil.rmtree(root / ".git")
    monkeypatch.chdir(root)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for work in (read_graph, read_status, lambda: run_dvc("status")):
        with pytest.raises(
            UserError, match="unpacked is in no Git repository, and DVC needs Git.*: git init$"
        ):
            work()
    (root / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    assert read_graph() == GRAPH
    (root / ".dvc/config.local").unlink()
    toy.git(root, "init", "--quiet")
    assert read_graph() == GRAPH


def test_where_git_is_not_installed_the_word_is_that(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        UserError, match="git is not installed, and DVC needs Git. Do this, .*: install git"
    ):
        refuse_without_git()
    with pytest.raises(FileNotFoundError) as caught:
        git_revision()
    assert describe_error(caught.value) == "git is not installed: install it, and run again"


def test_in_a_clone_of_another_user_the_one_command_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    command = f"git config --global --add safe.directory {project}"
    with pytest.raises(UserError, match=f"belongs to another user.*: {command}$"):
        read_graph()
