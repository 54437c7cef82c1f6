"""Combine architectures to the ensembles that params name: `data/ensembles`.

An ensemble has a model in `models/<name>` and results in `results/<name>`, as an architecture has; it is made of its members'
calibrated predictions, so nothing is trained and TensorFlow is not needed. Validation images choose its weights, where
params say so, and its temperature. A member without weight is not asked and no part of the model. `ensembles.json` lists
them all, and is `{}` where there is none. Fails where members predicted different images.
Run by hand: `dvc repro --single-item combine`.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.errors import UserError
from tasks.inference import ensemble, voting
from tasks.inference.ensemble import Committee
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

log = logging.getLogger(__name__)


def main(splits_csv: Path, models: Path, results: Path, ensembles: Path) -> None:
    """Write the model and the results of each ensemble, and the list of them."""
    sections, wanted = read_ensembles(), read_section("evaluate", Evaluate)
    shutil.rmtree(ensembles, ignore_errors=True)
    ensembles.mkdir(parents=True)
    weights = {}
    for name, section in sections.items():
        predictions = read_predictions(section.members, results)
        weights[name] = weigh(section, predictions)
        places = ensembles / models.name / name, ensembles / results.name / name
        degrees = build(Committee(section.vote, asked(weights[name])), predictions, models, *places)
        write_costs(section.members, asked(weights[name]), results, places[1])
        tell(name, section, weights[name])
        score(name, section, weights[name], splits_csv, places[1], degrees, wanted)
    listed = {
        name: {"vote": section.vote, "weights": weights[name]} for name, section in sections.items()
    }
    (ensembles / INDEX).write_text(json.dumps(listed, indent=2) + "\n")
    if not listed:
        log.info("params name no ensembles")


def read_predictions(members: Sequence[str], results: Path) -> dict[str, pd.DataFrame]:
    """Return each member's predictions. Raises `UserError` where they are of different images or classes."""
    tables = {member: read_table(results / member / PREDICTIONS_CSV) for member in members}
    first = tables[members[0]]
    for member, table in tables.items():
        if list(table) != list(first) or not table[["path", "label", "split"]].equals(
            first[["path", "label", "split"]]
        ):
            raise UserError(
                f"{results / member}/predictions.csv has other images or classes than that of {members[0]}: expected the same, "
                "since their answers are put together; run dvc repro"
            )
    return tables


def weigh(section: Ensemble, predictions: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return the members' weights, which sum to one; chosen on validation, equal or given, as params say."""
    members = section.members
    if section.weights == "equal":
        return {member: 1 / len(members) for member in members}
    if isinstance(section.weights, dict):
        return {
            member: section.weights[member] / sum(section.weights.values()) for member in members
        }
    pairs = [to_arrays(table[table.split == "validation"]) for table in predictions.values()]
    chosen = voting.choose_weights(
        np.stack([probabilities for _, probabilities in pairs]), pairs[0][0]
    )
    return dict(zip(members, chosen.tolist(), strict=True))


def asked(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights of the members that have some."""
    return {member: weight for member, weight in weights.items() if weight > 0}


def build(
    committee: Committee,
    predictions: Mapping[str, pd.DataFrame],
    models: Path,
    model: Path,
    results: Path,
) -> float:
    """Write the model of an ensemble, and its predictions; return the temperature that is fitted on validation."""
    tables = [predictions[member] for member in committee.weights]
    classes, (targets, _) = list_classes(tables[0]), to_arrays(tables[0])
    raw, distances = committee.answer(
        [to_arrays(table)[1] for table in tables], [table.distance.to_numpy() for table in tables]
    )
    validation = (tables[0].split == "validation").to_numpy()
    degrees = temperature.fit(raw[validation], targets[validation])
    ensemble.save(
        committee, degrees, {member: models / member for member in committee.weights}, model
    )
    (model / "summary.txt").write_text(summary(committee, models))
    predicted = [classes[index] for index in raw.argmax(axis=1)]
    told = tables[0][["path", "label", "split"]].assign(predicted=predicted, distance=distances)
    columns = pd.DataFrame(
        temperature.apply(raw, degrees), columns=[f"p_{label}" for label in classes]
    )
    write_table(pd.concat([told, columns], axis=1), results / PREDICTIONS_CSV)
    return degrees


def summary(committee: Committee, models: Path) -> str:
    """Return in words what the ensemble is, and what its members are."""
    lines = [f"An ensemble by {committee.vote} vote of these members, asked one after the other:"]
    lines += [f"  {member}  weight {weight:.4g}" for member, weight in committee.weights.items()]
    for member in committee.weights:
        lines += ["", member, (models / member / "summary.txt").read_text().rstrip("\n")]
    return "\n".join(lines) + "\n"


def write_costs(
    members: Sequence[str], weights: Mapping[str, float], results: Path, own: Path
) -> None:
    """Write what an ensemble costs: all members were trained, those with weight are asked in turn.

    Its times are the sums of theirs, where all of them were trained on this machine.
    """
    sizes = [json.loads((results / member / SIZE_JSON).read_text()) for member in weights]
    size = {"parameters": sum(one["parameters"] for one in sizes)}
    (own / SIZE_JSON).write_text(json.dumps(size, indent=2) + "\n")
    timings = {member: read_timing(results / member) for member in members}
    if not all(timings.values()):
        return
    timing = {
        **{name: round(sum(timings[member][name] for member in members), 2) for name in SUMS},
        "epoch_seconds": [],  # it is not trained itself
        "predict_seconds_per_image": float(
            f"{sum(timings[member]['predict_seconds_per_image'] for member in weights):.6g}"
        ),
    }
    write_timing(timing, own)


def tell(name: str, section: Ensemble, weights: Mapping[str, float]) -> None:
    """Log what a person wants to know of the weights."""
    log.info(
        "%s, %s vote: %s",
        name,
        section.vote,
        ", ".join(f"{member} {weight:.4g}" for member, weight in weights.items()),
    )
    without = [member for member in weights if member not in asked(weights)]
    if without:
        log.info(
            "%s: %s have no weight, so they are not asked and no part of the model",
            name,
            ", ".join(without),
        )


def score(
    name: str,
    section: Ensemble,
    weights: Mapping[str, float],
    splits_csv: Path,
    results: Path,
    degrees: float,
    wanted: Evaluate,
) -> None:
    """Evaluate an ensemble as an architecture is, in an MLflow run of its own."""
    import mlflow

    from tasks.scoring.evaluation import Evaluated, evaluate
    from tasks.tracking import runs  # cost seconds, which a run without ensembles does without

    predictions_csv = results / PREDICTIONS_CSV
    described = {
        "architecture": name,
        "vote": section.vote,
        "members": " ".join(weights),
        "weights": " ".join(f"{weight:.4g}" for weight in weights.values()),
    }
    with runs.record_run(lambda: runs.continue_run(name, predictions_csv)):
        runs.record(
            lambda: mlflow.set_tags(
                {"git_revision": git_revision(), "data_sha256": file_sha256(splits_csv)}
            )
        )
        runs.record(lambda: mlflow.log_params(described))
    evaluate(Evaluated(name, results, degrees), splits_csv, wanted)


if __name__ == "__main__":
    run(main)
