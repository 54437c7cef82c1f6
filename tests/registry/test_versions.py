"""A change of the champion is recorded thrice and finished if interrupted; files that were altered are refused."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import UserError
from tasks.registry import promotions, versions
from tests.support import toy_registry
from tests.support.toy_registry import NAME

PROMOTIONS = Path("data/promotions.jsonl")


@pytest.fixture
def client(workspace: Path) -> MlflowClient:
    """A registry with two versions of a toy model, without champion."""
    for number in (1, 2):
        toy_registry.register(workspace / f"toy{number}", {"image": str(number)}, ["1", "2"], [])
    return MlflowClient()


def version(client: MlflowClient, number: int) -> ModelVersion:
    return client.get_model_version(NAME, str(number))


def change(client: MlflowClient, number: int, before: int | None) -> promotions.Line:
    """Return the line that makes a version champion."""
    sha256 = [client.get_model_version(NAME, str(one)).tags[versions.SHA256] if one else None for one in (number, before)]
    return promotions.new_line(
        promotions.PROMOTION, NAME, "why", {}, version=number, model_sha256=sha256[0], champion=number, champion_sha256=sha256[0],
        champion_before=before, champion_before_sha256=sha256[1],
    )  # fmt: skip


def champion(client: MlflowClient) -> int | None:
    found = versions.find_champion(client, NAME)
    return found and int(found.version)


def test_a_version_is_found_by_its_files(client: MlflowClient) -> None:
    assert int(versions.find_version(client, NAME, version(client, 2).tags[versions.SHA256]).version) == 2
    assert versions.find_version(client, NAME, "0" * 64) is None


def test_a_line_is_in_the_file_and_in_the_registry(client: MlflowClient) -> None:
    assert champion(client) is None
    line = change(client, 1, None)
    versions.record(client, version(client, 1), line, PROMOTIONS)
    assert champion(client) == 1
    assert promotions.read(PROMOTIONS)[-1] == line
    assert versions.history(client, NAME, PROMOTIONS) == versions.history(client, NAME, Path("data/none.jsonl")) == [line]


def test_a_champion_that_changed_meanwhile_is_not_overrun(client: MlflowClient) -> None:
    line = change(client, 1, None)
    versions.record(client, version(client, 2), change(client, 2, None), PROMOTIONS)
    before = PROMOTIONS.read_bytes()
    with pytest.raises(UserError, match=r"changed from version None to 2 meanwhile.*run again"):
        versions.record(client, version(client, 1), line, PROMOTIONS)
    assert champion(client) == 2 and PROMOTIONS.read_bytes() == before


def test_an_interrupted_change_is_finished(client: MlflowClient) -> None:
    """Killed after the line and before the alias."""
    versions.record(client, version(client, 1), change(client, 1, None), PROMOTIONS)
    promotions.append(PROMOTIONS, change(client, 2, 1))
    versions.settle(client, NAME, versions.history(client, NAME, PROMOTIONS))
    assert champion(client) == 2


def test_an_alias_that_was_moved_by_hand_stays(client: MlflowClient) -> None:
    versions.record(client, version(client, 1), change(client, 1, None), PROMOTIONS)
    client.set_registered_model_alias(NAME, versions.CHAMPION, "2")
    versions.settle(client, NAME, versions.history(client, NAME, PROMOTIONS))
    assert champion(client) == 2


def test_the_files_are_those_that_were_registered(client: MlflowClient) -> None:
    with versions.fetched(version(client, 1)) as folder:
        assert versions.artifact(folder, "model").joinpath("answers.json").read_text() == '{"image": "1"}'
        with pytest.raises(UserError, match="artifacts/other is missing"):
            versions.artifact(folder, "other")
    assert not folder.exists()


@pytest.mark.parametrize("harm", ["altered", "added", "removed"])
def test_other_files_are_refused(client: MlflowClient, harm: str) -> None:
    folder = toy_registry.files(version(client, 1))
    if harm == "altered":
        (folder / "answers.json").write_text('{"image": "2"}')
    elif harm == "added":
        (folder / "more.bin").touch()
    else:
        (folder / "classes.json").unlink()
    words = r"version 1 of toy is not what was registered: .* says [0-9a-f]{64}\. .*flows.promote"
    with pytest.raises(UserError, match=words), versions.fetched(version(client, 1)):
        pass


def test_lost_files_are_told(client: MlflowClient) -> None:
    folder = toy_registry.files(version(client, 1))
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(UserError, match="version 1 of toy cannot be read: .*is missing"), versions.fetched(version(client, 1)):
        pass
