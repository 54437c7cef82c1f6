"""The graph of `dvc.yaml`, asked of DVC: nothing here knows the name of a stage."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.process import environment

if TYPE_CHECKING:
    from dvc.repo import Repo


class DvcError(RuntimeError):
    """DVC refused, in its own words."""


def read_graph() -> dict[str, list[str]]:
    """Return {stage: stages it needs directly} of the project in the current folder, in execution order."""
    with open_project() as project:
        from dvc.stage import PipelineStage
        from networkx import lexicographical_topological_sort

        graph = project.index.graph  # an edge leads from a stage to one it needs
        order = lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.addressing)
        return {
            stage.addressing: sorted(needed.addressing for needed in graph.successors(stage) if isinstance(needed, PipelineStage))
            for stage in order
            if isinstance(stage, PipelineStage)
        }


def read_status() -> dict[str, list]:
    """Return {stage: what changed} of every stage that DVC would run again. Raises `DvcError`.

    An import whose source changed is no stage: `flows.source` sees to it.
    """
    with open_project() as project:
        return {name: changes for name, changes in project.status().items() if not name.endswith(".dvc")}


@contextmanager
def open_project() -> Iterator["Repo"]:
    """Open the DVC project in the current folder, in this process: a `dvc` of its own would cost a second each."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as project:
            yield project
    except DvcException as error:
        raise DvcError(": ".join(str(part) for part in (error, error.__cause__) if part)) from error


def upstream(stages: list[str], graph: dict[str, list[str]]) -> set[str]:
    """Return `stages` and all they need, over any number of steps. Raises `ValueError` for an unknown stage."""
    unknown = [stage for stage in stages if stage not in graph]
    if unknown:
        raise ValueError(f"unknown stages {', '.join(unknown)}; known are {', '.join(graph)}")
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
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if result.returncode != 0:
        raise DvcError(f"dvc {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
