"""The Prefect server that a run talks to: the one configured, the one of `make serve`, or a passing one of its own."""

import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import httpx
import prefect
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings, temporary_settings

from flows.process import Keeper, start
from tasks.errors import UserError

HOME = "http://127.0.0.1:4200/api"  # where `make serve` and `make ui` put theirs
STARTUP = 120.0  # seconds; the first start creates the database
# As Prefect starts a passing server itself: no schedules, and up twice as fast as `prefect server start`.
COMMAND = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--log-level", "error"]
VARIABLES = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


@contextmanager
def connected(say: Callable[[str], None] = print) -> Iterator[None]:
    """Have a Prefect server to talk to while open.

    A passing server is kept apart from the terminal, so that it outlives an interrupt long enough to hear of it. It ends
    with this process, however that ends, and shares the database of the permanent one.
    """
    if get_current_settings().api.url:
        yield
    elif answers(HOME):
        with temporary_settings({PREFECT_API_URL: HOME}):
            yield
    else:
        say(f"starting a Prefect server for this run (`make serve` starts one that stays); its records: {PREFECT_HOME.value()}")
        port = free_port()
        address = f"http://127.0.0.1:{port}/api"
        launch([sys.executable, "-m", *COMMAND, "--port", str(port)], address, VARIABLES)
        with temporary_settings({PREFECT_API_URL: address}):
            yield


def launch(command: list[str], address: str, variables: Mapping[str, str] = MappingProxyType({})) -> Keeper:
    """Start a server that ends with this process, and return when it answers. Raises `UserError` with its last words."""
    keeper = start(command, variables)
    words: deque[str] = deque(maxlen=20)
    threading.Thread(target=words.extend, args=(keeper.process.stdout,), daemon=True).start()
    deadline = time.monotonic() + STARTUP
    while not answers(address):
        if keeper.process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"the Prefect server did not start within {STARTUP:.0f} s:\n{''.join(words)}")
        time.sleep(0.1)
    return keeper


def answers(address: str) -> bool:
    """Say whether a Prefect server of this version answers at `address`."""
    try:
        return httpx.get(f"{address}/admin/version", timeout=2, trust_env=False).json() == prefect.__version__
    except (httpx.HTTPError, ValueError):
        return False


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
