"""Run a command and tell by its exit status and words what happened: done, from the cache, failed, or worth another try."""

import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from prefect.states import Completed, Failed, State

from flows.process import stream

# What passes by itself and is worth another try; a stage's own verdict is not.
PASSING = re.compile(
    r"unable to acquire lock|is busy, it is being blocked|database is locked|connection (error|reset|refused|timed out)|"
    r"temporar(y|ily) (failure|unavailable)|name resolution|timed? ?out|too many requests|service unavailable",
    re.IGNORECASE,
)
SKIPPED = re.compile(r"^Stage '.*' didn't change, skipping$", re.MULTILINE)
CACHED = re.compile(r"^Stage '.*' is cached - skipping run", re.MULTILINE)
DVC_HINTS = (
    "To track the changes with git", "To enable auto staging", "Use `dvc push`", "\tgit add ", "\tdvc config ",
    "Having any troubles?",
)  # fmt: skip
DVC_CHATTER = ("ERROR: failed to reproduce", "Running stage", "> ", *DVC_HINTS)


def dvc(*words: str) -> list[str]:
    """Return a command of DVC that waits where another `dvc` is at work."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *words]


def hear(
    command: list[str],
    show: Callable[[str], None],
    limit: float | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, list[str]]:
    """Run a command as `stream` does, show the lines that a person wants to see, and return its exit status and all lines."""
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.strip() and not line.startswith(DVC_HINTS):
            show(line)

    return stream(command, on_line, limit, variables), lines


def judge(stage: str, status: int, lines: list[str]) -> State:
    """Return the state that the exit status and the words of `dvc repro` amount to."""
    if status != 0:
        why = reason(lines)
        return Failed(
            name="Unavailable" if PASSING.search(why) else None, message=f"{stage} failed: {why}"
        )
    text = "\n".join(lines)
    if SKIPPED.search(text):
        return Completed(name="Skipped", message="nothing it depends on changed")
    if CACHED.search(text):
        return Completed(name="Cached", message="taken from DVC's run cache")
    return Completed(message="done")


def trouble(status: int, lines: list[str]) -> str:
    """Return why a transfer failed, or ""; DVC ends well where the run cache alone could not be copied, and only says so."""
    return reason(lines) if status != 0 or any(line.startswith("ERROR:") for line in lines) else ""


def reason(lines: list[str]) -> str:
    """Return what a failed stage said: from its first `error:` line on, else its last lines."""
    own = [line for line in lines if line.strip() and not line.startswith(DVC_CHATTER)]
    start = next(
        (number for number, line in enumerate(own) if line.lower().startswith("error:")),
        max(len(own) - 5, 0),
    )
    return "\n".join(own[start : start + 20]).strip() or "\n".join(
        line for line in lines if line.startswith("ERROR:")
    )
