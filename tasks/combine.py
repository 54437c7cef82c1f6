"""Combine architectures into the ensembles that params name: `data/ensembles`.

An ensemble has a model in `models/<name>` and results in `results/<name>`, as an architecture has.
It combines the calibrated predictions of its members, so nothing is trained and TensorFlow is not
needed. The validation images choose its temperature, and its weights if params say so. A member
with weight 0 predicts nothing and is not part of the model.

`ensembles.json` lists all ensembles; it is `{}` without ensembles. The stage fails if the members
predicted different images. Run by hand: `dvc repro --single-item combine`.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.errors import UserError
from tasks.inference import ensemble, voting
from tasks.inference.ensemble import Combination
from tasks.modeling import temperature
from tasks.params.ensembles import Ensemble, read_ensembles
from tasks.params.evaluate import Evaluate
from tasks.params.read import read_section
from tasks.results import INDEX, PREDICTIONS_CSV, SIZE_JSON, read_timing, write_timing
from tasks.scoring.predictions import list_classes, to_arrays
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking.hashes import file_sha256, git_revision

SUMS = ("train_seconds", "feature_seconds")
IMAGE = ["path", "label", "split"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A model of an ensemble: its folder, the folder of its results, and its predictions."""

    model: Path
    results: Path
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Combined:
    """An ensemble with the weights of all its members, and the folder of its results."""

    name: str
    section: Ensemble
    weights: dict[str, float]
    results: Path

    @property
    def combination(self) -> Combination:
        """Return the vote and the members that have a weight above 0."""
        used = {member: weight for member, weight in self.weights.items() if weight > 0}
        return Combination(self.section.vote, used)


