"""Architectures that answer together: evaluated, compared, reported, registered and served as one model."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from serving import models
from tasks import tracking
from tasks.tables import read_table
from tests.conftest import enter, run_stage
from tests.page import Page, parse
from tests.recount import check

ENSEMBLES = """
ensembles:
  committee: {members: [tiny, plain]}
  poll: {members: [plain, tiny], vote: majority, weights: {plain: 1, tiny: 3}}
"""


@pytest.fixture(scope="module")
def combined(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pipeline with two ensembles, one of which wins. Made the current folder."""
    root = tmp_path_factory.mktemp("combined") / "workspace"
    shutil.copytree(pipeline, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    with (root / "params.yaml").open("a") as params:
        params.write(ENSEMBLES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(root, monkeypatch)
        monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
        for stage in ("combine", "compare"):
            run_stage(stage)
        comparison = json.loads(Path("data/comparison.json").read_text())
        Path("data/comparison.json").write_text(json.dumps(comparison | {"winner": "committee"}))
        for stage in ("register", "report"):
            run_stage(stage)
        yield root


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): tracking.file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_without_ensembles_there_is_an_empty_list(pipeline: Path) -> None:
    assert files(pipeline / "data/ensembles").keys() == {"ensembles.json"}
    assert (pipeline / "data/ensembles/ensembles.json").read_text() == "{}\n"


def test_smoke(combined: Path) -> None:
    print((combined / "data/ensembles/ensembles.json").read_text())
