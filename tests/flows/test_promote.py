"""A person's decision changes the champion, needs a reason, and is recorded."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows import promote
from tasks.registry import promotions, versions
from tasks.tracking import runs
from tests.support import toy_registry
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a registry with three versions; the first was champion, the second is."""
    root = tmp_path_factory.mktemp("promote")
    (root / "params.yaml").write_text("register: {model: toy}\narchitectures: {cnn_a: {}}\n")
    (root / "data").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        for number in (1, 2, 3):
            toy_registry.register(root / f"toy{number}", {"image": str(number)}, ["1", "2"], [])
        for number in (1, 2):
            promote.promote(MlflowClient(), "toy", number, f"number {number}")
    return root


@pytest.fixture
def client(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Enter a copy of the template."""
    shutil.copytree(template, tmp_path / "copy")
    enter(tmp_path / "copy", monkeypatch)
    runs.open_store()
    return MlflowClient()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["promote", *arguments])
    promote.main()


def champion(client: MlflowClient) -> int:
    return int(versions.find_champion(client, "toy").version)


def test_a_version_is_promoted(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    promote.RECEIPT.write_text(json.dumps({"version": 3, "champion": 2}))
    call(monkeypatch, "--version", "3", "--reason", "the clinic's wish")
    assert champion(client) == 3
    assert (
        capsys.readouterr().out.strip()
        == "champion of toy: version 3, promotion in place of version 2"
    )
    line = promotions.read(promote.PROMOTIONS)[-1]
    assert (line["event"], line["champion_before"], line["champion"], line["reason"]) == (
        "promotion",
        2,
        3,
        "the clinic's wish",
    )
    assert (
        line["who"]
        and len(line["hashes"]["params"]) == 64
        and line["model_sha256"] == line["champion_sha256"]
    )
    assert json.loads(promote.RECEIPT.read_text()) == {
        "version": 3,
        "champion": 3,
        "champion_before": 2,
    }


def test_rolling_back_leads_to_the_one_before_and_no_further(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, "--rollback", "--reason", "wrong on bright scans")
    assert champion(client) == 1
    with pytest.raises(
        SystemExit,
        match=r"error: no previous champion to restore: .* lists none. Choose a version",
    ):
        call(monkeypatch, "--rollback", "--reason", "further")
    assert champion(client) == 1


def test_a_champion_that_left_no_line_is_rolled_back_to_the_last_that_did(
    client: MlflowClient,
) -> None:
    client.set_registered_model_alias("toy", versions.CHAMPION, "3")
    promote.roll_back(client, "toy", "who did this?")
    assert champion(client) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version", "9", "--reason", "x"], "error: toy has no version 9; known are 1, 2, 3"),
        (["--version", "2", "--reason", "x"], "error: version 2 is the champion of toy already"),
    ],
)
def test_mistakes_are_told(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    before = promote.PROMOTIONS.read_bytes()
    with pytest.raises(SystemExit, match=words):
        call(monkeypatch, *arguments)
    assert promote.PROMOTIONS.read_bytes() == before and champion(client) == 2


def test_altered_files_are_not_promoted(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = toy_registry.register(Path("toy4").resolve(), {"image": "4"}, ["1", "2"], [])
    (toy_registry.files(version) / "answers.json").write_text("{}")
    with pytest.raises(SystemExit, match="the files of version 4 of toy have changed"):
        call(monkeypatch, "--version", "4", "--reason", "x")
    assert champion(client) == 2


@pytest.mark.parametrize(
    "arguments",
    [["--rollback"], ["--version", "1", "--reason", " "], ["--version", "1", "--rollback"], []],
)
def test_a_decision_is_one_and_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, *arguments)
    assert caught.value.code == 2


def test_the_history_names_the_model_of_each_day(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call(monkeypatch, "--history")
    spans, lines = capsys.readouterr().out.split("\n\n")
    days = [line["when"][:10] for line in promotions.read(promote.PROMOTIONS)]
    assert [row.split()[0] for row in spans.splitlines()[1:]] == ["1", "2"]
    assert spans.splitlines()[2].split()[2] == days[1] and spans.endswith("now")
    assert lines.splitlines()[1].endswith("number 1") and lines.splitlines()[2].endswith("number 2")


def test_no_registry_is_made_by_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text("architectures: {cnn_a: {}}\n")
    call(monkeypatch, "--history")
    assert capsys.readouterr().out.startswith("no promotions yet")
    with pytest.raises(SystemExit, match="mlflow.db is missing"):
        call(monkeypatch, "--rollback", "--reason", "x")
    assert not (tmp_path / "mlflow.db").exists()
