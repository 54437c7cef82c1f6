"""Whether the servers and stores that a run needs answer, told within seconds; needs nothing but Python."""

import contextlib
import errno
import http.client
import importlib.metadata
import importlib.util
import re
import socket
import sqlite3
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import UserError

PATIENCE = 10.0  # seconds
LAST_PORT = 65535
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SECRET = re.compile(r"(?i)([?&][^=&]*(?:password|token|key|secret|sig|auth)[^=&]*=)[^&\s]*")
AWAY = (502, 503, 504)  # what a proxy says of a server that it cannot reach
MIGRATIONS = {
    "mlflow": "store/db_migrations/versions",
    "prefect": "server/database/_migrations/versions/sqlite",
}  # a package -> where it keeps the changes of its database, each named by its revision


def why_silent(address: str, seconds: float = PATIENCE) -> str | None:
    """Return why nothing answers at a server's address; None where something does, or where no server is meant."""
    try:
        kind = urlsplit(address).scheme.partition("+")[0]
    except ValueError as error:  # as of a bracket that is not closed
        return f"this is no address: {error}"
    ask = _ask if kind in ("http", "https") else _connect if kind in PORTS else None
    found: list[str | None] = []
    if ask is not None:
        asking = threading.Thread(target=lambda: found.append(ask(address, seconds)), daemon=True)
        asking.start()
        asking.join(seconds)  # looking up a name has no time limit of its own
        return found[0] if found else f"no answer within {seconds:.0f} s"
    return None


def read(address: str, seconds: float) -> str:
    """Return what a server of this machine says, shortened; "" where it says nothing."""
    try:
        with urllib.request.urlopen(address, timeout=seconds) as reply:
            return reply.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""


def describe_silence(name: str, address: str, where: str, why: str) -> str:
    """Return in words that nothing answers where a setting points to."""
    return f"{name} ({where}) is {masked(address)}, where nothing answers: {why}"


def foreign_revision(file: Path, package: str, seconds: float = PATIENCE) -> str | None:
    """Return the revision of a SQLite database if the installed package does not know it: a newer one wrote it.

    Raises `sqlite3.OperationalError` where it cannot be used now, and `sqlite3.DatabaseError` where the file is no database.
    It is opened for writing, since SQLite first undoes what a process that was killed left half written.
    """
    if not file.exists() or file.stat().st_size == 0:
        return None
    address = f"{file.absolute().as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(address, seconds, uri=True)) as database:
        if not database.execute(
            "select 1 from sqlite_master where name = 'alembic_version'"
        ).fetchone():
            return None
        found = database.execute("select version_num from alembic_version").fetchone()
    return found[0] if found and not knows(package, found[0]) else None


def describe_unusable(shown: str, error: sqlite3.OperationalError) -> tuple[str, str]:
    """Return in words why a whole database cannot be used now, and what to do; it is not damaged."""
    if "locked" in str(error) or "busy" in str(error):
        return (
            f"another process is writing {shown} ({error})",
            "wait until that ends, and run again",
        )
    said = f"{shown} cannot be read and written ({error})"
    return said, "give this user the right to read and write it and its folder, and run again"


def knows(package: str, revision: str) -> bool:
    """Say whether the installed package knows a revision of its database."""
    spec = importlib.util.find_spec(package)
    folder = Path(spec.submodule_search_locations[0], MIGRATIONS[package])
    return not folder.is_dir() or any(revision in path.name for path in folder.glob("*.py"))


def describe_newer(store: str, package: str, remedy: str) -> str:
    """Return in words that a newer version of a package wrote a database, and what to do."""
    version = importlib.metadata.version(package)
    return f"{store} was written by a newer {package} than the installed {version}: install the newer lock (git pull), or {remedy}"


def masked(address: str) -> str:
    """Return an address without its secrets."""
    return SECRET.sub(r"\1***", re.sub(r"://\S*@", "://***@", address))


def hold_port(host: str, port: int, remedy: str) -> socket.socket:
    """Return a socket that holds a port of this machine before anybody is told of it. Raises `UserError` with the reason."""
    if not 0 <= port <= LAST_PORT:
        raise UserError(f"port {port}: expected a number from 0 to {LAST_PORT}")
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
        holder.listen()  # until then another program may bind it too
    except (
        UnicodeError,
        TypeError,
    ) as error:  # as Python says where it cannot write a name for the network
        holder.close()
        raise UserError(f"host {host!r} is no name of a machine: {error}; {remedy}") from error
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is taken by {who_listens(port)}: end that, or {remedy}"
            ) from error
        raise UserError(
            f"port {port} of {host} cannot be used: {error.strerror}; {remedy}"
        ) from error
    return holder


def free_port(host: str, first: int) -> int:
    """Return the first port from `first` on that nobody uses now."""
    for port in range(first, first + 100):
        with contextlib.suppress(UserError), hold_port(host, port, ""):
            return port
    raise UserError(f"no port of {host} from {first} to {first + 99} is free")


def who_listens(port: int) -> str:
    """Return which program listens at a port, as far as this user may know."""
    with contextlib.suppress(ImportError, OSError):
        import psutil  # may be missing where something is wrong with the packages

        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if any(
                    one.laddr and one.laddr.port == port and one.status == "LISTEN"
                    for one in process.net_connections()
                ):
                    return f"{process.info['name']} (process {process.pid})"
    return "another program"


def _ask(address: str, seconds: float) -> str | None:
    address = re.sub(r"://\S*@", "://", address)  # a password is no matter here
    unchecked = ssl._create_unverified_context()
    try:
        urllib.request.urlopen(
            f"{address.rstrip('/')}/health", timeout=seconds, context=unchecked
        ).close()
    except urllib.error.HTTPError as error:
        return f"status {error.code}" if error.code in AWAY else None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    except http.client.HTTPException:
        return "what listens there speaks no HTTP"
    return None


def _connect(address: str, seconds: float) -> str | None:
    parts = urlsplit(address)
    try:
        port = parts.port or PORTS[parts.scheme.partition("+")[0]]
        socket.create_connection((parts.hostname or "localhost", port), timeout=seconds).close()
    except (OSError, ValueError) as error:
        return str(error)
    return None
