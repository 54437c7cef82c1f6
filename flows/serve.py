"""What has to stay: the Prefect server, the deployments of prefect.yaml and a worker; or the pages of Prefect and MLflow.

`python -m flows.serve` (`make serve`) runs schedules until it is interrupted; with PREFECT_API_URL set, as to a team's
server, it starts the worker alone. `python -m flows.serve pages` (`make ui`) only shows what is recorded.
`python -m flows.serve worker POOL` (`make worker POOL=gpu`) runs stages of other machines' runs in this clone.
"""

import subprocess
import sys
from pathlib import Path

import httpx

from flows.process import Keeper, environment, start
from flows.remote import FOLDER
from flows.server import HOME, answers, configured, launch, refuse_newer_records
from flows.store import refuse_newer_store
from tasks import machine
from tasks.errors import UserError, exit_with_message
from tasks.tracking import servers, store

POOL = "images"  # as in prefect.yaml
MLFLOW = 5000  # the port; the next free one where it is taken
PREFECT = [sys.executable, "-m", "prefect"]


def serve() -> Keeper:
    """Have a server, deploy what prefect.yaml says, and return the worker. Raises `UserError` when one does not start."""
    address = have_server()
    variables = {"PREFECT_API_URL": address}
    for command in (
        [*PREFECT, "--no-prompt", "work-pool", "create", POOL, "--type", "process", "--overwrite"],
        [*PREFECT, "--no-prompt", "deploy", "--all"],
    ):
        done = subprocess.run(
            command, env=environment() | variables, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UserError(f"{' '.join(command[3:])} failed:\n{done.stdout}{done.stderr}")
    print(f"schedules of prefect.yaml are on; runs: {address.removesuffix('/api')}", flush=True)
    return start([*PREFECT, "worker", "start", "--pool", POOL, "--type", "process"], variables)


def pages() -> Keeper:
    """Have Prefect's pages, and return the server of MLflow's."""
    refuse_newer_store()
    address, port = have_server(), servers.find_free_port("127.0.0.1", MLFLOW)
    print(f"Prefect: {address.removesuffix('/api')}\n MLflow: http://127.0.0.1:{port}", flush=True)
    if port != MLFLOW:
        print(f"(port {MLFLOW} is taken by {servers.find_listener(MLFLOW)})", flush=True)
    store.make_paths_relative()
    root = store.ARTIFACTS.resolve().as_uri()
    options = [
        "--backend-store-uri",
        store.find_uri(),
        "--default-artifact-root",
        root,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return start([sys.executable, "-m", "mlflow", "server", *options])


def worker(pool: str) -> Keeper:
    """Return a worker of a pool for this clone, one stage at a time. Raises `UserError` where no server is known."""
    address = configured()
    if not address and not answers(HOME):
        raise UserError(
            "which Prefect server has the work pool? export PREFECT_API_URL=http://<driver or server>:4200/api"
        )
    variables = {"PREFECT_API_URL": address or HOME, FOLDER: str(Path.cwd())}
    return start(
        [*PREFECT, "worker", "start", "--pool", pool, "--type", "process", "--limit", "1"],
        variables,
    )


def have_server() -> str:
    """Return the address of the configured server, or of one on this machine, started here unless it runs already."""
    address = configured()
    if not address and not answers(HOME):
        host, port = httpx.URL(HOME).host, httpx.URL(HOME).port
        servers.hold_port(
            host, port, "have a Prefect server at another place and set PREFECT_API_URL"
        ).close()
        refuse_newer_records()
        launch([*PREFECT, "server", "start", "--host", host, "--port", str(port)], HOME)
    return address or HOME


def main() -> None:
    """Show the lines of what was started until it ends; then end with its status, so that a supervisor starts it again."""
    try:
        what, *names = sys.argv[1:] or ["schedules"]
        machine.report_ignored(print)
        with exit_with_message():
            keeper = {"schedules": serve, "pages": pages, "worker": worker}[what](*names)
        for line in keeper.process.stdout:
            print(line, end="", flush=True)
        sys.exit(keeper.process.wait())
    except KeyboardInterrupt:
        print("\nended")


if __name__ == "__main__":
    main()
