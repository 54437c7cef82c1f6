"""The flow of the search runs workers side by side and writes the best values to params.yaml."""

import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows import tune as flow
from flows.graph import read_status
from tasks.params.whole import load_params
from tests.support import ROOT, toy_pipeline, toy_search
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow

DVC_YAML = """
stages:
  weigh:
    cmd: mv given data/class_weights
    outs: [data/class_weights]
  train:
    foreach: ${architectures}
    do:
      cmd: >-
        python -m tasks.train --architecture ${key} --clean data/clean --splits-csv data/splits.csv
        --class-weights data/class_weights/${key}.json --decoding-json data/decoding.json
        --models data/models/${key} --results data/results/${key}
      params: ["architectures.${key}"]
      deps: ["data/class_weights/${key}.json"]
      outs: ["data/models/${key}", "data/results/${key}"]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Path:
    """Enter a DVC project that lacks its class weights."""
    root = toy_search.make(tmp_path / "project")
    (root / "data/class_weights").rename(root / "given")
    (root / "dvc.yaml").write_text(DVC_YAML)
    toy_pipeline.git(root, "init", "--quiet")
    toy_pipeline.dvc(root, "init", "--quiet")
    enter(root, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return root


def test_workers_share_a_search_and_the_best_values_go_back_to_params(root: Path) -> None:
    before = Path("params.yaml").read_text()
    state = flow.tune("forest", trials=6, workers=2, return_state=True)
    assert state.is_completed(), state.message
    assert Path("data/class_weights/forest.json").exists()
    assert "next: python -m flows.tune forest --minutes 0 --write" in state.message
    with get_client(sync_client=True) as client:
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["tune-forest"]))
        table = client.read_artifacts(artifact_filter=key)[0].data
    assert "the best of 6 trials" in table and "hyperband: 6 trials (6 finished)" in table
    assert Path("params.yaml").read_text() == before
    written = flow.tune("forest", minutes=0, write=True, return_state=True)
    trees = load_params().architectures["forest"].structure.trees
    assert "best values, from trial" in written.message and f"trees: {trees}" in written.message
    assert Path("params.yaml").read_text() == before.replace(
        "forest: {like: random_forest}", f"forest: {{like: random_forest, trees: {trees}}}"
    )
    assert "train@forest" in read_status()


def test_a_mistake_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(toy_search.PARAMS)
    for parameters, expected in (
        ({"architecture": "smal"}, "unknown architecture 'smal', known are small, head, forest"),
        ({"architecture": "forest", "workers": 0}, "workers: received 0, expected at least 1"),
    ):
        state = flow.tune(**parameters, return_state=True)
        assert state.is_failed() and state.message == expected
    Path("params.yaml").write_text(toy_search.PARAMS.partition("tune:")[0])
    monkeypatch.setattr(sys, "argv", ["tune", "forest"])
    with pytest.raises(
        SystemExit,
        match="error: params.yaml has no ranges for forest: received tune.space of nothing",
    ):
        flow.main()
