"""The Prefect server that a run talks to: the one configured, the one of `make serve`, or a passing one of its own."""

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
import prefect
from prefect.context import get_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings, temporary_settings

from flows.process import Keeper, start
from flows.store import refuse_newer
from tasks import machine
from tasks.errors import UserError
from tasks.tracking import servers

HOME = "http://127.0.0.1:4200/api"  # where `make serve` and `make ui` put theirs
STARTUP = 120.0  # seconds; the first start creates the database
# As Prefect starts a passing server itself: no schedules, and up twice as fast as `prefect server start`.
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
REMEDIES = {  # words of a server that ended -> what to do
    "can't locate revision": "a newer Prefect wrote its database: have another PREFECT_HOME",
    "address already in use": "end the program that has its port",
    "readonly database|unable to open database|permission denied|read-only file system": (
        "PREFECT_HOME has to be a folder that this user may write"
    ),
    "database is locked": "end other runs and servers that use the same PREFECT_HOME",
    "connect call failed|connection refused|name or service not known": (
        "the database of PREFECT_SERVER_DATABASE_CONNECTION_URL does not answer"
    ),
}
VARIABLES = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


@contextmanager
def connected(say: Callable[[str], None] = print) -> Iterator[None]:
    """Have a Prefect server to talk to while open. Raises `UserError` where the configured one does not answer.

    A passing server is kept apart from the terminal, so that it outlives an interrupt long enough to hear of it. It ends
    with this process, however that ends, and shares the database of the permanent one.
    """
    machine.report_ignored(say)
    if configured():
        yield
    elif answers(HOME):
        with temporary_settings({PREFECT_API_URL: HOME}):
            yield
    else:
        refuse_newer_records()
        say(
            f"starting a Prefect server for this run (`make serve` starts one that stays); its records: {PREFECT_HOME.value()}"
        )
        port = servers.find_free_port()
        address = f"http://127.0.0.1:{port}/api"
        launch([sys.executable, "-m", *COMMAND, "--port", str(port)], address, VARIABLES)
        with temporary_settings({PREFECT_API_URL: address}):
            yield


def configured() -> str | None:
    """Return the address of the server that somebody set, if one is. Raises `UserError` where no Prefect answers there."""
    address = get_current_settings().api.url
    if not address:
        return None
    where, undo = where_set(address)
    if why := servers.why_unreachable(address):
        told = servers.describe_unreachable("PREFECT_API_URL", address, where, why)
        raise UserError(f"{told}. Start that server, or {undo}: a run has a server of its own then")
    if not is_prefect(address):
        raise UserError(
            f"PREFECT_API_URL ({where}) is {servers.mask_secrets(address)}, where something answers that is no Prefect server: "
            f"expected an address such as {HOME}, with /api at its end. Correct it, or {undo}"
        )
    return address


def where_set(address: str) -> tuple[str, str]:
    """Return where the address of the Prefect server is set, and how to undo that."""
    profile = get_settings_context().profile
    if os.environ.get("PREFECT_API_URL"):
        return "environment", "`unset PREFECT_API_URL`"
    if profile.settings.get(PREFECT_API_URL) == address:
        return f"profile {profile.name} of Prefect", "`prefect config unset PREFECT_API_URL --yes`"
    return "prefect.toml, pyproject.toml or .env of this folder", "remove it there"


def is_prefect(address: str) -> bool:
    """Say whether it is Prefect that answers; its Cloud, and who asks for a key first, are believed."""
    try:
        reply = httpx.get(
            f"{address.rstrip('/')}/health", timeout=5, verify=False, follow_redirects=True
        )
    except httpx.HTTPError:
        return False
    return (
        "prefect.cloud" in address
        or reply.status_code in (401, 403)
        or reply.text.strip() == "true"
    )


def launch(
    command: list[str], address: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Keeper:
    """Start a server that ends with this process, and return when it answers. Raises `UserError` that says why it did not."""
    keeper = start(command, variables)
    words: deque[str] = deque(maxlen=200)
    threading.Thread(target=words.extend, args=(keeper.process.stdout,), daemon=True).start()
    deadline = time.monotonic() + STARTUP
    while not answers(address):
        if keeper.process.poll() is not None:
            raise UserError(f"the Prefect server did not start: {why_ended(list(words))}")
        if time.monotonic() > deadline:
            raise UserError(
                f"the Prefect server did not answer within {STARTUP:.0f} s; it said:\n{''.join(words)}"
            )
        time.sleep(0.1)
    return keeper


def refuse_newer_records() -> None:
    """Raise `UserError` where a newer Prefect wrote the database of runs in PREFECT_HOME, or it is none."""
    url = get_current_settings().server.database.connection_url
    kind, _, path = (url.get_secret_value() if url else "").partition(":///")
    if kind.startswith("sqlite") and not path.startswith(":memory:"):
        file = Path(path.partition("?")[0])
        shown = machine.shorten_home(file)
        refuse_newer(
            file,
            "prefect",
            f"set it aside (mv {shown} {shown}.newer), or have another PREFECT_HOME: runs begin anew",
        )


def why_ended(words: list[str]) -> str:
    """Return the reason among a server's last words, and what to do about it; where that is not known, the words."""
    lines = [line.strip() for line in words if line.strip()]
    reason = next(
        (line for line in reversed(lines) if ERROR.match(line)),
        lines[-1] if lines else "it said nothing",
    )
    text = "\n".join(lines).lower()
    remedy = next((what for pattern, what in REMEDIES.items() if re.search(pattern, text)), None)
    if remedy is not None:
        return servers.mask_secrets(f"{reason}; {remedy}")
    return servers.mask_secrets("\n  ".join([reason, "its last words:", *lines[-10:]]))


def answers(address: str) -> bool:
    """Say whether a Prefect server of this version answers at an address of this machine."""
    try:
        reply = httpx.get(f"{address}/admin/version", timeout=2, trust_env=False, verify=False)
        return reply.json() == prefect.__version__
    except (httpx.HTTPError, ValueError):
        return False
