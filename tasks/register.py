"""Register the winner as a version of the registered model; make it champion if it passes the gate.

Running the stage twice changes nothing. Model files that are registered already get no second
version; only their thresholds are replaced by today's. A version that was compared with this
champion on these data is not compared again. A person's decision (`python -m flows.promote`)
stands. Each look at the test images adds a line to `data/promotions.jsonl`. The stage fails if the
champion's files have changed since it was registered.
Run by hand: `dvc repro --single-item register`.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from tasks.errors import UserError, suggest
from tasks.inference import ensemble
from tasks.params.read import read_section
from tasks.params.register import Gate, Register
from tasks.params.split import Split
from tasks.quality.folder_names import list_names
from tasks.registry import promotions, unseen_images, versions
from tasks.registry.champion_gate import (
    PROMOTED,
    Candidate,
    Champion,
    Decision,
    apply_gate,
    find_earlier_decision,
)
from tasks.registry.requirements import requirements
from tasks.results import CLASSES_JSON, METRICS_JSON, PREDICTIONS_CSV, THRESHOLDS_JSON, find_folder
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.hashes import file_sha256, folder_sha256
from tasks.tracking.keys import make_key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Paths of the stage: its inputs, the receipt, and the ledger of promotions."""

    clean: Path
    files_csv: Path
    splits_csv: Path
    comparison_json: Path
    models: Path
    results: Path
    ensembles: Path
    registration_json: Path
    promotions_jsonl: Path


@dataclass(frozen=True)
class Winner:
    """The winner of the comparison: its files, and the images that it was given."""

    architecture: str
    model: Path
    results: Path
    seen: pd.DataFrame
    sha256: str

    @property
    def classes(self) -> list[str]:
        """The classes in the order of the model's outputs."""
        return json.loads((self.model / CLASSES_JSON).read_text())

    @property
    def scores(self) -> dict[str, float]:
        """The metrics on validation and test images."""
        return json.loads((self.results / METRICS_JSON).read_text())


def main(options: Options) -> None:
    """Register the winner, apply the gate, and write the receipt."""
    params = read_section("register", Register)
    splits, files = read_table(options.splits_csv), read_table(options.files_csv)
    winner = read_winner(options, unseen_images.select_given_images(splits, files))
    check_class_names(params.class_names, winner.classes)
    runs.refuse_unreachable()
    runs.open_store()
    client = MlflowClient()
    version = find_or_create(client, params, winner)
    candidate = Candidate(
        version=version,
        architecture=winner.architecture,
        classes=winner.classes,
        scores=winner.scores,
        test=unseen_images.select_test_images(
            read_table(winner.results / PREDICTIONS_CSV), splits, files
        ),
        splits=splits,
        seen=winner.seen,
        clean=options.clean,
        hash_distance=read_section("split", Split).near_copies.hash_distance,
    )
    splits_sha256 = file_sha256(options.splits_csv)
    receipt = decide(client, candidate, params, splits_sha256, options.promotions_jsonl)
    options.registration_json.write_text(
        json.dumps(receipt, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    versions.describe(client, version, describe_candidate(candidate, receipt))
    report_decision(receipt, params.gate)


def read_winner(options: Options, seen: pd.DataFrame) -> Winner:
    """Return the winner that `comparison.json` names."""
    name = json.loads(options.comparison_json.read_text())["winner"]
    model = find_folder(name, options.models, options.ensembles)
    results = find_folder(name, options.results, options.ensembles)
    return Winner(name, model, results, seen, folder_sha256(model))


def check_class_names(names: dict[str, str], classes: list[str]) -> None:
    """Raise `UserError` for names of classes that the model does not have, or for equal names."""
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"params.yaml: register.class_names: {suggest(unknown[0], classes)}expected classes of "
            f"the model, which are {list_names(classes)}; received {list_names(unknown)}"
        )
    shown = [names.get(label, label) for label in classes]
    twice = sorted({name for name in shown if shown.count(name) > 1})
    if twice:
        raise UserError(
            "params.yaml: register.class_names: expected a different name for each class, "
            f"received twice: {list_names(twice)}"
        )


def find_or_create(client: MlflowClient, params: Register, winner: Winner) -> ModelVersion:
    """Return the winner's version with today's thresholds and names, as the alias `challenger`."""
    name = params.model
    version = versions.find_version(client, name, winner.sha256)
    if version is None:
        version = create_version(name, winner)
        log.info("registered %s as version %s of %s", winner.architecture, version.version, name)
    else:
        versions.replace_artifact(client, version, winner.results / THRESHOLDS_JSON)
        log.info(
            "%s is already registered as version %s of %s",
            winner.architecture,
            version.version,
            name,
        )
    versions.replace_class_names(client, version, params.class_names)
    client.set_registered_model_alias(name, versions.CHALLENGER, version.version)
    return version


def create_version(name: str, winner: Winner) -> ModelVersion:
    """Log the model as a pyfunc to the MLflow run of its training, and register it."""
    with (
        runs.continue_run(winner.architecture, winner.results / PREDICTIONS_CSV),
        tempfile.TemporaryDirectory() as scratch,
    ):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model="tasks/registry/pyfunc.py",
            artifacts=copy_artifacts(winner, Path(scratch)),
            code_paths=["tasks"],
            model_config={versions.SHA256: winner.sha256},  # checked wherever the model is loaded
            signature=make_signature(winner.classes),
            pip_requirements=requirements(),
        )
        return mlflow.register_model(logged.model_uri, name, tags=make_tags(winner))


