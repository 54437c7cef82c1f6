"""A project with `cache.type symlink` works after a move."""

import shutil
from pathlib import Path

import pytest

from flows.links import mend_links
from tests.support import toy_pipeline as toy

pytestmark = pytest.mark.slow


def test_links_follow_a_project_that_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    (first / "data/raw").mkdir(parents=True)
    for name in ("one", "two"):
        (first / "data/raw" / name).write_text(name)
    toy.git(first, "init", "--quiet")
    toy.dvc(first, "init", "--quiet")
    (first / ".dvc/config").write_text("[cache]\n    type = symlink\n")
    toy.dvc(first, "add", "--quiet", "data/raw")
    (first / "data/elsewhere").symlink_to(tmp_path / "gone")
    shutil.move(first, moved)
    monkeypatch.chdir(moved)
    assert Path("data/raw/one").is_symlink() and not Path("data/raw/one").exists()
    mend_links()
    assert [Path("data/raw", name).read_text() for name in ("one", "two")] == ["one", "two"]
    assert Path("data/elsewhere").readlink() == tmp_path / "gone"
