"""The graph of `dvc.yaml`, asked of DVC: nothing here knows the name of a stage."""

import json
import subprocess

import networkx
from dvc.repo import Repo
from dvc.stage import PipelineStage


def read_graph() -> dict[str, list[str]]:
    """Return {stage: stages it needs directly} of the project in the current folder, in execution order."""
    with Repo() as repo:
        graph = repo.index.graph  # an edge leads from a stage to one it needs
        ordered = reversed(list(networkx.lexicographical_topological_sort(graph, key=lambda stage: stage.addressing)))
        return {
            stage.addressing: sorted(needed.addressing for needed in graph.successors(stage) if isinstance(needed, PipelineStage))
            for stage in ordered
            if isinstance(stage, PipelineStage)
        }


def read_status() -> dict[str, list]:
    """Return {stage: what changed} of every stage that DVC would run again. Raises `RuntimeError` with DVC's words."""
    return json.loads(ask_dvc("status", "--json"))


def with_needed(stages: list[str], graph: dict[str, list[str]]) -> set[str]:
    """Return `stages` and all they need, over any number of steps. Raises `ValueError` for an unknown stage."""
    wanted: set[str] = set()
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        if stage not in graph:
            raise ValueError(f"unknown stage {stage!r}; known are {', '.join(graph)}")
        if stage not in wanted:
            wanted.add(stage)
            waiting += graph[stage]
    return wanted


def ask_dvc(*arguments: str) -> str:
    """Return what a quick DVC command prints. Raises `RuntimeError` with its error output."""
    result = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"dvc {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
