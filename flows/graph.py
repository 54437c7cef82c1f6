"""Read the graph of `dvc.yaml` from DVC. No stage is named here."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from flows.git import find_refusal
from flows.process import environment
from tasks.errors import UserError

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo

DVC = Path(".dvc")
DVC_LOCK = Path("dvc.lock")


class DvcError(UserError):
    """DVC refused; the message is DVC's."""


def refuse_without_git() -> None:
    """Raise `UserError` if Git does not work in this folder: DVC needs it."""
    refusal = find_refusal()
    if refusal and DVC.exists() and not _is_without_scm():
        raise UserError(
            f"{refusal.why}, and DVC needs Git. Do this, and run again: {refusal.remedy}"
        )


def _is_without_scm() -> bool:
    """Return whether DVC is configured to work without Git."""
    from dvc.config import Config

    return bool(Config(DVC)["core"].get("no_scm"))


def read_graph() -> dict[str, list[str]]:
    """Return {stage: the stages that it needs directly}, in execution order."""
    with open_project() as project:
        from dvc.stage import PipelineStage
        from networkx import lexicographical_topological_sort

        graph = project.index.graph  # an edge leads from a stage to one that it needs
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
    """Return {stage: its changes} for each stage that DVC would run again. Raises `DvcError`.

    An import whose source changed is not a stage; `flows.import_images` updates it.
    """
    with open_project() as project:
        return {
            name: changes for name, changes in project.status().items() if not name.endswith(".dvc")
        }


def read_files(stage: str) -> tuple[list[str], list[str]]:
    """Return the dependencies of a stage, and its outputs that DVC's cache does not keep."""
    with open_project() as project:
        found = project.stage.get_target(stage)
        uncached = [out.def_path for out in found.outs if not out.use_cache]
        return [dep.def_path for dep in found.deps], uncached


def read_arguments(stage: str) -> dict[str, str]:
    """Return {option: value} of a stage's command, such as {"--clean": "data/clean"}."""
    with open_project() as project:
        words = project.stage.get_target(stage).cmd.split()
    return {word: value for word, value in pairwise(words) if word.startswith("--")}


def has_cached_run(stage: str) -> bool:
    """Return whether DVC's run cache has the outputs of a stage for its present inputs."""
    with open_project() as project:
        found, cache = project.stage.get_target(stage), project.stage_cache
        if any(not dep.exists for dep in found.deps):
            return False
        with project.lock:
            found.save_deps()
            # The public `restore` takes the outputs of dvc.lock, whatever they were made of.
            entry = cache._load(found)
            return bool(entry) and cache._create_stage(entry, wdir=found.wdir).outs_cached()


def read_inputs(stage: str) -> tuple[list[str], dict[str, str]]:
    """Return the outputs that a stage reads, and DVC's records of them by file name.

    The records are `.dvc` files, and `dvc.lock` with the entries of these outputs only.
    """
    with open_project() as project, project.lock:
        reads = [dep.fs_path for dep in project.stage.get_target(stage).deps]
        outs = [
            out for out in project.index.outs if any(_overlap(out.fs_path, path) for path in reads)
        ]
        records = _read_records(outs)
    return sorted(os.path.relpath(out.fs_path) for out in outs), records


def _read_records(outs: list["Output"]) -> dict[str, str]:
    owners = {out.stage.addressing: out.stage.relpath for out in outs}
    pointers = [path for name, path in owners.items() if name.endswith(".dvc")]
    lock: dict[str, Any] = YAML(typ="safe").load(DVC_LOCK) if DVC_LOCK.exists() else {}
    stages = lock.get("stages", {})
    lock["stages"] = {name: entry for name, entry in stages.items() if name in owners}
    text = io.StringIO()
    YAML(typ="safe").dump(lock, text)
    return {path: Path(path).read_text() for path in pointers} | {str(DVC_LOCK): text.getvalue()}


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


@contextmanager
def open_project() -> Iterator["Repo"]:
    """Open the DVC project of the current folder in this process: a `dvc` process costs a second.

    Raises `DvcError` with DVC's message.
    """
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
    """Return `stages` and all stages that they need. Raises `UserError` for an unknown stage."""
    unknown = [stage for stage in stages if stage not in graph]
    if unknown:
        raise UserError(f"unknown stages {', '.join(unknown)}; known are {', '.join(graph)}")
    wanted = set(stages)
    for stage in reversed(graph):
        if stage in wanted:
            wanted.update(graph[stage])
    return wanted


def downstream(stages: set[str], graph: dict[str, list[str]]) -> set[str]:
    """Return `stages` and all stages that need them."""
    touched = set(stages)
    for stage, needed in graph.items():
        if touched.intersection(needed):
            touched.add(stage)
    return touched


def run_dvc(*arguments: str) -> str:
    """Return the output of a quick DVC command. Raises `DvcError` with its error output."""
    refuse_without_git()
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if result.returncode != 0:
        said = result.stderr.strip() or result.stdout.strip()
        raise DvcError(f"dvc {' '.join(arguments)}: {said}")
    return result.stdout
