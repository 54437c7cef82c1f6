"""Unreachable servers and unusable stores are reported within seconds, and without secrets."""

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.tracking import servers


class Busy(BaseHTTPRequestHandler):
    """Answer as a server, or as a proxy whose server is unreachable."""

    def do_GET(self) -> None:
        self.send_error(502 if "away" in self.path else 404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_whatever_answers_is_there(port: int) -> None:
    assert servers.explain_unreachable(f"http://user:secret@127.0.0.1:{port}/mlflow/") is None
    assert (
        servers.explain_unreachable(f"postgresql+psycopg2://user:secret@127.0.0.1:{port}/mlflow")
        is None
    )


@pytest.mark.parametrize(
    "address", ["sqlite:///mlflow.db", "databricks", "", "s3://bucket", "/a/folder"]
)
def test_addresses_that_name_no_server_are_not_checked(address: str) -> None:
    assert servers.explain_unreachable(address) is None


def test_an_unreachable_server_has_a_reason(port: int) -> None:
    free = servers.find_free_port("127.0.0.1", 20_000)
    for address in (f"http://127.0.0.1:{free}", f"mysql://u:p@127.0.0.1:{free}/db"):
        assert "refused" in servers.explain_unreachable(address)
    assert servers.explain_unreachable(f"http://127.0.0.1:{port}/away") == "status 502"
    for address in ("http://127.0.0.1:no_port", "http://[::1:5000", "postgresql://[db/mlflow"):
        assert servers.explain_unreachable(address) is not None


def test_a_server_that_accepts_and_never_replies_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        assert servers.explain_unreachable(f"http://127.0.0.1:{mute.getsockname()[1]}", 0.3)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:pa/s@s@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("https://ghp_123@host/x", "https://***@host/x"),
        ("https://host/x?sslpassword=abc&mode=1", "https://host/x?sslpassword=***&mode=1"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_an_address_is_shown_without_secrets(address: str, shown: str) -> None:
    assert servers.mask_secrets(address) == shown


def test_a_taken_port_is_refused_with_its_program_and_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UserError,
            match=rf"port {port} is taken by .*process \d+.*: end that program, or take --port 1",
        ):
            servers.hold_port("127.0.0.1", port, "take --port 1")
        assert servers.find_free_port("127.0.0.1", port) > port
    for port in (-1, 65_536, 10**12):
        with pytest.raises(UserError, match=f"port {port}: expected a number from 0 to 65535"):
            servers.hold_port("127.0.0.1", port, "take another")
    with pytest.raises(UserError, match="is not the name of a machine"):
        servers.hold_port("é" * 70, 80, "take another")
    with pytest.raises(UserError, match="port 80 of 192.0.2.1 cannot be used"):
        servers.hold_port("192.0.2.1", 80, "take another")


def test_no_other_program_gets_a_held_port() -> None:
    with servers.hold_port("127.0.0.1", 0, "") as held:
        port = held.getsockname()[1]
        assert servers.find_listener(port) != "another program"
        with pytest.raises(UserError, match=f"port {port} is taken"):
            servers.hold_port("127.0.0.1", port, "")


@pytest.mark.parametrize("package", ["mlflow", "prefect"])
def test_a_database_of_a_newer_version_is_known_by_its_revision(
    package: str, tmp_path: Path
) -> None:
    file, known = tmp_path / "store #1.db", next(iter(revisions(package)))
    assert servers.find_newer_revision(file, package) is None
    for revision, foreign in ((known, None), ("ffffffffffff", "ffffffffffff")):
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("create table if not exists alembic_version (version_num text)")
            database.execute("delete from alembic_version")
            database.execute("insert into alembic_version values (?)", [revision])
        assert servers.find_newer_revision(file, package) == foreign


def revisions(package: str) -> Iterator[str]:
    """Yield the revisions in the names of the package's migration files."""
    folder = servers.find_package(package) / servers.MIGRATIONS[package]
    for path in folder.glob("*_*.py"):
        yield next(part for part in path.stem.split("_") if len(part) == 12)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_text("not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        servers.find_newer_revision(file, "mlflow")


def test_a_half_written_change_of_a_killed_process_is_undone(tmp_path: Path) -> None:
    """A read-only connection cannot undo it, and reports a damaged database."""
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('ffffffffffff')")
    write = f"""
import os, sqlite3
store = sqlite3.connect({str(file)!r}, isolation_level=None)
store.execute("pragma cache_size = 1")
store.execute("begin")
store.execute("create table t (x)")
store.executemany("insert into t values (?)", [("x" * 4000,)] * 50)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", write], check=True)
    assert file.with_name("mlflow.db-journal").exists()
    assert servers.find_newer_revision(file, "mlflow") == "ffffffffffff"


def test_a_database_that_is_being_written_is_not_damaged(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("create table t (x)")
        database.execute("begin exclusive")
        with pytest.raises(sqlite3.OperationalError) as caught:
            servers.find_newer_revision(file, "mlflow", 0.1)
    said, remedy = servers.describe_unusable("mlflow.db", caught.value)
    assert said.startswith("another process is writing mlflow.db") and "run again" in remedy
    assert (
        "right" in servers.describe_unusable("mlflow.db", sqlite3.OperationalError("readonly"))[1]
    )