def copy_artifacts(winner: Winner, scratch: Path) -> dict[str, str]:
    """Copy the files of a version to a scratch folder, and return their paths.

    MLflow refuses links, and DVC with `cache.type symlink` leaves links to its cache.
    """
    seen, thresholds = scratch / "seen.csv", scratch / THRESHOLDS_JSON
    write_table(winner.seen, seen)
    shutil.copyfile(winner.results / THRESHOLDS_JSON, thresholds)
    model = shutil.copytree(
        winner.model, scratch / winner.model.name, copy_function=shutil.copyfile
    )
    return {"model": str(model), "seen": str(seen), "thresholds": str(thresholds)}


def make_tags(winner: Winner) -> dict[str, str]:
    """Return the tags of a version: its architecture, hash, classes, members and scores."""
    tags = {"architecture": winner.architecture, versions.SHA256: winner.sha256}
    classes = json.dumps(winner.classes)
    if len(classes) <= versions.LONGEST:
        tags["classes"] = classes
    if ensemble.is_ensemble(winner.model):
        tags["members"] = json.dumps(ensemble.read_combination(winner.model).weights)
    return tags | {
        make_key(name): str(value)
        for name, value in winner.scores.items()
        if name.startswith(("val_", "test_"))
    }


def make_signature(classes: list[str]) -> ModelSignature:
    """Return the signature of `tasks/registry/pyfunc.py`: image bytes in, predictions out."""
    columns = {
        "predicted": "string",
        "confidence": "double",
        "abstained": "boolean",
        "unfamiliar": "boolean",
        "distance": "double",
    }
    columns |= {f"p_{label}": "double" for label in classes} | {"error": "string"}
    outputs = Schema([ColSpec(kind, name, required=False) for name, kind in columns.items()])
    return ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=outputs)


def decide(
    client: MlflowClient, candidate: Candidate, params: Register, splits_sha256: str, path: Path
) -> dict[str, Any]:
    """Apply the gate unless an earlier decision stands; record the look, and return the receipt."""
    lines = versions.read_history(client, params.model, path)
    versions.finish_change(client, params.model, lines)
    champion = versions.find_champion(client, params.model)
    with versions.fetch(champion) if champion else nullcontext() as folder:
        decision = find_earlier_decision(candidate, champion, lines, params.gate)
        if decision is None:
            opponent = Champion(champion, folder) if champion and folder else None
            decision = apply_gate(candidate, opponent, params.gate)
            line = make_look(candidate, champion, decision, params, splits_sha256)
            versions.record(client, candidate.version, line, path)
            lines.append(line)
    return make_receipt(candidate, champion, decision, lines)


def make_look(
    candidate: Candidate,
    champion: ModelVersion | None,
    decision: Decision,
    params: Register,
    splits_sha256: str,
) -> promotions.Line:
    """Return the line of `promotions.jsonl` for a look."""
    number = int(candidate.version.version)
    before = (int(champion.version), champion.tags[versions.SHA256]) if champion else (None, None)
    after = (number, candidate.sha256) if decision.verdict == PROMOTED else before
    return promotions.make_line(
        promotions.LOOK,
        params.model,
        decision.reason,
        {"test": candidate.test_sha256, "splits": splits_sha256},
        version=number,
        architecture=candidate.architecture,
        model_sha256=candidate.sha256,
        verdict=decision.verdict,
        champion_before=before[0],
        champion_before_sha256=before[1],
        champion=after[0],
        champion_sha256=after[1],
        checks=[asdict(check) for check in decision.checks],
        numbers=decision.numbers,
        gate=params.gate and params.gate.model_dump(),
    )


def make_receipt(
    candidate: Candidate,
    champion: ModelVersion | None,
    decision: Decision,
    lines: Sequence[promotions.Line],
) -> dict[str, Any]:
    """Return the champion, the decision, and the numbers of the last look at this candidate."""
    looks = [line for line in lines if line["event"] == promotions.LOOK]
    last = next((line for line in reversed(looks) if line["model_sha256"] == candidate.sha256), {})
    number, before = int(candidate.version.version), int(champion.version) if champion else None
    return {
        "model": candidate.version.name,
        "version": number,
        "architecture": candidate.architecture,
        "model_sha256": candidate.sha256,
        "champion": number if decision.verdict == PROMOTED else before,
        "champion_before": before,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "checks": last.get("checks", []),
        "numbers": last.get("numbers", {}),
        "looks": sum(line["hashes"]["test"] == candidate.test_sha256 for line in looks),
    }


def describe_candidate(candidate: Candidate, receipt: dict[str, Any]) -> str:
    """Return the architecture, the main test scores and the decision in Markdown."""
    scores = candidate.scores
    rows = [
        "| {} | {:.3f} | {:.3f} to {:.3f} |".format(
            name, *(scores[f"{key}{end}"] for end in ("", "_low", "_high"))
        )
        for key, name in (("test_macro_f1", "macro F1"), ("test_accuracy", "accuracy"))
        if f"{key}_low" in scores
    ]
    table = ["| test score | value | 95 % interval |", "|---|---|---|", *rows]
    decision = f"Gate: {receipt['verdict']}. {receipt['reason']}"
    return "\n".join([f"Architecture `{candidate.architecture}`.", "", *table, "", decision])


def report_decision(receipt: dict[str, Any], gate: Gate | None) -> None:
    """Log the decision, and the risk of a false promotion after several looks."""
    log.info("version %s %s: %s", receipt["version"], receipt["verdict"], receipt["reason"])
    looks = receipt["looks"]
    if gate is not None and looks > 1:
        risk = 1 - (1 - (1 - gate.confidence) / 2) ** looks
        log.info(
            "%d looks at these test images: the risk that one of them promotes a model that is no "
            "better is at most %.1f %%",
            looks,
            100 * risk,
        )
    champion = receipt["champion"]
    log.info("champion: %s", "none" if champion is None else f"version {champion}")


if __name__ == "__main__":
    run(main)
