"""Make the winner a version of the registered model, and the champion if it passes the gate.

Files that are registered already get no second version, only today's thresholds, and a version that was judged against
this champion on these data is not judged again, so running twice changes nothing. What a person decided
(`python -m flows.promote`) stays. Every look at the test images is a line of `data/promotions.jsonl`. Fails when the
champion's files are not those that were registered.
Run by hand: `dvc repro --single-item register`.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from tasks.inference import ensemble
from tasks.params.read import read_section
from tasks.params.register import Gate, Register
from tasks.params.split import Split
from tasks.registry import promotions, unseen_images, versions
from tasks.registry.champion_gate import PROMOTED, Candidate, Outcome, judge, settled
from tasks.registry.requirements import requirements
from tasks.results import CLASSES_JSON, METRICS_JSON, PREDICTIONS_CSV, THRESHOLDS_JSON, find_folder
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.hashes import file_sha256, folder_sha256
from tasks.tracking.keys import make_key

log = logging.getLogger(__name__)


def main(
    clean: Path, files_csv: Path, splits_csv: Path, comparison_json: Path, models: Path, results: Path, ensembles: Path,
    registration_json: Path, promotions_jsonl: Path,
) -> None:  # fmt: skip
    """Register the winner, judge it, and write the receipt."""
    wanted, near_copies = (
        read_section("register", Register),
        read_section("split", Split).near_copies,
    )
    winner = json.loads(comparison_json.read_text())["winner"]
    model, results = find_folder(winner, models, ensembles), find_folder(winner, results, ensembles)
    splits, files = read_table(splits_csv), read_table(files_csv)
    seen = unseen_images.images_given(splits, files)
    runs.refuse_silence()
    runs.open_store()
    client = MlflowClient()
    version = find_or_create(client, wanted.model, winner, model, results, seen)
    test = unseen_images.judging_images(read_table(results / PREDICTIONS_CSV), splits, files)
    candidate = Candidate(
        version=version,
        architecture=winner,
        classes=json.loads((model / CLASSES_JSON).read_text()),
        scores=json.loads((results / METRICS_JSON).read_text()),
        test=test,
        test_sha256=unseen_images.images_sha256(test),
        splits=splits,
        seen=seen,
        clean=clean,
        hash_distance=near_copies.hash_distance,
    )
    decided = decide(client, candidate, wanted, file_sha256(splits_csv), promotions_jsonl)
    registration_json.write_text(
        json.dumps(decided, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    tell(decided, wanted.gate)


def find_or_create(
    client: MlflowClient, name: str, winner: str, model: Path, results: Path, seen: pd.DataFrame
) -> ModelVersion:
    """Return the version made of these model files, registering them where there is none, and let `challenger` name it.

    The thresholds of one that is registered already are replaced by today's.
    """
    sha256 = folder_sha256(model)
    version = versions.find_version(client, name, sha256)
    if version is None:
        version = create_version(name, winner, model, results, seen, sha256)
        log.info("registered %s as version %s of %s", winner, version.version, name)
    else:
        versions.replace_artifact(client, version, results / THRESHOLDS_JSON)
        log.info("%s is registered already, as version %s of %s", winner, version.version, name)
    client.set_registered_model_alias(name, versions.CHALLENGER, version.version)
    return version


def create_version(
    name: str, architecture: str, model: Path, results: Path, seen: pd.DataFrame, sha256: str
) -> ModelVersion:
    """Log the model to its training's run as a pyfunc that takes image bytes, with the images it has seen, and register it."""
    classes = json.loads((model / CLASSES_JSON).read_text())
    scores = json.loads((results / METRICS_JSON).read_text())
    with (
        runs.continue_run(architecture, results / PREDICTIONS_CSV),
        tempfile.TemporaryDirectory() as scratch,
    ):
        write_table(seen, Path(scratch, "seen.csv"))
        # MLflow refuses links out of a folder, and with `cache.type symlink` DVC's lead to its cache.
        files = shutil.copytree(model, Path(scratch, model.name), copy_function=shutil.copyfile)
        thresholds = shutil.copyfile(results / THRESHOLDS_JSON, Path(scratch, THRESHOLDS_JSON))
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model="tasks/registry/pyfunc.py",
            artifacts={
                "model": str(files),
                "seen": str(Path(scratch, "seen.csv")),
                "thresholds": str(thresholds),
            },
            code_paths=["tasks"],
            model_config={versions.SHA256: sha256},  # so that it is checked wherever it is loaded
            signature=signature(classes),
            pip_requirements=requirements(),
        )
        tags = {"architecture": architecture, versions.SHA256: sha256}
        classes_tag = json.dumps(classes)
        if len(classes_tag) <= versions.LONGEST:
            tags["classes"] = classes_tag
        if ensemble.is_ensemble(model):
            tags["members"] = json.dumps(ensemble.read_combination(model).weights)
        tags |= {
            make_key(name): str(value)
            for name, value in scores.items()
            if name.startswith(("val_", "test_"))
        }
        return mlflow.register_model(logged.model_uri, name, tags=tags)


