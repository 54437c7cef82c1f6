"""Fixtures that many tests share: one tiny set that went through all stages, and a Prefect server."""

import gc
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support import ROOT, make_once
from tests.support.pipeline import TINY_PARAMS, draw_tiny, enter, run_stage, stages

gc.disable()  # until all is imported
SLOW = {"pipeline", "server"}  # fixtures that take long to make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of flows come last: Prefect's threads draw from Python's random numbers, which Keras takes its seeds from.

    Files stay whole: side by side, each has one process, whose tests share what they set up. Of those with a server,
    which wait more than they compute, the longest comes first. What needs a pipeline or a server is slow.
    """
    places = {item.path: place for place, item in reversed(list(enumerate(items)))}
    served = Counter(item.path for item in items if with_server(item))
    items.sort(
        key=lambda item: (
            item.path in served,
            -served[item.path],
            places[item.path],
            with_server(item),
        )
    )
    for item in items:
        if SLOW & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what was imported: going through it took a fifth of the time of all tests."""
    gc.freeze()
    gc.enable()


def with_server(item: pytest.Item) -> bool:
    return "server" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def threads() -> None:
    """TensorFlow takes its number of threads only before it computes anything; all tests here use the default of two."""
    if "tensorflow" in sys.modules:
        from tasks.modeling.training import use_threads

        use_threads(2)


@pytest.fixture(scope="module", autouse=True)
def forget_networks() -> Iterator[None]:
    """Free what Keras remembers of a file's networks, or a process would grow with each file."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session(
            free_memory=False
        )  # the collector comes by itself, and costs


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests that processes side by side have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def server(shared: Path) -> Iterator[str]:
    """A Prefect server of the tests' own, with an empty database.

    Processes side by side share it: the first that needs it starts it, and stays until no other uses it.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        temporary_settings,
    )  # costs seconds, and few tests need it

    told, users = shared / "server", shared / "users"
    users.mkdir(exist_ok=True)
    user = users / str(os.getpid())
    with FileLock(shared / "server.lock"):
        mine = not told.exists()
        if mine:
            told.write_text(start_server(shared / "prefect"))
        user.touch()
    address = told.read_text()
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        monkeypatch.setenv("PREFECT_API_URL", address)  # for the flows that run as processes
        yield address  # it ends with the process that started it, after Prefect sent its last lines
    user.unlink()
    while mine and leave(told, users):
        time.sleep(0.2)


def start_server(home: Path) -> str:
    """Start a Prefect server that ends with this process, and return its address."""
    from flows.server import launch
    from tasks.tracking.servers import find_free_port

    port = find_free_port()
    address = f"http://127.0.0.1:{port}/api"
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--no-ui",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    launch(
        command, address, {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    )
    return address


def leave(told: Path, users: Path) -> bool:
    """Say whether others still use the server; where nobody does, nobody finds it any more."""
    with FileLock(told.with_suffix(".lock")):
        if any(Path("/proc", user.name).exists() for user in users.iterdir()):
            return True
        told.unlink()
        return False


@pytest.fixture(scope="session")
def pipeline(shared: Path) -> Path:
    """A folder in which every stage ran once. Only for reading: what changes something takes `workspace`.

    Processes side by side share it: the first that needs it makes it.
    """
    return make_once(shared / "pipeline", make_pipeline)


def make_pipeline(root: Path) -> None:
    """Draw the tiny set and run every stage on it."""
    draw_tiny(root / "data/raw")
    (root / "params.yaml").write_text(TINY_PARAMS)
    (root / "tasks").symlink_to(ROOT / "tasks")  # what is registered takes its code along
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        for stage in stages():
            run_stage(stage)


@pytest.fixture
def workspace(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `pipeline` with a registry of its own, made the current folder."""
    root = tmp_path / "workspace"
    shutil.copytree(pipeline, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    enter(root, monkeypatch)
    return root