def main(splits_csv: Path, models: Path, results: Path, ensembles: Path) -> None:
    """Write the model and the results of each ensemble, and the list of them."""
    shutil.rmtree(ensembles, ignore_errors=True)
    ensembles.mkdir(parents=True)
    index = {}
    for name, section in read_ensembles().items():
        members = read_members(section.members, models, results)
        weights = choose_weights(section, members)
        combined = Combined(name, section, weights, ensembles / results.name / name)
        fitted = build(combined, members, ensembles / models.name / name)
        write_costs(combined, members)
        log_weights(combined)
        score(combined, splits_csv, fitted)
        index[name] = {"vote": section.vote, "weights": weights}
    (ensembles / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    if not index:
        log.info("params.yaml has no ensembles")


def read_members(names: Sequence[str], models: Path, results: Path) -> dict[str, Member]:
    """Read the members. Raises `UserError` unless they predicted the same images and classes."""
    members = {
        name: Member(models / name, results / name, read_table(results / name / PREDICTIONS_CSV))
        for name in names
    }
    first = members[names[0]].predictions
    for member in members.values():
        table = member.predictions
        if list(table) != list(first) or not table[IMAGE].equals(first[IMAGE]):
            raise UserError(
                f"{member.results}/predictions.csv has other images or classes than that of "
                f"{names[0]}: expected the same, because predictions are combined; run dvc repro"
            )
    return members


def choose_weights(section: Ensemble, members: Mapping[str, Member]) -> dict[str, float]:
    """Return weights that sum to one: equal, as params give them, or chosen on validation."""
    if section.weights == "equal":
        return {name: 1 / len(members) for name in members}
    if isinstance(section.weights, dict):
        total = sum(section.weights.values())
        return {name: section.weights[name] / total for name in members}
    tables = [member.predictions for member in members.values()]
    pairs = [to_arrays(table[table.split == "validation"]) for table in tables]
    chosen = voting.choose_weights(
        np.stack([probabilities for _, probabilities in pairs]), pairs[0][0]
    )
    return dict(zip(members, chosen.tolist(), strict=True))


def build(combined: Combined, members: Mapping[str, Member], folder: Path) -> float:
    """Write the model of an ensemble and its predictions.

    Returns the temperature, which is fitted on the validation images.
    """
    combination = combined.combination
    used = {name: members[name] for name in combination.weights}
    tables = [member.predictions for member in used.values()]
    classes, (targets, _) = list_classes(tables[0]), to_arrays(tables[0])
    raw, distances = combination.combine(
        [to_arrays(table)[1] for table in tables], [table.distance.to_numpy() for table in tables]
    )
    validation = (tables[0].split == "validation").to_numpy()
    fitted = temperature.fit(raw[validation], targets[validation])
    ensemble.save(combination, fitted, {name: one.model for name, one in used.items()}, folder)
    (folder / "summary.txt").write_text(summarise(combination, used))
    table = tables[0][IMAGE].assign(
        predicted=[classes[index] for index in raw.argmax(axis=1)], distance=distances
    )
    columns = [f"p_{label}" for label in classes]
    probabilities = pd.DataFrame(temperature.apply(raw, fitted), columns=columns)
    write_table(pd.concat([table, probabilities], axis=1), combined.results / PREDICTIONS_CSV)
    return fitted


def summarise(combination: Combination, used: Mapping[str, Member]) -> str:
    """Describe an ensemble and its members."""
    lines = [f"An ensemble by {combination.vote} vote of these members, asked one after the other:"]
    lines += [f"  {name}  weight {weight:.4g}" for name, weight in combination.weights.items()]
    for name, member in used.items():
        lines += ["", name, (member.model / "summary.txt").read_text().rstrip("\n")]
    return "\n".join(lines) + "\n"


def write_costs(combined: Combined, members: Mapping[str, Member]) -> None:
    """Write the number of parameters and the times of an ensemble: the sums over its members.

    All members were trained, but only those with a weight above 0 predict. The times are written
    only if all members were trained on this machine.
    """
    used = [members[name] for name in combined.combination.weights]
    sizes = [json.loads((member.results / SIZE_JSON).read_text()) for member in used]
    size = {"parameters": sum(one["parameters"] for one in sizes)}
    (combined.results / SIZE_JSON).write_text(json.dumps(size, indent=2) + "\n")
    timings: dict[str, Any] = {name: read_timing(one.results) for name, one in members.items()}
    if not all(timings.values()):
        return
    seconds = "predict_seconds_per_image"
    predict = sum(timings[name][seconds] for name in combined.combination.weights)
    timing = {
        **{name: round(sum(one[name] for one in timings.values()), 2) for name in SUMS},
        "epoch_seconds": [],  # it is not trained itself
        seconds: float(f"{predict:.6g}"),
    }
    write_timing(timing, combined.results)


def log_weights(combined: Combined) -> None:
    """Log the weights, and the members of weight 0."""
    weights = ", ".join(f"{name} {weight:.4g}" for name, weight in combined.weights.items())
    log.info("%s, %s vote: %s", combined.name, combined.section.vote, weights)
    without = [name for name, weight in combined.weights.items() if weight == 0]
    if without:
        log.info("%s: %s: weight 0, so not part of the model", combined.name, ", ".join(without))


def score(combined: Combined, splits_csv: Path, fitted: float) -> None:
    """Evaluate an ensemble as an architecture is evaluated, in an MLflow run of its own."""
    # These take seconds to import, which a run without ensembles saves.
    import mlflow

    from tasks.scoring.evaluation import Evaluated, evaluate
    from tasks.tracking import runs

    name, predictions_csv = combined.name, combined.results / PREDICTIONS_CSV
    tags = {"git_revision": git_revision(), "data_sha256": file_sha256(splits_csv)}
    params = {
        "architecture": name,
        "vote": combined.section.vote,
        "members": " ".join(combined.weights),
        "weights": " ".join(f"{weight:.4g}" for weight in combined.weights.values()),
    }
    with runs.record_run(lambda: runs.continue_run(name, predictions_csv)):
        runs.record(lambda: mlflow.set_tags(tags))
        runs.record(lambda: mlflow.log_params(params))
    wanted = read_section("evaluate", Evaluate)
    evaluate(Evaluated(name, combined.results, fitted), splits_csv, wanted)


if __name__ == "__main__":
    run(main)
