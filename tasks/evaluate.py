"""Score one architecture from its predictions: numbers and tables in `data/results/<architecture>`.

Needs no TensorFlow. Run by hand: `dvc repro --single-item evaluate@cnn_a`.
"""

from pathlib import Path

import pandas as pd

from tasks.params.architectures import read_architecture
from tasks.params.evaluate import Evaluate
from tasks.params.read import read_section
from tasks.params.train import select_epoch
from tasks.results import read_temperature
from tasks.scoring.evaluation import evaluate
from tasks.stage import run


def main(
    architecture: str,
    splits_csv: Path,
    calibration_json: Path,
    history_csv: Path,
    predictions_csv: Path,
    results: Path,
) -> None:
    """Write metrics.json and the tables of one architecture."""
    history = pd.read_csv(history_csv)
    kept = select_epoch(history.to_dict("records"), read_architecture(architecture).train)
    evaluate(
        architecture, splits_csv, predictions_csv, results, read_temperature(calibration_json),
        read_section("evaluate", Evaluate), {"best_epoch": int(history.epoch[kept])}, history,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
