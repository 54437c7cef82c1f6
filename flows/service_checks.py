"""Checks of Prefect, MLflow and the ports for `flows.doctor`."""

import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from flows.checks import LATE, SERVERS, Finding, run_quickly
from flows.packages import MISSING, find_version
from flows.prefect_address import Address, find_address, find_home
from tasks.errors import UserError
from tasks.tracking import servers

PATIENCE = 4.0  # seconds for a server
SETTINGS = 6.0  # seconds for Prefect's settings
BUSY = 1.0  # seconds for a database that another process writes
PORTS = {4200: "make serve, make ui", 5000: "make ui", 7860: "make web", 8000: "make api"}
INPUT = re.compile(r"input_value=.*")  # in pydantic's messages


def check_prefect() -> Iterator[Finding]:
    """Check Prefect's server and its database."""
    if address := find_address():
        yield _check_server("PREFECT_API_URL", address)
    yield _check_database(find_home() / "prefect.db", "prefect")


def check_prefect_settings() -> Iterator[Finding]:
    """Check that Prefect accepts its settings."""
    if find_version("prefect") == MISSING:
        return
    code = "import prefect.settings as s; s.get_current_settings()"
    said = run_quickly(sys.executable, "-c", code, seconds=SETTINGS)
    if said.startswith(LATE):
        yield Finding("Prefect's settings", said, known=False)
    elif said:
        remedy = "correct it in the environment, or with `prefect config` and `prefect profile`"
        last = INPUT.sub("…", "\n  ".join(said.splitlines()[-4:]))
        yield Finding("Prefect's settings", last, remedy)


def check_mlflow() -> Iterator[Finding]:
    """Check MLflow's server or store."""
    for name in SERVERS[1:]:
        if url := os.environ.get(name):
            yield _check_server(name, Address(url, "environment", f"`unset {name}`"))
    yield _check_database(Path("mlflow.db"), "mlflow")


def _check_server(name: str, address: Address) -> Finding:
    why = servers.explain_unreachable(address.url, PATIENCE)
    if why:
        said = f"set in {address.where}: nothing answers at {address.url}: {why}"
        return Finding(name, said, f"start that server, or {address.undo}")
    return Finding(name, f"set in {address.where}: {address.url} answers")


def _check_database(file: Path, package: str) -> Finding:
    """Check that the installed package can read its database."""
    if not file.exists():
        return Finding(file.name, "none yet")
    version, revision = find_version(package), None
    aside = servers.advise_aside(file)
    try:
        if version != MISSING:
            revision = servers.find_newer_revision(file, package, BUSY)
    except sqlite3.OperationalError as error:
        return Finding(file.name, *servers.describe_unusable(str(file), error))
    except sqlite3.DatabaseError as error:
        said = f"{file} cannot be read: {error}"
        return Finding(file.name, said, f"restore a copy of it, or {aside}")
    if revision is None:
        return Finding(file.name, f"{file}, {file.stat().st_size / 1e6:.1f} MB")
    said = f"a newer {package} than {version} wrote {file} (revision {revision})"
    return Finding(file.name, said, f"install the newer lock (git pull), or {aside}")


def check_ports() -> Iterator[Finding]:
    """Check the ports that `make` uses.

    The programs take another port if theirs is taken. Only the port of Prefect's server must be
    free, or in use by that server.
    """
    for port, use in PORTS.items():
        try:
            servers.hold_port("127.0.0.1", port, "").close()
            yield Finding(f"port {port}", f"free ({use})")
        except UserError:
            health = f"http://127.0.0.1:{port}/api/health"
            foreign = port == 4200 and servers.fetch_text(health, PATIENCE) != "true"
            remedy = "end that program: runs expect their server there" if foreign else ""
            said = f"taken by {servers.find_listener(port)} ({use})"
            yield Finding(f"port {port}", said, remedy)
