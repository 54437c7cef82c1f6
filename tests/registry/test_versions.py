"""A change of the champion is finished after an interruption; changed files are refused."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import UserError
from tasks.registry import promotions, versions
from tasks.tracking.keys import make_key
from tests.support import toy_registry
from tests.support.names import ODD
from tests.support.pipeline import enter
from tests.support.toy_registry import NAME

pytestmark = pytest.mark.slow

PROMOTIONS = Path("data/promotions.jsonl")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a registry with two versions of a toy model and no champion."""
    root = tmp_path_factory.mktemp("versions")
    (root / "params.yaml").write_text("architectures: {cnn_a: {}}\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        for number in (1, 2):
            toy_registry.register(root / f"toy{number}", {"image": str(number)}, ["1", "2"], [])
    return root


@pytest.fixture
def client(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return a copy of the registry in the current folder. The versions' files stay in place."""
    for name in ("mlflow.db", "params.yaml"):
        shutil.copy(template / name, tmp_path)
    enter(tmp_path, monkeypatch)
    return MlflowClient()


def version(client: MlflowClient, number: int) -> ModelVersion:
    return client.get_model_version(NAME, str(number))


def change(client: MlflowClient, number: int, before: int | None) -> promotions.Line:
    """Return the line that makes a version champion."""
    sha256 = [
        version(client, one).tags[versions.SHA256] if one else None for one in (number, before)
    ]
    return promotions.make_line(
        promotions.PROMOTION,
        NAME,
        "why",
        {},
        version=number,
        model_sha256=sha256[0],
        champion=number,
        champion_sha256=sha256[0],
        champion_before=before,
        champion_before_sha256=sha256[1],
    )


@contextmanager
def spoilt(file: Path, content: bytes | None) -> Iterator[None]:
    """Give a file other content, or delete it, for the time of the block."""
    before = file.read_bytes() if file.exists() else None
    write(file, content)
    yield
    write(file, before)


def write(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def champion(client: MlflowClient) -> int | None:
    found = versions.find_champion(client, NAME)
    return found and int(found.version)


def test_a_line_is_in_the_file_and_in_the_registry(client: MlflowClient) -> None:
    assert champion(client) is None
    line = change(client, 1, None)
    versions.record(client, version(client, 1), line, PROMOTIONS)
    assert champion(client) == 1
    assert promotions.read(PROMOTIONS)[-1] == line
    assert (
        versions.read_history(client, NAME, PROMOTIONS)
        == versions.read_history(client, NAME, Path("data/none.jsonl"))
        == [line]
    )


def test_scores_are_read_with_the_names_of_their_classes(client: MlflowClient) -> None:
    scores = {f"test_recall_{name}": str(number) for number, name in enumerate(ODD)}
    client.set_model_version_tag(NAME, "1", "classes", json.dumps(ODD))
    for name, value in scores.items():
        client.set_model_version_tag(NAME, "1", make_key(name), value)
    assert scores.items() <= versions.read_tags(version(client, 1)).items()


def test_a_line_of_very_many_classes_fits_a_tag(client: MlflowClient) -> None:
    line = change(client, 1, None) | {"numbers": {"macro_f1": 0.5, "recalls": ["x" * 250] * 1000}}
    versions.record(client, version(client, 1), line, PROMOTIONS)
    (kept,) = [
        json.loads(value)
        for name, value in version(client, 1).tags.items()
        if name.startswith(versions.LINE)
    ]
    assert kept == line | {"numbers": {"macro_f1": 0.5}} and promotions.read(PROMOTIONS) == [line]


def test_a_champion_that_changed_meanwhile_is_kept(client: MlflowClient) -> None:
    line = change(client, 1, None)
    versions.record(client, version(client, 2), change(client, 2, None), PROMOTIONS)
    before = PROMOTIONS.read_bytes()
    with pytest.raises(UserError, match=r"changed from version None to 2 meanwhile.*run again"):
        versions.record(client, version(client, 1), line, PROMOTIONS)
    assert champion(client) == 2 and PROMOTIONS.read_bytes() == before


def test_an_interrupted_change_is_finished(client: MlflowClient) -> None:
    """The run was killed after the line and before the alias."""
    versions.record(client, version(client, 1), change(client, 1, None), PROMOTIONS)
    promotions.append(PROMOTIONS, change(client, 2, 1))
    versions.finish_change(client, NAME, versions.read_history(client, NAME, PROMOTIONS))
    assert champion(client) == 2


def test_an_alias_that_was_moved_by_hand_stays(client: MlflowClient) -> None:
    versions.record(client, version(client, 1), change(client, 1, None), PROMOTIONS)
    client.set_registered_model_alias(NAME, versions.CHAMPION, "2")
    versions.finish_change(client, NAME, versions.read_history(client, NAME, PROMOTIONS))
    assert champion(client) == 2


def test_changed_files_are_refused(client: MlflowClient) -> None:
    first = version(client, 1)
    with versions.fetch(first) as fetched:
        assert (
            versions.find_artifact(fetched, "model").joinpath("answers.json").read_text()
            == '{"image": "1"}'
        )
    assert not fetched.exists()
    folder = toy_registry.files(first)
    for name, content in (
        ("answers.json", b'{"image": "2"}'),
        ("more.bin", b""),
        ("classes.json", None),
    ):
        with spoilt(folder / name, content):
            words = "the files of version 1 of toy have changed .*flows.promote"
            with pytest.raises(UserError, match=words), versions.fetch(first):
                pass
    folder.rename(folder.with_name("elsewhere"))
    with (
        pytest.raises(UserError, match="version 1 of toy cannot be read: .*is missing"),
        versions.fetch(first),
    ):
        pass
    folder.with_name("elsewhere").rename(folder)
    with versions.fetch(first):
        pass
