"""Git in this folder: its output, its branch, and why it refuses."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flows.process import environment
from tasks.errors import UserError


@dataclass(frozen=True)
class Refusal:
    """Why Git refuses this folder, and the command that mends it."""

    why: str
    remedy: str


def git(*arguments: str) -> str:
    """Return the output of a Git command. Raises `UserError` with its error output."""
    result = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, env=environment()
    )
    if result.returncode != 0:
        raise UserError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


def read_branch() -> str:
    """Return the branch that is checked out. Raises `UserError` if there is no branch."""
    name = git("branch", "--show-current")
    if not name:
        raise UserError(
            "no branch is checked out, so nothing can be committed: git switch -c retrain"
        )
    return name


def find_refusal() -> Refusal | None:
    """Return why Git refuses to work in this folder; None if it works."""
    english = environment() | {"LC_ALL": "C"}
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--git-dir"], capture_output=True, text=True, env=english
        )
    except FileNotFoundError:
        return Refusal("git is not installed", "install git")
    if found.returncode == 0:
        return None
    owned = re.search(r"git config --global --add safe\.directory .*", found.stderr)
    if owned:
        return Refusal(f"{Path.cwd()} belongs to another user, so Git refuses it", owned[0])
    if "not a git repository" in found.stderr:
        return Refusal(f"{Path.cwd()} is in no Git repository", "git init")
    return Refusal(f"Git refuses {Path.cwd()}: {found.stderr.strip()}", "mend it")
