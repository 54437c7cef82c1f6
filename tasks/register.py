"""Make the winner a version of the registered model, and the champion if it scores higher on validation.

A model file that is registered already gets no second version, so running twice changes nothing; the registry, not
the receipt `data/registration.json`, is asked. Run by hand: `dvc repro --single-item register`.
"""

import importlib.metadata
import json
import logging
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from tasks import tracking
from tasks.command import run
from tasks.params import load_params

PACKAGES = ("keras", "mlflow", "numpy", "pandas", "pillow", "ruamel.yaml", "tensorflow")
SCORE = "val_macro_f1"

log = logging.getLogger(__name__)


def main(comparison_json: Path, models: Path, results: Path, receipt_json: Path) -> None:
    """Register the winner, move the aliases, and write the receipt."""
    name = load_params().register_.model
    winner = json.loads(comparison_json.read_text())["winner"]
    scores = json.loads((results / winner / "metrics.json").read_text())
    sha256 = tracking.file_sha256(models / winner / "model.keras")
    classes = json.loads((models / winner / "classes.json").read_text())
    tracking.open_store()
    client = MlflowClient()
    version = find_version(client, name, sha256, classes)
    if version is None:
        version = create_version(name, winner, models / winner, results / winner, scores, sha256)
        log.info("registered %s as version %s of %s", winner, version.version, name)
    else:
        log.info("%s is registered already, as version %s of %s", winner, version.version, name)
    receipt = promote(client, version, scores) | {"architecture": winner, "model_sha256": sha256}
    receipt_json.write_text(json.dumps(receipt, indent=2) + "\n")
    log.info("champion: version %s (%s)", receipt["champion"], receipt["reason"])


def find_version(client: MlflowClient, name: str, sha256: str, classes: list[str]) -> ModelVersion | None:
    """Return the version made of this model file for these classes: a class that was renamed leaves the file as it is."""
    found = client.search_model_versions(f"name = '{name}' and tags.model_sha256 = '{sha256}'")
    return next((version for version in found if json.loads(version.tags["classes"]) == classes), None)


def create_version(name: str, architecture: str, model: Path, results: Path, scores: dict[str, float], sha256: str) -> ModelVersion:
    """Log the model to its training's run as a pyfunc that takes image bytes, and register it."""
    classes = json.loads((model / "classes.json").read_text())
    with tracking.continue_run(architecture, results / "predictions.csv"):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model="serving/pyfunc.py",
            artifacts={"model": str(model)},
            code_paths=["tasks"],
            signature=signature(classes),
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in PACKAGES],
        )
        tags = {"architecture": architecture, "model_sha256": sha256, "classes": json.dumps(classes)}
        tags |= {score: str(value) for score, value in scores.items() if score.startswith(("val_", "test_"))}
        return mlflow.register_model(logged.model_uri, name, tags=tags)


def signature(classes: list[str]) -> ModelSignature:
    """Image bytes to the predicted class, its confidence and one probability per class."""
    probabilities = [ColSpec("double", f"p_{label}") for label in classes]
    outputs = Schema([ColSpec("string", "predicted"), ColSpec("double", "confidence"), *probabilities])
    return ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=outputs)


def promote(client: MlflowClient, version: ModelVersion, scores: dict[str, float]) -> dict[str, object]:
    """Set the alias `challenger`, and `champion` where there is none or its validation score is lower."""
    name = version.name
    champion = client.get_registered_model(name).aliases.get("champion")
    client.set_registered_model_alias(name, "challenger", version.version)
    if champion is None:
        reason = "the first version"
    elif champion == version.version:
        reason = "it is the champion already"
    else:
        before = float(client.get_model_version(name, champion).tags[SCORE])
        better = scores[SCORE] > before
        reason = f"{SCORE} {scores[SCORE]:.4f} of version {version.version} against {before:.4f} of version {champion}"
        if not better:
            return _receipt(name, version, champion, champion, reason)
    client.set_registered_model_alias(name, "champion", version.version)
    return _receipt(name, version, version.version, champion, reason)


def _receipt(name: str, version: ModelVersion, champion: str, before: str | None, reason: str) -> dict[str, object]:
    return {"model": name, "version": version.version, "champion": champion, "champion_before": before, "reason": reason}


if __name__ == "__main__":
    run(main)
