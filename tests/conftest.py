"""What many tests share: stages run as `dvc.yaml` words them, and one tiny set that went through all of them."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from tasks.stage import read_arguments
from tests.support import draw

ROOT = Path(__file__).parents[1]
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
CLASSES = ["01", "NA", "no_tumor", "tumeur née"]  # names that a careless reader of tables would spoil
STAGES = [
    "validate", "clean", "split", "weigh", "train@tiny", "train@plain", "evaluate@tiny", "evaluate@plain", "explain@tiny",
    "explain@plain", "combine", "compare", "register", "report",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of flows come last: Prefect's threads draw from Python's random numbers, which Keras takes its seeds from.

    Side by side, the tests of a file stay in one process, so that they share what they set up.
    """
    items.sort(key=with_server)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}{' with a server' * with_server(item)}"))


def with_server(item: pytest.Item) -> bool:
    return "server" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def threads() -> None:
    """TensorFlow takes its number of threads only before it computes anything; all tests here use the default of two."""
    if "tensorflow" in sys.modules:
        from tasks.modeling.training import use_threads

        use_threads(2)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server of the tests' own, with an empty database."""
    from prefect.settings import PREFECT_API_URL, temporary_settings  # costs seconds, and few tests need it

    from flows.server import free_port, launch

    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
    launch(command, address, {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"})
    with temporary_settings({PREFECT_API_URL: address}), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PREFECT_API_URL", address)  # for the flows that run as processes
        yield address  # it ends with this process, after Prefect sent its last lines


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage ran once. Only for reading: what changes something takes `workspace`."""
    root = tmp_path_factory.mktemp("pipeline")
    draw_tiny(root / "data/raw")
    (root / "params.yaml").write_text(TINY_PARAMS)
    (root / "tasks").symlink_to(ROOT / "tasks")  # what is registered takes its code along
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        for stage in STAGES:
            run_stage(stage)
    return root


@pytest.fixture
def workspace(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `pipeline` with a registry of its own, made the current folder."""
    root = tmp_path / "workspace"
    shutil.copytree(pipeline, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    enter(root, monkeypatch)
    return root


def draw_tiny(raw: Path) -> None:
    """Draw 12 training and 5 test images of each of `CLASSES`, and files with the usual troubles."""
    for subset, count in (("Training", 12), ("Testing", 5)):
        draw.draw_set(raw, {subset: dict.fromkeys(draw.LABELS, count)}, size=48)
        for drawn, label in zip(draw.LABELS, CLASSES, strict=True):
            (raw / subset / drawn).rename(raw / subset / label)
    whole = (raw / "Training/NA/meningioma_tumor_0000.jpg").read_bytes()
    (raw / "Training/NA/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "Training/01/notes.txt").write_text("A text file.\n")
    shutil.copyfile(raw / "Testing/01/glioma_tumor_0003.jpg", raw / "Training/01/copy_of_a_test_image.jpg")
    shutil.copyfile(raw / "Training/01/glioma_tumor_0000.jpg", raw / "Training/01/again.jpg")


def enter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in `root`, with an MLflow store of its own there."""
    monkeypatch.chdir(root)
    mlflow.set_tracking_uri(None)  # MLflow remembers what the test before asked for
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def run_stage(name: str) -> None:
    """Call a stage such as `train@tiny` in the current folder, with the arguments that `dvc.yaml` gives it."""
    verb, _, key = name.partition("@")
    stage = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"][verb]
    _, _, module, *words = stage.get("do", stage)["cmd"].replace("${key}", key).split()
    main = importlib.import_module(module).main
    arguments = read_arguments(main, words)
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()  # a stage has a process of its own, so its layers are numbered from one
    main(**arguments)
