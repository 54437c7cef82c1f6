"""A store that cannot take a model is told before a training begins."""

import shutil
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.tracking.place import LEAST, check_place


def test_a_folder_that_can_be_made_is_fine_and_a_server_speaks_for_itself(tmp_path: Path) -> None:
    check_place(
        f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "my store #1 (50%)/mlartifacts").as_uri()
    )
    check_place("http://127.0.0.1:9", "s3://bucket/folder")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_folder_or_may_not_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mlartifacts"
    file.touch()
    for place in (
        ("sqlite:///mlflow.db", file.as_uri()),
        (f"sqlite:///{file}/mlflow.db", "s3://bucket"),
        ("http://a", "/proc/1"),
    ):
        with pytest.raises(
            UserError, match="MLflow's store needs .*: expected a folder that can be written, but"
        ):
            check_place(*place)


def test_a_full_disk_is_told_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(LEAST, LEAST, 7_000_000)
    )
    with pytest.raises(
        UserError, match="expected at least 200 MB for the models, its disk has 7 MB left"
    ):
        check_place("sqlite:///mlflow.db", tmp_path.as_uri())
