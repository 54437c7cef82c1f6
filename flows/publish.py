"""Hand on what a run made: objects to DVC's remote, the pointers to them as a commit on the branch that is checked out.

`python -m flows.publish` (`make push`) does it for a run by `dvc repro`, or in CI.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from flows.process import EndedError, environment
from flows.stage_outcome import PASSING, hear, trouble
from tasks.errors import UserError

POINTERS = ("dvc.lock", "data/raw.dvc", "data/promotions.jsonl")


@task(
    name="publish", task_run_name="publish", cache_policy=NO_CACHE, persist_result=False,
    retries=3, retry_delay_seconds=[5, 20, 60], retry_condition_fn=lambda task, run, state: state.name == "Unavailable",
)  # fmt: skip
def publish() -> State:
    """Push objects and run cache, commit the pointers where they changed, and push the branch if there is a remote."""
    try:
        hand_on(get_run_logger().info)
    except (EndedError, UserError) as error:
        return Failed(
            name="Unavailable" if PASSING.search(str(error)) else None,
            message=f"publishing failed: {error}",
        )
    return Completed(message=f"published on branch {branch()}")


def hand_on(say: Callable[[str], None]) -> None:
    """Do it, without Prefect. Raises `UserError` with the words of the command that failed."""
    for command in commands():
        if why := trouble(*hear(command, say)):
            raise UserError(f"{' '.join(command[-3:])}: {why}")


def commands() -> list[list[str]]:
    """Return what is to be run, in order. Raises `UserError` where no branch is checked out."""
    name = branch()
    todo = [[sys.executable, "-m", "dvc", "push", "--run-cache"]]
    present = [path for path in POINTERS if Path(path).exists()]
    if git("status", "--porcelain", "--", *present):
        todo += [
            ["git", "add", "--", *present],
            ["git", "commit", "--only", "--message", "Retrain", "--", *present],
        ]
    if "origin" in git("remote").split():
        todo.append(["git", "push", "origin", name])
    return todo


def branch() -> str:
    """Return the branch that is checked out."""
    name = git("branch", "--show-current")
    if not name:
        raise UserError(
            "no branch is checked out, so nothing can be committed: git switch -c retrain"
        )
    return name


def git(*arguments: str) -> str:
    """Return what Git prints. Raises `UserError` with its error output."""
    result = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, env=environment()
    )
    if result.returncode != 0:
        raise UserError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


def main() -> None:
    """Hand on what is here."""
    try:
        hand_on(print)
    except UserError as error:
        sys.exit(f"error: publishing failed: {error}")


if __name__ == "__main__":
    main()
