"""Evaluate one architecture: write its scores and tables to `data/results/<architecture>`.

The predictions are all that it needs, so it needs no TensorFlow. Run by hand:
`dvc repro --single-item evaluate@cnn_a`.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.params.evaluate import Evaluate
from tasks.params.read import read_section
from tasks.params.read_architectures import read_architecture
from tasks.params.train import select_epoch
from tasks.results import read_temperature
from tasks.scoring.evaluation import Evaluated, evaluate
from tasks.stage import run


@dataclass(frozen=True)
class Files:
    """The architecture, and the files that the stage reads and writes."""

    architecture: str
    splits_csv: Path
    calibration_json: Path
    history_csv: Path
    predictions_csv: Path
    results: Path


def main(files: Files) -> None:
    """Write metrics.json, thresholds.json and the tables of one architecture."""
    history = pd.read_csv(files.history_csv)
    kept = select_epoch(history.to_dict("records"), read_architecture(files.architecture).train)
    model = Evaluated(
        name=files.architecture,
        results=files.results,
        temperature=read_temperature(files.calibration_json),
        best_epoch=int(history.epoch[kept]),
        history=history,
    )
    evaluate(model, files.splits_csv, read_section("evaluate", Evaluate))


if __name__ == "__main__":
    run(main)
