"""Balanced class weights of the training images, by scikit-learn: `data/class_weights.json`.

Weights are inversely proportional to class frequencies, so that each class counts the same in the loss.
Run by hand: `dvc repro --single-item weigh`.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from tasks.command import run
from tasks.params import load_params
from tasks.tables import read_table

log = logging.getLogger(__name__)


def main(splits_csv: Path, weights_json: Path) -> None:
    """Write {class: weight}."""
    splits = read_table(splits_csv)
    weights = weigh(splits[splits.split == "training"].label, load_params().weigh.method)
    weights_json.write_text(json.dumps(weights, indent=2) + "\n")
    log.info("class weights: %s", "  ".join(f"{label} {weight:.2f}" for label, weight in weights.items()))


def weigh(labels: pd.Series, method: str) -> dict[str, float]:
    """Return {class: weight} in alphabetical order: n / (classes * n_class), or 1 with the method `none`."""
    classes = np.unique(labels)
    weights = compute_class_weight("balanced" if method == "balanced" else None, classes=classes, y=labels)
    return {str(label): round(float(weight), 6) for label, weight in zip(classes, weights, strict=True)}


if __name__ == "__main__":
    run(main)
