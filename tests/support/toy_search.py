"""A folder in which a search can start: drawn images, splits with groups, class weights."""

import json
from pathlib import Path

import pandas as pd

from tasks.imaging.bit_depth import write_bit_depth
from tasks.tables import write_table
from tasks.tracking.hashes import file_sha256
from tests.support import draw

COUNTS = {"training": 8, "validation": 4, "test": 2, "withheld": 1}  # of each class
PARAMS = """# all of it
train:
  image_size: 32
  channels: 1
  batch_size: 16
  epochs: 4
  early_stopping: null
  schedule: {kind: constant}
architectures:
  small: {like: cnn_a, filters: [4], batch_norm: false, dense: [8]}   # the smallest
  head:                      # on frozen features
    like: transfer
    backbone: MobileNet
    options: {alpha: 0.25}
    weights: null
    views: 1
  forest: {like: random_forest}
tune:
  objective: val_loss
  epochs: 2
  factor: 2
  trials: 4
  seed: 1
  space:
    small:
      dense.0: {low: 8, high: 24, step: 8}
      activation: [relu, tanh]
      dropout: [0, 0.5]
      learning_rate: {low: 0.0001, high: 0.1, log: true}
    head:
      learning_rate: {low: 0.001, high: 0.1, log: true}
      head.dropout: [0, 0.3]
    forest:
      trees: {low: 2, high: 30}
"""


def make(root: Path) -> Path:
    """Make the folder. Each group has two images."""
    rows = []
    for label in draw.LABELS[:3]:
        number = 0
        for split, count in COUNTS.items():
            for _ in range(count):
                path, group = f"{label}/{label}_{number:04}.jpg", f"{label}{number // 2}"
                rows.append({"path": path, "label": label, "split": split, "group": group})
                number += 1
    draw.draw_set(root / "data/clean", {"": dict.fromkeys(draw.LABELS[:3], number)}, size=48)
    sha256 = [file_sha256(root / "data/clean" / row["path"]) for row in rows]
    write_table(pd.DataFrame(rows).assign(sha256=sha256), root / "data/splits.csv")
    weights = dict.fromkeys(draw.LABELS[:3], 1.0)
    (root / "data/class_weights").mkdir()
    for name in ("small", "head", "forest"):
        (root / f"data/class_weights/{name}.json").write_text(json.dumps(weights))
    write_bit_depth(None, root / "data/decoding.json")
    (root / "params.yaml").write_text(PARAMS)
    return root
