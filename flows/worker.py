"""Run one stage for another machine, in this worker's clone: the flow that a work pool hands out.

`make worker POOL=gpu` starts a worker here. A run brings a commit and DVC's records of the stage's
inputs. The worker checks out the commit, pulls the inputs from DVC's remote, runs the stage, and
pushes the outputs. All of that data stays in the cache of this clone, also if a push failed.
The stage runs with the code of the commit; this module was loaded before the checkout.
"""

import socket
from dataclasses import dataclass
from logging import LoggerAdapter
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.states import Failed, State

from flows.git import git
from flows.packages import find_differences, list_some
from flows.process import EndedError, end_together
from flows.project_lock import LOCK
from flows.publish import POINTERS
from flows.remote import FLOW
from flows.stage_outcome import dvc_command, dvc_outcome, find_trouble, name_failure, run_command
from tasks.errors import UserError

PACKAGES = Path("requirements.txt")


@dataclass(frozen=True)
class Order:
    """The stage that a worker runs; see `stage`."""

    name: str
    revision: str
    inputs: list[str]
    pointers: dict[str, str]
    force: bool = False


@flow(name="stage", persist_result=False)
def stage(
    name: str, revision: str, inputs: list[str], pointers: dict[str, str], force: bool = False
) -> State:
    """Run one DVC stage at a commit, from inputs in DVC's remote, and push its outputs.

    Args:
        name: The stage, such as `train@cnn_a`.
        revision: The commit to check out. `origin` must have it.
        inputs: The data that the stage reads, which the worker pulls.
        pointers: DVC's records of these inputs, by file. The `dvc.lock` of the commit does not
            know the inputs that the run made since.
        force: Run the stage even if DVC's run cache has its outputs.
    """
    here = f"{socket.gethostname()}:{Path.cwd()}"
    try:
        with FileLock(LOCK, blocking=False), end_together():
            log = get_run_logger().getChild(FLOW)
            log.info("%s runs in %s", name, here)
            return work(Order(name, revision, inputs, pointers, force), log)
    except Timeout:
        message = f"{here} is busy with another run; a worker needs a clone of its own"
        return Failed(name="Unavailable", message=f"{name} failed: {message}")
    except EndedError as error:
        return Failed(name="Ended", message=f"{name} was {error}")
    except UserError as error:
        message = f"{name} failed in {here}: {error}"
        return Failed(name=name_failure(str(error)), message=message)


def work(order: Order, log: LoggerAdapter) -> State:
    """Do what `stage` promises; the caller holds the lock of this folder."""
    check_out(order.revision)
    refuse_other_packages(PACKAGES)
    for path, text in order.pointers.items():
        Path(path).write_text(text)
    pull = dvc_command("pull", "--force", *order.inputs)
    if order.inputs and (why := find_trouble(*run_command(pull, log.info))):
        raise UserError(f"its inputs could not be pulled from DVC's remote: {why}")
    force = ["--force"] if order.force else []
    repro = dvc_command("repro", "--single-item", *force, order.name)
    state = dvc_outcome(order.name, *run_command(repro, log.info))
    push = dvc_command("push", "--run-cache", order.name)
    if state.is_completed() and (why := find_trouble(*run_command(push, log.info))):
        raise UserError(
            f"its outputs are kept there, but could not be pushed to DVC's remote: {why}"
        )
    return state


def check_out(revision: str) -> None:
    """Check out a commit of `origin`.

    Raises `UserError` if `origin` lacks it, and in a folder with uncommitted changes.
    """
    if git("branch", "--show-current"):  # a branch is checked out only before the first run
        changed = git("status", "--porcelain", "--untracked-files=no")
        if changed:
            raise UserError(
                "a worker needs a clone of its own, and this one has uncommitted changes:\n"
                f"{changed}"
            )
    else:
        forget_records()
    git("fetch", "--quiet", "origin")
    try:
        git("cat-file", "-e", f"{revision}^{{commit}}")
    except UserError:
        address = git("remote", "get-url", "origin")
        raise UserError(
            f"revision {revision} is not in {address}, where this worker looks: git push it there"
        ) from None
    git("checkout", "--quiet", "--detach", revision)


def forget_records() -> None:
    """Restore DVC's records as committed: the run before changed them. The cache is kept."""
    Path("dvc.lock").unlink(missing_ok=True)  # the commit before may have none
    left = git("ls-files", "--modified", "--deleted", "--", *POINTERS, "*.dvc").splitlines()
    if left:
        git("checkout", "--quiet", "--", *sorted(set(left)))


def refuse_other_packages(lock: Path) -> None:
    """Raise `UserError` if installed packages differ from the lock: the results would differ."""
    if differences := find_differences(lock):
        raise UserError(
            f"installed packages differ from {lock} of this revision:\n  "
            f"{list_some(differences)}\nrun `make worker` again to install them"
        )
