"""A store that has no room for a model is reported before a training begins."""

import shutil
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.tracking.store import LEAST, check_writable


def test_a_folder_that_can_be_created_is_fine_and_servers_are_not_checked(tmp_path: Path) -> None:
    check_writable(
        f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "my store #1 (50%)/mlartifacts").as_uri()
    )
    check_writable("http://127.0.0.1:9", "s3://bucket/folder")
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_a_protected_folder_is_named(tmp_path: Path) -> None:
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
            check_writable(*place)


def test_a_full_disk_is_reported_with_its_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(LEAST, LEAST, 7_000_000)
    )
    with pytest.raises(
        UserError, match="at least 200 MB of free disk space for the models, received 7 MB"
    ):
        check_writable("sqlite:///mlflow.db", tmp_path.as_uri())
