"""Fixtures for many tests: a tiny data set after all stages, and a Prefect server."""

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

gc.disable()  # until all tests are imported
SLOW = {"pipeline", "server"}  # fixtures that take seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests so that those with a Prefect server come last, and mark slow ones.

    Prefect's threads draw from Python's random numbers, from which Keras takes its seeds. Files
    stay whole: in parallel runs each file has one process, whose tests share fixtures. Among the
    files with a server, which mostly wait, the longest comes first.
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
    """Exempt imported modules from garbage collection, which took a fifth of the suite's time."""
    gc.freeze()
    gc.enable()


def with_server(item: pytest.Item) -> bool:
    return "server" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def threads() -> None:
    """Set TensorFlow's threads to the default of two, which works only before it computes."""
    if "tensorflow" in sys.modules:
        from tasks.modeling.training import use_threads

        use_threads(2)


@pytest.fixture(scope="module", autouse=True)
def forget_networks() -> Iterator[None]:
    """Free the networks that Keras remembers. Otherwise a process grows with each file."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session(free_memory=False)  # without a slow collection


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the parallel processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def server(shared: Path) -> Iterator[str]:
    """Start a Prefect server with an empty database, and return its address.

    Parallel processes share it. The first that needs it starts it, and waits for the others.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings  # takes seconds

    note, users = shared / "server", shared / "users"
    users.mkdir(exist_ok=True)
    user = users / str(os.getpid())
    with FileLock(shared / "server.lock"):
        mine = not note.exists()
        if mine:
            note.write_text(start_server(shared / "prefect"))
        user.touch()
    address = note.read_text()
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        monkeypatch.setenv("PREFECT_API_URL", address)  # for flows in child processes
        yield address  # the server ends with the process that started it
    user.unlink()
    while mine and is_used(note, users):
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


def is_used(note: Path, users: Path) -> bool:
    """Return whether other processes use the server. If not, remove the note of its address."""
    with FileLock(note.with_suffix(".lock")):
        if any(Path("/proc", user.name).exists() for user in users.iterdir()):
            return True
        note.unlink()
        return False


@pytest.fixture(scope="session")
def pipeline(shared: Path) -> Path:
    """Return a folder in which each stage ran once. A test that changes it takes `workspace`.

    Parallel processes share it. The first that needs it makes it.
    """
    return make_once(shared / "pipeline", make_pipeline)


def make_pipeline(root: Path) -> None:
    """Draw the tiny set and run every stage on it."""
    draw_tiny(root / "data/raw")
    (root / "params.yaml").write_text(TINY_PARAMS)
    (root / "tasks").symlink_to(ROOT / "tasks")  # a registered model includes its code
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        for stage in stages():
            run_stage(stage)


@pytest.fixture
def workspace(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of `pipeline` with its own registry, as the current folder."""
    root = tmp_path / "workspace"
    shutil.copytree(pipeline, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    enter(root, monkeypatch)
    return root
