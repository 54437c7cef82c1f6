"""A tiny data set, and the stages of `dvc.yaml` run on it without DVC."""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.stage import call, read_arguments
from tests.support import ROOT, draw

TINY_PARAMS = """
validate: {expectations: {images_per_class: {minimum: 5, level: error}}}
split: {seed: 5, validation: 0.3}
train:
  image_size: [16, 20]
  channels: 1
  batch_size: 16
  epochs: 3
  learning_rate: 0.003
  augmentation: {rotation: 5, horizontal_flip: true}
architectures:
  tiny: {like: cnn_a, filters: [4, 8], dense: [8]}
  plain: {like: plain_cnn, filters: [4], dense: [8], epochs: 2, augmentation: null}
evaluate: {calibration_bins: 5}
register:
  model: tiny
  gate: {macro_f1: 0.01, worst_recall: 0, calibration_error: 1, recall_margin: null, images: 10}
report: {title: A <tiny> set}
"""
CLASSES = ["01", "NA", "_$1_$2 (no)\r|", "tumeur née"]  # easily damaged by readers and figures


def stages(params: str = TINY_PARAMS) -> Iterator[str]:
    """Yield the stages of `dvc.yaml` in order, such as `train@tiny`, for a params file."""
    architectures = YAML(typ="safe", pure=True).load(params)["architectures"]
    for verb, stage in read_dvc_yaml().items():
        yield from [f"{verb}@{name}" for name in architectures] if "foreach" in stage else [verb]


def read_dvc_yaml() -> dict[str, dict]:
    """Return the stages of `dvc.yaml`."""
    return YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]


def draw_tiny(raw: Path) -> None:
    """Draw 12 training and 5 test images of each class, and some unusable files and copies."""
    for subset, count in (("Training", 12), ("Testing", 5)):
        draw.draw_set(raw, {subset: dict.fromkeys(draw.LABELS, count)}, size=48)
        for drawn, label in zip(draw.LABELS, CLASSES, strict=True):
            (raw / subset / drawn).rename(raw / subset / label)
    whole = (raw / "Training/NA/meningioma_tumor_0000.jpg").read_bytes()
    (raw / "Training/NA/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "Training/01/notes.txt").write_text("A text file.\n")
    shutil.copyfile(
        raw / "Testing/01/glioma_tumor_0003.jpg", raw / "Training/01/copy_of_a_test_image.jpg"
    )
    shutil.copyfile(raw / "Training/01/glioma_tumor_0000.jpg", raw / "Training/01/again.jpg")


def enter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `root` the current folder, with its own MLflow store."""
    import mlflow  # costs seconds, and few tests need it

    monkeypatch.chdir(root)
    mlflow.set_tracking_uri(None)  # MLflow remembers the URI of the test before
    store = root / "mlflow.db"
    if not store.exists():
        store.write_bytes(empty_store())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@cache
def empty_store() -> bytes:
    """Return an MLflow database without an experiment. MLflow takes seconds to make one."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mlflow.db")
        _initialize_tables(create_sqlalchemy_engine(f"sqlite:///{file}"))
        return file.read_bytes()


def run_stage(name: str) -> None:
    """Run a stage such as `train@tiny` in the current folder, with its options in `dvc.yaml`."""
    verb, _, key = name.partition("@")
    stage = read_dvc_yaml()[verb]
    _, _, module, *words = stage.get("do", stage)["cmd"].replace("${key}", key).split()
    main = importlib.import_module(module).main
    arguments = read_arguments(main, words)
    if "keras" in sys.modules:
        # Layers are numbered from one, as in a process of the stage's own.
        sys.modules["keras"].backend.clear_session(free_memory=False)
    call(main, arguments)
