"""One stage of another machine's run, in this worker's clone: the flow that a work pool hands out.

`make worker POOL=gpu` starts a worker here. A run brings the commit to check out and the records of the stage's inputs;
they are pulled from DVC's remote, the stage runs, and its outputs are pushed there. What is pulled, made or could not be
pushed stays in this clone's cache. The stage's code is the commit's; this module's own is that of the run before.
"""

import socket
from logging import LoggerAdapter
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.states import Failed, State

from flows.doctor import differences
from flows.process import EndedError, ended_together
from flows.project_lock import LOCK
from flows.publish import POINTERS, git
from flows.remote import FLOW
from flows.stage_outcome import PASSING, dvc, hear, judge, trouble
from tasks.errors import UserError

PACKAGES = Path("requirements.txt")
NAMED = 10  # packages that a message lists


@flow(name="stage", persist_result=False)
def stage(
    name: str, revision: str, inputs: list[str], pointers: dict[str, str], force: bool = False
) -> State:
    """Run one DVC stage at a commit, from inputs in DVC's remote, and push what it made.

    Args:
        name: The stage, such as `train@cnn_a`.
        revision: The commit to check out; `origin` must have it.
        inputs: The data that the stage reads, to be pulled.
        pointers: DVC's records of these inputs, by file. They travel because the commit's own `dvc.lock` is older than
            what the run made since.
        force: Run it even where DVC's run cache has its outputs.
    """
    here = f"{socket.gethostname()}:{Path.cwd()}"
    try:
        with FileLock(LOCK, blocking=False), ended_together():
            log = get_run_logger().getChild(FLOW)
            log.info("%s runs in %s", name, here)
            return work(name, revision, inputs, pointers, force, log)
    except Timeout:
        message = f"{here} is busy with another run; a worker needs a clone of its own"
        return Failed(name="Unavailable", message=f"{name} failed: {message}")
    except EndedError as error:
        return Failed(name="Ended", message=f"{name} was {error}")
    except UserError as error:
        unavailable = PASSING.search(str(error))
        return Failed(
            name="Unavailable" if unavailable else None, message=f"{name} failed in {here}: {error}"
        )


def work(
    name: str,
    revision: str,
    inputs: list[str],
    pointers: dict[str, str],
    force: bool,
    log: LoggerAdapter,
) -> State:
    """Do what `stage` promises; nobody else is at work in this folder."""
    check_out(revision)
    refuse_other_packages(PACKAGES)
    for path, text in pointers.items():
        Path(path).write_text(text)
    if inputs and (why := trouble(*hear(dvc("pull", "--force", *inputs), log.info))):
        raise UserError(f"its inputs could not be pulled from DVC's remote: {why}")
    state = judge(
        name, *hear(dvc("repro", "--single-item", *(["--force"] if force else []), name), log.info)
    )
    if state.is_completed() and (why := trouble(*hear(dvc("push", "--run-cache", name), log.info))):
        raise UserError(
            f"what it made is kept there, but could not be pushed to DVC's remote: {why}"
        )
    return state


def check_out(revision: str) -> None:
    """Check out a commit of `origin`. Raises `UserError` for one it does not have, and in a folder somebody works in."""
    if git(
        "branch", "--show-current"
    ):  # never used by a worker before: this is a clone's first run
        changed = git("status", "--porcelain", "--untracked-files=no")
        if changed:
            raise UserError(
                f"a worker needs a clone of its own, and this one has uncommitted changes:\n{changed}"
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
    """Undo what the run before left in DVC's records; its outputs stay in the cache."""
    Path("dvc.lock").unlink(missing_ok=True)  # the commit before may have none
    left = git("ls-files", "--modified", "--deleted", "--", *POINTERS, "*.dvc").splitlines()
    if left:
        git("checkout", "--quiet", "--", *sorted(set(left)))


def refuse_other_packages(lock: Path) -> None:
    """Raise `ValueError` naming the installed packages that differ from the checked out lock: results would differ."""
    differing = differences(lock)
    if differing:
        more = [f"… and {len(differing) - NAMED} more"] if len(differing) > NAMED else []
        listed = "\n  ".join([*differing[:NAMED], *more])
        raise UserError(
            f"installed packages differ from {lock} of this revision:\n  {listed}\n`make worker` again installs them"
        )
