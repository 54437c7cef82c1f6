"""Run a command, and read the outcome from its exit status and its output.

A stage ran, came from the cache, failed, or failed for a reason that may pass.
"""

import re
import sys
from collections.abc import Callable, Mapping

from prefect.states import Completed, Failed, State

from flows.process import NOTHING, stream

# Failures that may pass by themselves, so that another try is worth it.
PASSING = re.compile(
    r"unable to acquire lock|is busy, it is being blocked|database is locked|"
    r"connection (error|reset|refused|timed out)|temporar(y|ily) (failure|unavailable)|"
    r"name resolution|timed? ?out|too many requests|service unavailable",
    re.IGNORECASE,
)
SKIPPED = re.compile(r"^Stage '.*' didn't change, skipping$", re.MULTILINE)
CACHED = re.compile(r"^Stage '.*' is cached - skipping run", re.MULTILINE)
DVC_HINTS = (
    "To track the changes with git",
    "To enable auto staging",
    "Use `dvc push`",
    "\tgit add ",
    "\tdvc config ",
    "Having any troubles?",
)
DVC_CHATTER = ("ERROR: failed to reproduce", "Running stage", "> ", *DVC_HINTS)


def dvc_command(*words: str) -> list[str]:
    """Return a command of DVC that waits while another `dvc` is at work."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *words]


def run_command(
    command: list[str],
    show: Callable[[str], None],
    limit: float | None = None,
    variables: Mapping[str, str] = NOTHING,
) -> tuple[int, list[str]]:
    """Run a command as `stream` does, and return its exit status and all of its lines.

    `show` gets the lines that a person wants to see: no blank lines, and no hints of DVC.
    """
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.strip() and not line.startswith(DVC_HINTS):
            show(line)

    return stream(command, on_line, limit, variables), lines


def dvc_outcome(stage: str, status: int, lines: list[str]) -> State:
    """Return the state of a stage, from the exit status and the lines of `dvc repro`."""
    if status != 0:
        why = find_reason(lines)
        return Failed(name=name_failure(why), message=f"{stage} failed: {why}")
    text = "\n".join(lines)
    if SKIPPED.search(text):
        return Completed(name="Skipped", message="nothing it depends on changed")
    if CACHED.search(text):
        return Completed(name="Cached", message="taken from DVC's run cache")
    return Completed(message="done")


def name_failure(why: str) -> str | None:
    """Return "Unavailable" for a reason that may pass, and None for any other."""
    return "Unavailable" if PASSING.search(why) else None


def find_trouble(status: int, lines: list[str]) -> str:
    """Return why a transfer of DVC failed, or "".

    DVC exits with 0 if only the run cache could not be copied, so its lines are searched too.
    """
    failed = status != 0 or any(line.startswith("ERROR:") for line in lines)
    return find_reason(lines) if failed else ""


def find_reason(lines: list[str]) -> str:
    """Return the reason that a failed stage gave: 20 lines from its first `error:` on.

    Without such a line these are its last five lines.
    """
    own = [line for line in lines if line.strip() and not line.startswith(DVC_CHATTER)]
    errors = [number for number, line in enumerate(own) if line.lower().startswith("error:")]
    start = errors[0] if errors else max(len(own) - 5, 0)
    reason = "\n".join(own[start : start + 20]).strip()
    return reason or "\n".join(line for line in lines if line.startswith("ERROR:"))
