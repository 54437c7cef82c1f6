"""Start the permanent processes: the Prefect server, its schedules and a worker, or the web pages.

    python -m flows.serve              runs the schedules of prefect.yaml (`make serve`)
    python -m flows.serve pages        shows the pages of Prefect and MLflow (`make ui`)
    python -m flows.serve worker POOL  runs stages of other machines here (`make worker POOL=gpu`)

With PREFECT_API_URL set, as to a team's server, no Prefect server is started here.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flows.process import Keeper, environment, start
from flows.remote import FOLDER
from flows.server import HOME, configured_address, is_answering, launch, refuse_newer_records
from flows.store import refuse_newer_store
from tasks import machine
from tasks.errors import UserError, exit_with_message
from tasks.tracking import servers, store

POOL = "images"  # the pool of prefect.yaml
HOST, PORT = "127.0.0.1", 4200  # the default address of `make serve`
MLFLOW_PORT = 5000  # or the next free one
# Prefect's lines: "12:01:02.345 | INFO    | Flow run 'red-fox' - text" is shown as "12:01:02 text".
PREFIX = re.compile(r"^(\d\d:\d\d:\d\d)\.\d+ \| INFO +\| (?:[\w.]+(?: run)?(?: '[^']*')? - )?")
PREFECT = [sys.executable, "-m", "prefect"]


def serve() -> Keeper:
    """Ensure a server, create the deployments of prefect.yaml, and return a worker.

    Raises `UserError` if one of them does not start.
    """
    address = ensure_server()
    variables = {"PREFECT_API_URL": address}
    for words in (
        f"--no-prompt work-pool create {POOL} --type process --overwrite",
        "--no-prompt deploy --all",
    ):
        done = subprocess.run(
            [*PREFECT, *words.split()],
            env=environment() | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise UserError(f"prefect {words} failed:\n{done.stdout}{done.stderr}")
    runs = address.removesuffix("/api")
    print(f"the schedules of prefect.yaml are active; runs: {runs}", flush=True)
    return start_worker(POOL, variables)


def show_pages() -> Keeper:
    """Ensure the pages of Prefect, and return the server of MLflow's pages."""
    refuse_newer_store()
    address, port = ensure_server(), servers.find_free_port(HOST, MLFLOW_PORT)
    print(f"Prefect: {address.removesuffix('/api')}\n MLflow: http://{HOST}:{port}", flush=True)
    if port != MLFLOW_PORT:
        print(f"(port {MLFLOW_PORT} is taken by {servers.find_listener(MLFLOW_PORT)})", flush=True)
    store.make_paths_relative()
    command = [sys.executable, *f"-m mlflow server --host {HOST} --port {port}".split()]
    command += ["--backend-store-uri", store.find_uri()]
    return start([*command, "--default-artifact-root", store.ARTIFACTS.resolve().as_uri()])


def run_worker(pool: str) -> Keeper:
    """Return a worker of a pool for this clone, which runs one stage at a time.

    Raises `UserError` if no server is known.
    """
    address = configured_address()
    if not address and not is_answering(HOME):
        raise UserError(
            "which Prefect server has the work pool? "
            f"export PREFECT_API_URL=http://<driver or server>:{PORT}/api"
        )
    variables = {"PREFECT_API_URL": address or HOME, FOLDER: str(Path.cwd())}
    return start_worker(pool, variables, "--limit", "1")


def start_worker(pool: str, variables: dict[str, str], *options: str) -> Keeper:
    """Start a worker of a Prefect work pool."""
    words = f"worker start --pool {pool} --type process".split()
    return start([*PREFECT, *words, *options], variables)


def ensure_server() -> str:
    """Return the address of the configured server, or of one on this machine.

    The server on this machine is started here unless it runs.
    """
    address = configured_address()
    if not address and not is_answering(HOME):
        remedy = "start a Prefect server elsewhere and set PREFECT_API_URL"
        servers.hold_port(HOST, PORT, remedy).close()
        refuse_newer_records()
        launch([*PREFECT, *f"server start --host {HOST} --port {PORT}".split()], HOME)
    return address or HOME


COMMANDS: dict[str, Callable[..., Keeper]] = {
    "schedules": serve,
    "pages": show_pages,
    "worker": run_worker,
}


def main() -> None:
    """Start the processes, show their lines, and end with their exit status.

    A supervisor that restarts failed services can then start this one again.
    """
    try:
        what, *names = sys.argv[1:] or ["schedules"]
        machine.report_ignored(print)
        with exit_with_message():
            keeper = COMMANDS[what](*names)
        for line in keeper.lines:
            print(PREFIX.sub(r"\1 ", line), end="", flush=True)
        sys.exit(keeper.process.wait())
    except KeyboardInterrupt:
        print("\nended")


if __name__ == "__main__":
    main()
