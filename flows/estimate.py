"""Estimate the time, memory and disk of a stage before it runs.

The source is the last run of the stage in this project. Without such a run, a probe of at most 20 s
measures the speed of this machine, and typical costs of the stages are scaled by it.
"""

import csv
import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.process import environment
from flows.progress import read_usage
from tasks.params.architectures import Architecture, Cnn, Transfer
from tasks.params.train import Train
from tasks.params.whole import load_params

PROBE_SECONDS = 20.0
IMPORT = 7.0  # seconds of TensorFlow's import on the machine of TYPICAL
# verb -> (seconds, seconds for an image, MB), with 2 cores that nobody else uses
TYPICAL = {
    "validate": (14.0, 0.012, 310),
    "clean": (5.0, 0.004, 140),
    "split": (6.0, 0.002, 170),
    "weigh": (5.0, 0.0, 200),
    "train": (20.0, 0.003, 950),
    "evaluate": (13.0, 0.001, 340),
    "explain": (18.0, 0.01, 830),
    "combine": (6.0, 0.0, 160),
    "compare": (9.0, 0.002, 220),
    "register": (16.0, 0.0, 330),
    "report": (14.0, 0.005, 300),
}
OTHER = (6.0, 0.0, 300)
DVC = 3.0  # seconds that DVC needs for a stage, beside the stage itself
STOPPED = 0.8  # share of the epochs that early stopping usually leaves
TRAINED = 0.65  # share of the images in training, until there is a split
# Seconds of a prediction: for a multiplication and an image of a CNN, for a pixel of a backbone.
OPERATION, OVERHEAD, PIXEL = 4e-11, 1e-4, 1.2e-6
PARAMETER = 4e-6  # MB
# Copies of the parameters on disk: the model, and a checkpoint with the optimizer's state.
COPIES = 4


@dataclass(frozen=True)
class Estimate:
    """What a stage is expected to take; `source` is "last run", "probe" or "a guess"."""

    seconds: float
    memory_mb: float
    disk_mb: float | None
    source: str


@dataclass
class Estimator:
    """Estimates stages, from what is known of this project and this machine."""

    images: int
    trained: int
    lock: dict[str, Any]
    sections: dict[str, Architecture]
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    factor: float = 1.0

    def estimate(self, stage: str) -> Estimate:
        """Return the estimate of one stage."""
        usage, disk = read_usage(stage), self.find_disk(stage)
        if usage:
            return Estimate(usage["seconds"] + DVC, usage["peak_mb"], disk, "last run")
        verb, _, name = stage.partition("@")
        fixed, per_image, typical_mb = TYPICAL.get(verb, OTHER)
        memory = float(typical_mb)
        seconds = self.factor * (fixed + per_image * self.images)
        if verb != "train" or name not in self.sections:
            return Estimate(seconds, memory, disk, "probe")
        section = self.sections[name]
        found = self.measured.get(name)
        if found:
            memory = max(memory, found["peak_mb"] + 150)
            disk = found["parameters"] * PARAMETER * COPIES
        seconds += self.estimate_training(section, found or self.guess_speed(section))
        return Estimate(seconds, memory, disk, "probe" if found else "a guess")

    def guess_speed(self, section: Architecture) -> dict[str, float]:
        """Return the speed of an architecture that the probe had no time for."""
        if isinstance(section.structure, Cnn):
            seconds = count_operations(section.structure, section.train) * OPERATION + OVERHEAD
        else:
            seconds = math.prod(section.train.image_size) * PIXEL
        each = self.factor * seconds
        return {"first": 5 * self.factor, "train": 3 * each, "predict": each}

    def estimate_training(self, section: Architecture, found: dict[str, float]) -> float:
        """Return the seconds of all epochs, and of cached features."""
        train, structure = section.train, section.structure
        epochs = train.epochs * (STOPPED if train.early_stopping else 1.0)
        others = self.images - self.trained
        if not isinstance(structure, Transfer):
            epoch = self.trained * found["train"] + others * found["predict"] / 2
            return found["first"] + epochs * epoch + 2 * others * found["predict"]
        later = sum(phase.epochs for phase in structure.phases)
        views = structure.views or epochs
        features = (self.trained * views + others) * found["predict"]
        is_tuned = structure.trainable_from is not None
        tuned = ((epochs if is_tuned else 0) + later) * self.trained * found["train"] / 2
        return found["first"] + features + tuned

    def find_disk(self, stage: str) -> float | None:
        """Return the size of a stage's outputs at its last run in MB, as dvc.lock records it."""
        outs = self.lock.get("stages", {}).get(stage, {}).get("outs", [])
        return sum(out.get("size", 0) for out in outs) / 1e6 if outs else None


def count_operations(structure: Cnn, train: Train) -> int:
    """Return the multiplications of a CNN for one image."""
    (height, width), channels = train.image_size, int(train.channels)
    pooled = structure.pool
    pools = pooled if isinstance(pooled, tuple) else (pooled,) * len(structure.filters)
    count = 0
    for filters, is_pooled in zip(structure.filters, pools, strict=True):
        count += height * width * structure.kernel**2 * channels * filters
        channels = filters
        if is_pooled:
            height, width = height // 2, width // 2
    units = height * width * channels
    for dense in structure.dense:
        count, units = count + units * dense, dense
    return count


def make_estimator(stages: list[str]) -> Estimator:
    """Return an estimator; without a record for one of the stages it probes this machine."""
    lock = YAML(typ="safe").load(Path("dvc.lock")) if Path("dvc.lock").exists() else {}
    images = count_images()
    estimator = Estimator(images, count_trained(images), lock or {}, load_params().architectures)
    if not all(read_usage(stage) for stage in stages):
        estimator.measured = probe()
        imported = estimator.measured.pop("", {}).get("imported")
        estimator.factor = imported / IMPORT if imported else guess_factor()
    return estimator


def guess_factor() -> float:
    """Return how much slower this machine is, if TensorFlow's import took all time of the probe.

    Then other programs keep it busy: the load says how much.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return (PROBE_SECONDS / IMPORT + max(load, PROBE_SECONDS / IMPORT)) / 2


def count_images() -> int:
    """Return the number of files in data/raw, as its pointer records it."""
    pointer, raw = Path("data/raw.dvc"), Path("data/raw")
    if pointer.exists():
        out = YAML(typ="safe").load(pointer)["outs"][0]
        if "nfiles" in out:
            return int(out["nfiles"])
    return sum(1 for path in raw.rglob("*") if path.is_file()) if raw.exists() else 0


def count_trained(images: int) -> int:
    """Return the number of training images: of the last split, else a usual share."""
    file = Path("data/splits.csv")
    if not file.exists():
        return round(images * TRAINED)
    with file.open(encoding="utf-8") as rows:
        return sum(row["split"] == "training" for row in csv.DictReader(rows))


def probe() -> dict[str, dict[str, float]]:
    """Return the speed of each architecture, and under "" of the machine, as far as time allows."""
    command = [sys.executable, "-m", "tasks.tuning.speed"]
    try:
        text = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
            env=environment(),
        ).stdout
    except subprocess.TimeoutExpired as error:
        text = error.stdout or b""
    found = {}
    for line in text.decode().splitlines():
        with suppress(ValueError):
            measured = json.loads(line)
            found[measured.pop("architecture", "")] = measured
    return found
