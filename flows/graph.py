"""The graph of `dvc.yaml`, asked of DVC: nothing here knows the name of a stage."""

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from flows.process import environment
from tasks.errors import UserError

if TYPE_CHECKING:
    from dvc.repo import Repo


DVC = Path(".dvc")


class DvcError(UserError):
    """DVC refused, in its own words."""


def refuse_without_git() -> None:
    """Raise `UserError` unless Git lets this user work in this folder, since DVC needs it."""
    command, english = ["git", "rev-parse", "--git-dir"], environment() | {"LC_ALL": "C"}
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, env=english)
    except FileNotFoundError:
        found = None
    if (found and found.returncode == 0) or not DVC.exists() or _without_scm():
        return
    if found is None:
        raise UserError("git is not installed, and DVC needs it: install git, and run again")
    owned = re.search(r"git config --global --add safe\.directory .*", found.stderr)
    if owned:
        raise UserError(
            f"{Path.cwd()} belongs to another user, so Git refuses it. "
            f"If you trust its content, run this, and run again: {owned[0]}"
        )
    if "not a git repository" in found.stderr:
        raise UserError(
            f"{Path.cwd()} is in no Git repository, and DVC needs one. Make it one, and run again: git init"
        )
    raise UserError(f"Git refuses {Path.cwd()}: {found.stderr.strip()}")


def _without_scm() -> bool:
    """Say whether a person told DVC to do without Git."""
    from dvc.config import Config

    return bool(Config(DVC)["core"].get("no_scm"))


def read_graph() -> dict[str, list[str]]:
    """Return {stage: stages it needs directly} of the project in the current folder, in execution order."""
    with open_project() as project:
        from dvc.stage import PipelineStage
        from networkx import lexicographical_topological_sort

        graph = project.index.graph  # an edge leads from a stage to one it needs
        order = lexicographical_topological_sort(
            graph.reverse(), key=lambda stage: stage.addressing
        )
        return {
            stage.addressing: sorted(
                needed.addressing
                for needed in graph.successors(stage)
                if isinstance(needed, PipelineStage)
            )
            for stage in order
            if isinstance(stage, PipelineStage)
        }


def read_status() -> dict[str, list]:
    """Return {stage: what changed} of every stage that DVC would run again. Raises `DvcError`.

    An import whose source changed is no stage: `flows.import_images` sees to it.
    """
    with open_project() as project:
        return {
            name: changes for name, changes in project.status().items() if not name.endswith(".dvc")
        }


def read_files(stage: str) -> tuple[list[str], list[str]]:
    """Return what a stage reads, and which of its outputs are kept out of DVC's cache."""
    with open_project() as project:
        found = project.stage.get_target(stage)
        return [dep.def_path for dep in found.deps], [
            out.def_path for out in found.outs if not out.use_cache
        ]


def read_arguments(stage: str) -> dict[str, str]:
    """Return {option: value} of a stage's command, such as {"--clean": "data/clean"}."""
    with open_project() as project:
        words = project.stage.get_target(stage).cmd.split()
    return {word: value for word, value in pairwise(words) if word.startswith("--")}


def read_inputs(stage: str) -> tuple[list[str], dict[str, str]]:
    """Return the outputs of others that a stage reads, and by file DVC's records of them: `dvc.lock` cut down, `.dvc` files."""
    with open_project() as project, project.lock:
        reads = [dep.fs_path for dep in project.stage.get_target(stage).deps]
        outs = [
            out for out in project.index.outs if any(_overlap(out.fs_path, path) for path in reads)
        ]
        owners = {out.stage.addressing: out.stage for out in outs}
        lock = YAML(typ="safe").load(Path("dvc.lock")) if Path("dvc.lock").exists() else {}
        lock["stages"] = {
            name: entry for name, entry in lock.get("stages", {}).items() if name in owners
        }
        files = {
            owner.relpath: Path(owner.relpath).read_text()
            for name, owner in owners.items()
            if name.endswith(".dvc")
        }
    text = io.StringIO()
    YAML(typ="safe").dump(lock, text)
    return sorted(os.path.relpath(out.fs_path) for out in outs), files | {
        "dvc.lock": text.getvalue()
    }


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


@contextmanager
def open_project() -> Iterator["Repo"]:
    """Open the DVC project in the current folder, in this process: a `dvc` of its own would cost a second each."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    refuse_without_git()
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo(_wait_for_lock=True) as project:
            yield project
    except DvcException as error:
        raise DvcError(": ".join(str(part) for part in (error, error.__cause__) if part)) from error


def upstream(stages: list[str], graph: dict[str, list[str]]) -> set[str]:
    """Return `stages` and all they need, over any number of steps. Raises `UserError` for an unknown stage."""
    unknown = [stage for stage in stages if stage not in graph]
    if unknown:
        raise UserError(f"unknown stages {', '.join(unknown)}; known are {', '.join(graph)}")
    wanted = set(stages)
    for stage in reversed(graph):
        if stage in wanted:
            wanted.update(graph[stage])
    return wanted


def downstream(stages: set[str], graph: dict[str, list[str]]) -> set[str]:
    """Return `stages` and all that need them, over any number of steps."""
    touched = set(stages)
    for stage, needed in graph.items():
        if touched.intersection(needed):
            touched.add(stage)
    return touched


def ask_dvc(*arguments: str) -> str:
    """Return what a quick DVC command prints. Raises `DvcError` with its error output."""
    refuse_without_git()
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if result.returncode != 0:
        raise DvcError(
            f"dvc {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}"
        )
    return result.stdout
