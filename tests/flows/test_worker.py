"""A worker checks out a commit, runs one stage, and loses nothing when DVC's remote fails."""

import hashlib
import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from flows import worker
from flows.graph import read_inputs
from tasks.errors import UserError
from tests.flows.conftest import publish
from tests.support import toy_pipeline as toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(team: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a toy pipeline that ran `prepare` after its commit, and its Git and DVC remotes."""
    folder = toy.copy(team, tmp_path_factory.mktemp("worker") / "team")
    root = folder / "driver"
    (root / "requirements.txt").write_text(
        f"pytest=={pytest.__version__} \\\n    --hash=sha256:0\n"
        "absent==1 ; sys_platform == 'win32'\n"
    )
    for stage in ("prepare", "train@a"):
        toy.instruct(root, stage, "say new")
    publish(root)
    toy.dvc(root, "repro", "--quiet", "prepare")
    toy.dvc(root, "push", "--quiet", "prepare")
    toy.ran(root)
    return folder


@pytest.fixture
def driver(template: Path, tmp_path: Path) -> Path:
    """Copy the template; `origin` and `store` are beside the copy."""
    shutil.copytree(template, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "driver"


@pytest.fixture
def clone(driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a worker's clone."""
    subprocess.run(
        ["git", "clone", "--quiet", str(tmp_path / "origin"), str(tmp_path / "clone")], check=True
    )
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def work(driver: Path, monkeypatch: pytest.MonkeyPatch, name: str = "train@a") -> str:
    """Run a stage here as the driver would order it; return the name of the state."""
    here = Path.cwd()
    monkeypatch.chdir(driver)
    inputs, pointers = read_inputs(name)
    monkeypatch.chdir(here)
    revision = toy.git(driver, "rev-parse", "HEAD").strip()
    order = worker.Order(name, revision, inputs, pointers)
    return worker.work(order, logging.getLogger("stage")).name


def test_a_remote_that_takes_no_more_is_named_and_the_next_try_pushes_what_was_made(
    driver: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC exits with 0 if only the run cache could not be copied."""
    wall = tmp_path / "store/runs"
    wall.write_text("a file where DVC needs a folder")
    with pytest.raises(
        UserError,
        match="its outputs are kept there, but could not be pushed to DVC's remote: ERROR: ",
    ):
        work(driver, monkeypatch)
    wall.unlink()
    assert work(driver, monkeypatch) == "Cached"
    assert toy.ran(clone) == ["train@a"]
    assert any((tmp_path / "store/runs").rglob("*"))
    made = hashlib.md5(
        (driver / "work/train@a").read_bytes() + (driver / "out/prepare").read_bytes()
    ).hexdigest()
    assert (tmp_path / "store/files/md5" / made[:2] / made[2:]).exists()


def test_a_remote_that_is_gone_is_named_before_anything_runs(
    driver: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").rename(tmp_path / "gone")
    with pytest.raises(
        UserError,
        match="(?s)its inputs could not be pulled from DVC's remote: ERROR: .*out/prepare",
    ):
        work(driver, monkeypatch)
    assert toy.ran(clone) == []


def test_the_drivers_commit_is_checked_out_and_the_records_of_the_run_before_are_forgotten(
    driver: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, committed = clone / "dvc.lock", (driver / "dvc.lock").read_text()
    toy.git(driver, "checkout", "--quiet", "dvc.lock")
    worker.check_out(publish(driver))
    lock.write_text("of the run before")
    toy.instruct(driver, "train@a", "say newer")
    (driver / "dvc.lock").write_text(committed)
    worker.check_out(publish(driver))
    assert "say newer" in (clone / "work/train@a").read_text() and lock.read_text() == committed
    toy.git(driver, "rm", "--quiet", "--cached", "dvc.lock")
    toy.git(driver, "commit", "--quiet", "--message", "without a lock")
    toy.git(driver, "push", "--quiet", "origin", "HEAD:main")
    lock.write_text("of the run before")
    worker.check_out(toy.git(driver, "rev-parse", "HEAD").strip())
    assert not lock.exists()


def test_a_commit_that_origin_does_not_have_is_refused(
    driver: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.git(driver, "commit", "--quiet", "--allow-empty", "--message", "not pushed")
    with pytest.raises(
        UserError,
        match="revision [0-9a-f]{40} is not in .*origin, where this worker looks: git push it",
    ):
        work(driver, monkeypatch)


def test_a_folder_in_which_somebody_works_is_refused(
    driver: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.instruct(clone, "join", "say edited")
    with pytest.raises(
        UserError,
        match="needs a clone of its own, and this one has uncommitted changes:\nM work/join",
    ):
        work(driver, monkeypatch)
    assert (clone / "work/join").read_text() == "say edited\n"


def test_other_packages_are_refused_by_name(
    driver: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (driver / "requirements.txt").write_text("pytest==0.1\nabsent==1\n")
    publish(driver)
    with pytest.raises(
        UserError,
        match=f"pytest {pytest.__version__}, expected ==0.1\n  absent is missing, expected ==1\n",
    ):
        work(driver, monkeypatch)
    assert toy.ran(clone) == []
