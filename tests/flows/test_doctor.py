"""The page of the doctor names remedies, holds no secrets, and comes within ten seconds."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import checks, doctor, packages, service_checks
from flows.checks import Finding
from flows.doctor import show
from tasks.errors import UserError
from tests.flows.test_server import newer
from tests.support import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter an empty folder, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def wrong(findings: object) -> dict[str, str]:
    return {finding.name: finding.remedy for finding in findings if finding.remedy}


def test_the_page_comes_without_any_package(project: Path) -> None:
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PREFECT", "MLFLOW"))
    }
    variables |= {
        "HOME": str(project),
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": "postgresql://me:secret@127.0.0.1:9/mlflow",
    }
    command = [sys.executable, "-S", "-m", "flows.doctor"]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=project, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr == "" and time.monotonic() - began < 12
    assert "secret" not in done.stdout and str(project) not in done.stdout
    assert "tensorflow is missing" in done.stdout and "`unset MLFLOW_TRACKING_URI`" in done.stdout


def test_what_is_in_order_needs_no_remedy(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    found = wrong(checks.check_git())
    assert set(found) == {"Git", "DVC"} and found["Git"] == "`git add . && git commit -m start`"
    assert wrong(service_checks.check_mlflow()) == wrong(service_checks.check_prefect()) == {}
    assert "`make run` sets it up again" in dangle(project)


def dangle(project: Path) -> str:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    return wrong(checks.check_machine())[".venv"]


def test_a_store_of_a_newer_version_is_wrong(project: Path) -> None:
    newer(project / "mlflow.db")
    (project / ".prefect").mkdir()
    (project / ".prefect/prefect.db").write_text("no database" * 100)
    assert "git pull" in wrong(service_checks.check_mlflow())["mlflow.db"]
    assert "restore a copy" in wrong(service_checks.check_prefect())["prefect.db"]


def test_an_address_in_a_profile_is_found_without_prefect(project: Path) -> None:
    (project / ".prefect").mkdir()
    text = 'active = "local"\n[profiles.local]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    (project / ".prefect/profiles.toml").write_text(text)
    finding = next(iter(service_checks.check_prefect()))
    assert (
        "set in profile local of Prefect" in finding.said
        and "prefect config unset" in finding.remedy
    )


def test_keys_are_never_shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "API_KEY",
        "PREFECT_API_KEY",
        "PREFECT_API_AUTH_STRING",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
    ):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
    page = "\n".join(map(show, checks.check_settings()))
    assert "secret" not in page and page.count(" set") == 5 and "***@proxy" in page


def test_a_value_is_shown_only_where_it_holds_no_key(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "PREFECT_CLIENT_CUSTOM_HEADERS",
        "MLFLOW_TRACKING_AWS_SIGV4",
        "PIPELINE_NOTE",
        "PREFECT_SERVER_DATABASE_URL",
    ):
        monkeypatch.setenv(name, '{"Authorization": "Bearer hidden"}')
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    page = "\n".join(map(show, checks.check_settings()))
    assert "hidden" not in page and "PREFECT_CLIENT_CUSTOM_HEADERS set" in page and " mine" in page


@pytest.mark.parametrize(
    ("home", "said", "shown"),
    [
        (
            "/home/me",
            "/home/me/x:/home/me /home/me2/x /home/me.old",
            "~/x:~ /home/me2/x /home/me.old",
        ),
        ("/home/me", "sqlite:////home/me/mlflow.db", "sqlite:///~/mlflow.db"),
        ("/", "/usr/bin", "/usr/bin"),
    ],
)
def test_the_home_folder_is_shortened_and_no_other(
    home: str, said: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    assert show(Finding("name", said)).endswith(f" {shown}")


def test_a_command_that_hangs_costs_its_line_alone() -> None:
    assert checks.run_quickly("sleep", "5", seconds=0.1).startswith(checks.LATE)


def test_a_missing_package_is_named(project: Path) -> None:
    lock = project / "requirements.txt"
    lock.write_text(
        "packaging>=1 \\\n    --hash=sha256:0\n"
        "no-such-package==1.0\nother==2 ; python_version < '3'\n"
    )
    assert packages.find_differences(lock) == ["no-such-package is missing, expected ==1.0"]


def test_the_port_of_prefect_has_to_be_prefects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_checks, "PORTS", {4200: "make serve"})

    def hold(*_: object) -> None:
        raise UserError("taken")

    monkeypatch.setattr(service_checks.servers, "hold_port", hold)
    monkeypatch.setattr(service_checks.servers, "fetch_text", lambda *_: "<html>")
    assert "end that" in wrong(service_checks.check_ports())["port 4200"]
    monkeypatch.setattr(service_checks.servers, "fetch_text", lambda *_: "true")
    assert wrong(service_checks.check_ports()) == {}


def test_a_check_that_fails_or_hangs_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_odd() -> None:
        raise KeyError("odd")

    def check_slow() -> None:
        time.sleep(30)

    monkeypatch.setattr(
        doctor, "CHECKS", (check_odd, check_slow, lambda: iter([Finding("fine", "yes")]))
    )
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    page = [show(finding) for finding in doctor.examine()]
    assert (
        page[0].startswith("wrong  odd")
        and page[1].startswith("?      slow")
        and page[2].startswith("ok     fine")
    )
