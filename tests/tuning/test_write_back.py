"""Values are changed in place, and comments survive."""

import difflib
import stat
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.params.whole import load_params
from tasks.tuning.write_back import format_value, write_values
from tests.support import ROOT

TEXT = """# Everything,  also   this

train: {epochs: 3,   batch_size: 1_6}   # x
architectures:
  cnn_a: {}          # nothing yet
  cnn_b: {dense: [128, 64], 'dropout': "0.1"}    # in brackets
  block:
    like: cnn_a      # another
    # a remark
    dense:
      - 128          # first
      - 64
    schedule:
      kind: plateau

  plain_cnn: null    # like: this
  named: {like: cnn_a, augmentation: light}
  deep: {like: transfer, head: {dense: [{units: 8, dropout: 0.1}]}}
  one: {like: cnn_a, schedule: &schedule {kind: plateau, patience: 2}}
  two: {like: cnn_a, schedule: *schedule}

report: {title: "Tümör: a  title"}   # the end, without a line of its own"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("architecture", "values", "expected"),
    [
        ("cnn_a", {"dropout": 0.25}, ["cnn_a: {dropout: 0.25} # nothing yet"]),
        (
            "cnn_a",
            {"dense.0": 96, "schedule.patience": 4},
            ["cnn_a: {dense: [96], schedule: {patience: 4}} # nothing yet"],
        ),
        (
            "cnn_b",
            {"dense.1": 32, "dropout": 0.00001, "epochs": 4},
            ["cnn_b: {dense: [128, 32], 'dropout': 0.00001, epochs: 4} # in brackets"],
        ),
        ("block", {"dense.0": 8}, ["- 8 # first"]),
        ("block", {"schedule.patience": 9}, ["patience: 9"]),
        ("block", {"activation": "tanh"}, ["activation: tanh"]),
        (
            "plain_cnn",
            {"dropout": 0, "optimizer": "sgd"},
            ["plain_cnn: {dropout: 0, optimizer: sgd} # like: this"],
        ),
        (
            "named",
            {"augmentation.rotation": 7.5},
            ["named: {like: cnn_a, augmentation: {like: light, rotation: 7.5}}"],
        ),
        ("named", {"augmentation": None}, ["named: {like: cnn_a, augmentation: null}"]),
        (
            "deep",
            {"head.dense.0.units": 16},
            ["deep: {like: transfer, head: {dense: [{units: 16, dropout: 0.1}]}}"],
        ),
        (
            "deep",
            {"head.dropout": 0.5},
            ["deep: {like: transfer, head: {dense: [{units: 8, dropout: 0.1}], dropout: 0.5}}"],
        ),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_the_lines_of_the_values_change_and_comments_stay(
    file: Path, architecture: str, values: dict, expected: list[str], newline: str
) -> None:
    """Spaces within a line do not count."""
    file.write_bytes(TEXT.replace("\n", newline).encode())
    write_values(file, architecture, values)
    after = file.read_bytes().decode()
    assert after.count("\n") == after.count(newline)
    changes = [line for line in difflib.ndiff(words(TEXT), words(after)) if line[0] in "+-"]
    assert [line[2:] for line in changes if line[0] == "+"] == expected
    assert len(changes) - len(expected) <= len(expected)


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_layout_of_the_projects_own_file_stays(tmp_path: Path) -> None:
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    file = tmp_path / "params.yaml"
    file.write_text(before, encoding="utf-8")
    write_values(file, "cnn_a", {"dropout": 0.25})
    changed = set(file.read_text(encoding="utf-8").splitlines()) - set(before.splitlines())
    assert changed == {"  cnn_a: {dropout: 0.25}"}


def test_what_is_written_is_what_is_read(file: Path) -> None:
    write_values(file, "block", {"dense": [16, 8], "learning_rate": 1.5e-07})
    block = load_params(file).architectures["block"]
    assert (block.structure.dense, block.train.learning_rate) == ((16, 8), 1.5e-07)
    assert "# a remark" in file.read_text()


def test_a_value_that_two_share_is_not_changed_for_both(file: Path) -> None:
    with pytest.raises(
        UserError, match=r"anchors or aliases\? Write by hand: schedule.patience: 7"
    ):
        write_values(file, "two", {"schedule.patience": 7})
    assert file.read_text() == TEXT and list(file.parent.iterdir()) == [file]


def test_a_link_and_its_rights_stay(file: Path) -> None:
    target = file.rename(file.with_name("real.yaml"))
    target.chmod(0o640)
    file.symlink_to(target)
    write_values(file, "cnn_a", {"dropout": 0.5})
    assert file.is_symlink() and "cnn_a: {dropout: 0.5}" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1e-05, "0.00001"),
        (3.0, "3.0"),
        (None, "null"),
        ("relu", "relu"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_value_is_written_as_a_person_would(value: object, text: str) -> None:
    assert format_value(value) == text
