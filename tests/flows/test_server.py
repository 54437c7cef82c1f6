"""Mistakes with servers, stores and ports are reported soon, with their remedy."""

import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)

from flows import artifacts, serve, server
from flows.server import (
    configured_address,
    explain_end,
    is_prefect,
    launch,
    refuse_newer_records,
)
from flows.store import refuse_newer_store
from tasks.errors import UserError
from tasks.tracking.servers import find_free_port
from tests.tracking.test_servers import Busy


@pytest.fixture
def other() -> Iterator[str]:
    """Start a program that is no Prefect server, and yield its address."""
    with HTTPServer(("127.0.0.1", 0), Busy) as busy:
        threading.Thread(target=busy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{busy.server_port}/api"
        busy.shutdown()


def newer(file: Path) -> Path:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('ffffffffffff')")
    return file


def test_an_address_where_nothing_answers_is_named_with_where_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"http://me:secret@127.0.0.1:{find_free_port('127.0.0.1', 20_000)}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(UserError, match="no server answers") as error,
    ):
        configured_address()
    told = str(error.value)
    assert (
        "PREFECT_API_URL (environment) is http://***@" in told
        and "`unset PREFECT_API_URL`" in told
        and "secret" not in told
    )


def test_what_answers_has_to_be_prefect(other: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: other}),
        pytest.raises(UserError, match="no Prefect server answers there"),
    ):
        configured_address()


@pytest.mark.parametrize("end", ["", "/"])
def test_an_address_may_end_in_a_slash(end: str) -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/api/health"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(b"true" if found else b"")

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert is_prefect(f"http://127.0.0.1:{server.server_port}/api{end}")
        server.shutdown()


def test_without_an_address_no_server_is_asked() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        assert configured_address() is None


def test_records_of_a_newer_prefect_are_refused_before_a_server_starts(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{newer(tmp_path / 'prefect.db')}"
    with (
        temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: url}),
        pytest.raises(
            UserError,
            match=r"prefect.db was written by a newer prefect than .* another PREFECT_HOME",
        ),
    ):
        refuse_newer_records()


def test_a_registry_of_a_newer_mlflow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    refuse_newer_store()
    newer(tmp_path / "mlflow.db")
    with pytest.raises(UserError, match="mlflow.db was written by a newer mlflow than"):
        refuse_newer_store()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Traceback\nalembic.util.exc.CommandError: Can't locate revision identified by 'ff'",
            "a newer Prefect wrote",
        ),
        (
            "ERROR: [Errno 98] error while attempting to bind: address already in use",
            "end the program that has its port",
        ),
        (
            "sqlalchemy.exc.OperationalError: unable to open database file",
            "PREFECT_HOME must be a folder",
        ),
        ("one\nValueError: odd", "ValueError: odd\n  its last lines:\n  one"),
        ("", "no output"),
    ],
)
def test_the_reason_of_a_server_that_ended_comes_first(said: str, told: str) -> None:
    assert told in explain_end(said.splitlines())


def test_a_server_that_ends_is_told_at_once() -> None:
    command = [sys.executable, "-c", "raise SystemExit('ValueError: no such option')"]
    with pytest.raises(
        UserError, match="the Prefect server did not start: ValueError: no such option"
    ):
        launch(command, "http://127.0.0.1:9/api")


def test_a_taken_port_is_refused_before_a_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        temporary_settings({PREFECT_API_URL: None}),
    ):
        monkeypatch.setattr(serve, "PORT", taken.getsockname()[1])
        monkeypatch.setattr(serve, "is_answering", lambda _: False)
        remedy = r"is taken by .*: end that program, or start a Prefect server elsewhere"
        with pytest.raises(UserError, match=remedy):
            serve.ensure_server()


def test_asking_whether_a_server_is_up_reads_no_certificates() -> None:
    began = time.process_time()
    for _ in range(10):
        assert not server.is_answering("http://127.0.0.1:9/api")
    assert time.process_time() - began < 0.2


def test_only_what_is_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert artifacts.find_results() == {}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/splits.csv").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/mlflow")
    assert artifacts.find_results() == {
        "splits": "data/splits.csv",
        "runs and registry": "postgresql://***@db/mlflow (make ui: http://127.0.0.1:5000)",
    }
