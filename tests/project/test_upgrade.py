"""The script in the upgrade notes of docs/developing.md works."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.results import TIMING, read_timing
from tests.support import ROOT


def test_size_and_times_are_split_from_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [Path("data/results/tiny"), Path("data/ensembles/results/both")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "predictions.csv").write_text("path\n")
        (folder / "timing.json").write_text(json.dumps({"parameters": 5, "train_seconds": 1.5}))
    script = re.search(
        r"python - << 'END'\n(.*?)\nEND\n", (ROOT / "docs/developing.md").read_text(), re.DOTALL
    )[1]
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert len(list(TIMING.iterdir())) == 2
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"predictions.csv", "size.json"}
        assert (folder / "size.json").read_text() == '{\n  "parameters": 5\n}\n'
        assert read_timing(folder) == {"train_seconds": 1.5}
