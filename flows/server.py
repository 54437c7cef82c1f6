"""Find or start the Prefect server of a run.

It is the configured server, the server of `make serve`, or a temporary server.
"""

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import prefect
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings, temporary_settings

from flows.prefect_address import Address, find_address
from flows.process import NOTHING, Keeper, start
from flows.store import refuse_newer
from tasks import machine
from tasks.errors import UserError
from tasks.tracking import servers

HOME = "http://127.0.0.1:4200/api"  # the server of `make serve` and `make ui`
STARTUP = 120.0  # seconds; the first start creates the database
# Prefect starts its own temporary server like this: no schedules, and up twice as fast as
# `prefect server start`.
COMMAND = [
    "uvicorn",
    "--factory",
    "prefect.server.api.server:create_app",
    "--host",
    "127.0.0.1",
    "--log-level",
    "error",
]
ERROR = re.compile(r"[\w.]*(Error|Exception|Refused|Exit)\b|\[Errno")
REMEDIES = {  # a pattern in the output of a server that ended -> the remedy
    "can't locate revision": "a newer Prefect wrote its database: set another PREFECT_HOME",
    "address already in use": "end the program that has its port",
    "readonly database|unable to open database|permission denied|read-only file system": (
        "PREFECT_HOME must be a folder that this user may write"
    ),
    "database is locked": "end other runs and servers that use the same PREFECT_HOME",
    "connect call failed|connection refused|name or service not known": (
        "the database of PREFECT_SERVER_DATABASE_CONNECTION_URL does not answer"
    ),
}
VARIABLES = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


@contextmanager
def connect(say: Callable[[str], None] = print) -> Iterator[None]:
    """Connect to a Prefect server, or start a temporary one, until the block ends.

    A temporary server does not belong to the terminal, so that it survives an interrupt and records
    it. It ends with this process and uses the same database as the permanent server. Raises
    `UserError` if the configured server does not answer.
    """
    machine.report_ignored(say)
    if configured_address():
        yield
    elif is_answering(HOME):
        with temporary_settings({PREFECT_API_URL: HOME}):
            yield
    else:
        refuse_newer_records()
        say(
            "starting a Prefect server for this run (`make serve` starts a permanent one); "
            f"its records: {PREFECT_HOME.value()}"
        )
        port = servers.find_free_port()
        address = f"http://127.0.0.1:{port}/api"
        launch([sys.executable, "-m", *COMMAND, "--port", str(port)], address, VARIABLES)
        with temporary_settings({PREFECT_API_URL: address}):
            yield


def configured_address() -> str | None:
    """Return the address of the configured server, or None.

    Raises `UserError` if no Prefect server answers there.
    """
    url = get_current_settings().api.url
    if not url:
        return None
    found = find_address()
    if found is None or found.url != url:
        found = Address(url, "prefect.toml, pyproject.toml or .env here", "remove it there")
    if why := servers.explain_unreachable(url):
        silence = servers.describe_unreachable("PREFECT_API_URL", url, found.where, why)
        raise UserError(
            f"{silence}. Start that server, or {found.undo}: then a run starts its own server"
        )
    if not is_prefect(url):
        raise UserError(
            f"PREFECT_API_URL ({found.where}) is {servers.mask_secrets(url)}, and no Prefect "
            f"server answers there: expected an address such as {HOME}, with /api at its end. "
            f"Correct it, or {found.undo}"
        )
    return url


def is_prefect(address: str) -> bool:
    """Return whether Prefect answers. Prefect Cloud and servers that ask for a key pass."""
    try:
        reply = httpx.get(
            f"{address.rstrip('/')}/health", timeout=5, verify=False, follow_redirects=True
        )
    except httpx.HTTPError:
        return False
    asks_for_key = reply.status_code in (401, 403)
    return "prefect.cloud" in address or asks_for_key or reply.text.strip() == "true"


def launch(command: list[str], address: str, variables: Mapping[str, str] = NOTHING) -> Keeper:
    """Start a server that ends with this process, and return when it answers.

    Raises `UserError` with the reason if it does not.
    """
    keeper = start(command, variables)
    said: deque[str] = deque(maxlen=200)
    threading.Thread(target=said.extend, args=(keeper.lines,), daemon=True).start()
    deadline = time.monotonic() + STARTUP
    while not is_answering(address):
        if keeper.process.poll() is not None:
            raise UserError(f"the Prefect server did not start: {explain_end(list(said))}")
        if time.monotonic() > deadline:
            raise UserError(
                f"the Prefect server did not answer within {STARTUP:.0f} s; its output:\n"
                f"{''.join(said)}"
            )
        time.sleep(0.1)
    return keeper


def refuse_newer_records() -> None:
    """Raise `UserError` if a newer Prefect wrote the database, or if it is damaged."""
    url = get_current_settings().server.database.connection_url
    kind, _, path = (url.get_secret_value() if url else "").partition(":///")
    if kind.startswith("sqlite") and not path.startswith(":memory:"):
        consequence = ", or set another PREFECT_HOME: the records of runs start anew"
        refuse_newer(Path(path.partition("?")[0]), "prefect", consequence)


def explain_end(said: list[str]) -> str:
    """Return the reason in the output of a server that ended, and the remedy.

    Without a known remedy the last lines of the output follow.
    """
    lines = [line.strip() for line in said if line.strip()]
    last = lines[-1] if lines else "no output"
    reason = next((line for line in reversed(lines) if ERROR.match(line)), last)
    text = "\n".join(lines).lower()
    remedy = next((what for pattern, what in REMEDIES.items() if re.search(pattern, text)), None)
    if remedy is not None:
        return servers.mask_secrets(f"{reason}; {remedy}")
    return servers.mask_secrets("\n  ".join([reason, "its last lines:", *lines[-10:]]))


def is_answering(address: str) -> bool:
    """Return whether a Prefect server of this version answers at an address of this machine."""
    try:
        reply = httpx.get(f"{address}/admin/version", timeout=2, trust_env=False, verify=False)
        return reply.json() == prefect.__version__
    except (httpx.HTTPError, ValueError):
        return False
