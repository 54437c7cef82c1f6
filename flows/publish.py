"""Publish results: push data to DVC's remote, commit the pointers, and push the current branch.

`python -m flows.publish` (`make push`) does this after `dvc repro`, or in CI.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from flows.git import git, read_branch
from flows.process import EndedError
from flows.stage_outcome import find_trouble, name_failure, run_command
from tasks.errors import UserError

POINTERS = ("dvc.lock", "data/raw.dvc", "data/promotions.jsonl")


@task(
    name="publish",
    task_run_name="publish",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[5, 20, 60],
    retry_condition_fn=lambda task, run, state: state.name == "Unavailable",
)
def publish() -> State:
    """Publish the results, and try again if a remote does not answer."""
    try:
        push_results(get_run_logger().info)
    except (EndedError, UserError) as error:
        return Failed(name=name_failure(str(error)), message=f"publishing failed: {error}")
    return Completed(message=f"published on branch {read_branch()}")


def push_results(show: Callable[[str], None]) -> None:
    """Publish the results. Raises `UserError` with the output of the command that failed."""
    for command in list_commands():
        if why := find_trouble(*run_command(command, show)):
            raise UserError(f"{' '.join(command[-3:])}: {why}")


def list_commands() -> list[list[str]]:
    """Return the commands of publishing in their order.

    There is a commit only if a pointer changed, and a push only if there is a remote `origin`.
    Raises `UserError` if no branch is checked out.
    """
    branch = read_branch()
    commands = [[sys.executable, "-m", "dvc", "push", "--run-cache"]]
    present = [path for path in POINTERS if Path(path).exists()]
    if git("status", "--porcelain", "--", *present):
        commands += [
            ["git", "add", "--", *present],
            ["git", "commit", "--only", "--message", "Retrain", "--", *present],
        ]
    if "origin" in git("remote").split():
        commands.append(["git", "push", "origin", branch])
    return commands


def main() -> None:
    """Publish the results of this folder."""
    try:
        push_results(print)
    except UserError as error:
        sys.exit(f"error: publishing failed: {error}")


if __name__ == "__main__":
    main()