def signature(classes: list[str]) -> ModelSignature:
    """Image bytes to what `tasks/registry/pyfunc.py` answers."""
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
) -> dict[str, object]:
    """Let the gate judge the candidate, unless that is settled; record the look, and return the receipt."""
    name = params.model
    lines = versions.history(client, name, path)
    versions.settle(client, name, lines)
    champion = versions.find_champion(client, name)
    with versions.fetched(champion) if champion else nullcontext() as folder:
        outcome = settled(candidate, champion, lines, params.gate)
        look = outcome is None
        outcome = outcome or judge(candidate, champion, folder, params.gate)
    if look:
        line = describe(candidate, champion, outcome, params, splits_sha256)
        versions.record(client, candidate.version, line, path)
        lines.append(line)
    return receipt(candidate, champion, outcome, lines)


def describe(
    candidate: Candidate,
    champion: ModelVersion | None,
    outcome: Outcome,
    params: Register,
    splits_sha256: str,
) -> promotions.Line:
    """Return the line of `promotions.jsonl` that a look is."""
    before = (int(champion.version), champion.tags[versions.SHA256]) if champion else (None, None)
    after = (
        (int(candidate.version.version), candidate.sha256)
        if outcome.verdict == PROMOTED
        else before
    )
    return promotions.new_line(
        promotions.LOOK,
        params.model,
        outcome.reason,
        {"test": candidate.test_sha256, "splits": splits_sha256},
        version=int(candidate.version.version),
        architecture=candidate.architecture,
        model_sha256=candidate.sha256,
        verdict=outcome.verdict,
        champion_before=before[0],
        champion_before_sha256=before[1],
        champion=after[0],
        champion_sha256=after[1],
        checks=[asdict(check) for check in outcome.checks],
        numbers=outcome.numbers,
        gate=params.gate and params.gate.model_dump(),
    )


def receipt(
    candidate: Candidate,
    champion: ModelVersion | None,
    outcome: Outcome,
    lines: Sequence[promotions.Line],
) -> dict[str, object]:
    """Return who is champion and why, with the numbers of the last look at this candidate."""
    looks = [line for line in lines if line["event"] == promotions.LOOK]
    last = next((line for line in reversed(looks) if line["model_sha256"] == candidate.sha256), {})
    number, before = int(candidate.version.version), int(champion.version) if champion else None
    return {
        "model": candidate.version.name,
        "version": number,
        "architecture": candidate.architecture,
        "model_sha256": candidate.sha256,
        "champion": number if outcome.verdict == PROMOTED else before,
        "champion_before": before,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "checks": last.get("checks", []),
        "numbers": last.get("numbers", {}),
        "looks": sum(line["hashes"]["test"] == candidate.test_sha256 for line in looks),
    }


def tell(decided: dict[str, object], gate: Gate | None) -> None:
    """Log the verdict, and how far looking again and again has worn the test images out."""
    log.info("version %s %s: %s", decided["version"], decided["verdict"], decided["reason"])
    if gate is not None and decided["looks"] > 1:
        worn = 1 - (1 - (1 - gate.confidence) / 2) ** decided["looks"]
        log.info(
            "%d looks at these test images: up to %.1f %% chance that one lets an equal model pass",
            decided["looks"],
            100 * worn,
        )
    log.info(
        "champion: %s", "none" if decided["champion"] is None else f"version {decided['champion']}"
    )


if __name__ == "__main__":
    run(main)
