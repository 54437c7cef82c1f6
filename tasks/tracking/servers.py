"""Check servers, databases and ports within seconds. Needs nothing but Python."""

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
UNREACHABLE = (502, 503, 504)  # a proxy's status for a server that it cannot reach
# Package -> folder of its database migrations. Each file name holds a revision.
MIGRATIONS = {
    "mlflow": "store/db_migrations/versions",
    "prefect": "server/database/_migrations/versions/sqlite",
}


def explain_unreachable(address: str, seconds: float = PATIENCE) -> str | None:
    """Return why no server can be reached at an address.

    Returns None if a server answers, or if the address is not a server's.
    """
    try:
        kind = urlsplit(address).scheme.partition("+")[0]
    except ValueError as error:  # such as a bracket that is not closed
        return f"this is not an address: {error}"
    check = _request if kind in ("http", "https") else _connect if kind in PORTS else None
    if check is None:
        return None
    found: list[str | None] = []
    checking = threading.Thread(target=lambda: found.append(check(address, seconds)), daemon=True)
    checking.start()
    checking.join(seconds)  # the look-up of a host name has no time limit of its own
    return found[0] if found else f"no answer within {seconds:.0f} s"


def fetch_text(address: str, seconds: float) -> str:
    """Return the start of a server's reply, or "" if it does not reply."""
    try:
        with urllib.request.urlopen(address, timeout=seconds) as reply:
            return reply.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""


def describe_unreachable(name: str, address: str, where: str, why: str) -> str:
    """Describe a setting (`name`, set in `where`) whose server cannot be reached."""
    return f"{name} ({where}) is {mask_secrets(address)}, but no server answers there: {why}"


def find_newer_revision(file: Path, package: str, seconds: float = PATIENCE) -> str | None:
    """Return the revision of a SQLite database that a newer version of a package wrote.

    Returns None if the installed package knows the revision. Raises `sqlite3.OperationalError` if
    the database cannot be used now, and `sqlite3.DatabaseError` if the file is not a database.
    """
    if not file.exists() or file.stat().st_size == 0:
        return None
    # Open it for writing: SQLite must first undo what a killed process left half written.
    address = f"{file.absolute().as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(address, seconds, uri=True)) as database:
        query = "select 1 from sqlite_master where name = 'alembic_version'"
        if not database.execute(query).fetchone():
            return None
        found = database.execute("select version_num from alembic_version").fetchone()
    return found[0] if found and not knows_revision(package, found[0]) else None


def describe_unusable(shown: str, error: sqlite3.OperationalError) -> tuple[str, str]:
    """Return why an undamaged database cannot be used now, and what to do."""
    if "locked" in str(error) or "busy" in str(error):
        return (
            f"another process is writing {shown} ({error})",
            "wait until that process ends, and run again",
        )
    problem = f"{shown} cannot be read and written ({error})"
    return problem, "give this user the right to read and write it and its folder, and run again"


def knows_revision(package: str, revision: str) -> bool:
    """Return whether the installed package knows a revision of its database."""
    folder = find_package(package) / MIGRATIONS[package]
    return not folder.is_dir() or any(revision in path.name for path in folder.glob("*.py"))


def find_package(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.origin).parent


def advise_aside(file: str | Path) -> str:
    """Return the advice to set a database aside, and its command."""
    return f"set it aside (mv {file} {file}.newer)"


def describe_newer(store: str, package: str, remedy: str) -> str:
    """Describe a database that a newer version of a package wrote, and what to do."""
    version = importlib.metadata.version(package)
    return (
        f"{store} was written by a newer {package} than the installed {version}: "
        f"install the newer lock (git pull), or {remedy}"
    )


def mask_secrets(text: str) -> str:
    """Return an address, or a text with addresses, without the secrets in it."""
    return SECRET.sub(r"\1***", re.sub(r"://\S*@", "://***@", text))


def hold_port(host: str, port: int, remedy: str) -> socket.socket:
    """Return a socket that holds a port. Raises `UserError` with the reason if that fails."""
    if not 0 <= port <= LAST_PORT:
        raise UserError(f"port {port}: expected a number from 0 to {LAST_PORT}")
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
        holder.listen()  # before this call another program can bind the port too
    except (UnicodeError, TypeError) as error:  # Python cannot encode such a host name
        holder.close()
        raise UserError(f"host {host!r} is not the name of a machine: {error}; {remedy}") from error
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is taken by {find_listener(port)}: end that program, or {remedy}"
            ) from error
        raise UserError(
            f"port {port} of {host} cannot be used: {error.strerror}; {remedy}"
        ) from error
    return holder


def find_free_port(host: str = "127.0.0.1", first: int = 0) -> int:
    """Return the first free port from `first` on, or any free port if `first` is 0."""
    for port in range(first, first + 100):
        with contextlib.suppress(UserError), hold_port(host, port, "") as held:
            return held.getsockname()[1]
    raise UserError(f"no port of {host} from {first} to {first + 99} is free")


def find_listener(port: int) -> str:
    """Return which program listens at a port, as far as this user may know."""
    with contextlib.suppress(ImportError, OSError):
        import psutil  # may be missing if the packages are incomplete

        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if any(
                    one.laddr and one.laddr.port == port and one.status == "LISTEN"
                    for one in process.net_connections()
                ):
                    return f"{process.info['name']} (process {process.pid})"
    return "another program"


def _request(address: str, seconds: float) -> str | None:
    address = re.sub(r"://\S*@", "://", address)  # no password is needed to see that it answers
    unchecked = ssl._create_unverified_context()
    try:
        urllib.request.urlopen(
            f"{address.rstrip('/')}/health", timeout=seconds, context=unchecked
        ).close()
    except urllib.error.HTTPError as error:
        return f"status {error.code}" if error.code in UNREACHABLE else None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    except http.client.HTTPException:
        return "the program that listens there does not speak HTTP"
    return None


def _connect(address: str, seconds: float) -> str | None:
    parts = urlsplit(address)
    try:
        port = parts.port or PORTS[parts.scheme.partition("+")[0]]
        socket.create_connection((parts.hostname or "localhost", port), timeout=seconds).close()
    except (OSError, ValueError) as error:
        return str(error)
    return None
