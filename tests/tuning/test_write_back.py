"""Values are changed where they stand; every other byte, comments among them, stays."""

import difflib
import stat
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.params.whole import load_params
from tasks.tuning.write_back import rewrite, scalar

TEXT = """# Everything,  also   this

train: { epochs: 3,   batch_size: 1_6 }   # x
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

  plain_cnn:         # like: this
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
        ("cnn_a", {"dropout": 0.25}, ["  cnn_a: {dropout: 0.25}          # nothing yet"]),
        (
            "cnn_a",
            {"dense.0": 96, "schedule.patience": 4},
            ["  cnn_a: {dense: [96], schedule: {patience: 4}}          # nothing yet"],
        ),
        (
            "cnn_b",
            {"dense.1": 32, "dropout": 0.00001, "epochs": 4},
            ["  cnn_b: {dense: [128, 32], 'dropout': 0.00001, epochs: 4}    # in brackets"],
        ),
        ("block", {"dense.0": 8}, ["      - 8          # first"]),
        ("block", {"schedule.patience": 9}, ["      patience: 9"]),
        ("block", {"activation": "tanh"}, ["    activation: tanh"]),
        (
            "plain_cnn",
            {"dropout": 0, "optimizer": "sgd"},
            ["  plain_cnn: {dropout: 0, optimizer: sgd}         # like: this"],
        ),
        (
            "named",
            {"augmentation.rotation": 7.5},
            ["  named: {like: cnn_a, augmentation: {like: light, rotation: 7.5}}"],
        ),
        ("named", {"augmentation": None}, ["  named: {like: cnn_a, augmentation: null}"]),
        (
            "deep",
            {"head.dense.0.units": 16},
            ["  deep: {like: transfer, head: {dense: [{units: 16, dropout: 0.1}]}}"],
        ),
        (
            "deep",
            {"head.dropout": 0.5},
            ["  deep: {like: transfer, head: {dense: [{units: 8, dropout: 0.1}], dropout: 0.5}}"],
        ),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_the_lines_of_the_values_change(
    file: Path, architecture: str, values: dict, expected: list[str], newline: str
) -> None:
    before = TEXT.replace("\n", newline).encode()
    file.write_bytes(before)
    rewrite(file, architecture, values)
    lines = (old_or_new.decode().split(newline) for old_or_new in (before, file.read_bytes()))
    changes = [line for line in difflib.ndiff(*lines) if line[0] in "+-"]
    assert [line[2:] for line in changes if line[0] == "+"] == expected
    assert len(changes) - len(expected) <= len(expected)


def test_what_is_written_is_what_is_read(file: Path) -> None:
    rewrite(file, "block", {"dense": [16, 8], "learning_rate": 1.5e-07})
    block = load_params(file).architectures["block"]
    assert (block.structure.dense, block.train.learning_rate) == ((16, 8), 1.5e-07)
    assert "# a remark" in file.read_text()


def test_a_value_that_two_share_is_not_changed_for_both(file: Path) -> None:
    with pytest.raises(
        UserError, match=r"anchors or aliases\? Write by hand: schedule.patience: 7"
    ):
        rewrite(file, "two", {"schedule.patience": 7})
    assert file.read_text() == TEXT and list(file.parent.iterdir()) == [file]


def test_a_link_and_its_rights_stay(file: Path) -> None:
    target = file.rename(file.with_name("real.yaml"))
    target.chmod(0o640)
    file.symlink_to(target)
    rewrite(file, "cnn_a", {"dropout": 0.5})
    assert file.is_symlink() and "cnn_a: {dropout: 0.5}" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_values_in_one_line() -> None:
    values = {
        "a": [1, 0.5, 1e-05, 3.0],
        "b": None,
        "c": True,
        "d": "relu",
        "e": "yes",
        "f": "a: b",
        "g": "2",
    }
    assert (
        scalar(values)
        == '{a: [1, 0.5, 0.00001, 3.0], b: null, c: true, d: relu, e: yes, f: "a: b", g: "2"}'
    )
