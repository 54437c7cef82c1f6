"""Small registered models without a framework.

They look up the prediction for an image by the SHA-256 of its file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from tasks.registry import versions
from tasks.tracking import runs
from tasks.tracking.hashes import folder_sha256

NAME = "toy"
SOURCE = """
import hashlib, json, pathlib
import mlflow, pandas as pd

class Knowing(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        file = pathlib.Path(context.artifacts["model"], "answers.json")
        self.answers = json.loads(file.read_text())

    def predict(self, context, model_input, params=None):
        hashes = [hashlib.sha256(image).hexdigest() for image in model_input["image"]]
        return pd.DataFrame({"predicted": [self.answers[hash] for hash in hashes]})

mlflow.models.set_model(Knowing())
"""


def register(
    scratch: Path,
    answers: Mapping[str, str],
    classes: Sequence[str],
    seen: Sequence[tuple[str, str]] | None,
    name: str = NAME,
) -> ModelVersion:
    """Register a model that predicts `answers`, {SHA-256: class}.

    `seen` are the training images as (SHA-256, hash), None without a record of them.
    """
    model = scratch / "knowing"
    model.mkdir(parents=True, exist_ok=True)
    (model / "answers.json").write_text(json.dumps(dict(answers)))
    (model / "classes.json").write_text(json.dumps(list(classes)))
    (scratch / "model.py").write_text(SOURCE)
    artifacts = {}
    if seen is not None:
        pd.DataFrame(seen, columns=["sha256", "hash"]).to_csv(scratch / "seen.csv", index=False)
        artifacts["seen"] = str(scratch / "seen.csv")
    return _register(model, name, scratch / "model.py", artifacts)


def register_folder(model: Path, name: str) -> ModelVersion:
    """Register a folder with `classes.json` and a model that is loaded without MLflow."""
    source = model.parent / "model.py"
    source.write_text(SOURCE)
    return _register(model, name, source, {})


def files(version: ModelVersion) -> Path:
    """Return the folder of a version's own files in the store, for tests that damage them."""
    return Path(
        mlflow.artifacts.download_artifacts(
            f"models:/{version.name}/{version.version}/artifacts/{version.tags['architecture']}"
        )
    )


def _register(model: Path, name: str, source: Path, artifacts: dict[str, str]) -> ModelVersion:
    with mlflow.start_run(experiment_id=runs.open_store()):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(source),
            artifacts={"model": str(model)} | artifacts,
            pip_requirements=["mlflow"],
        )
    classes = (model / "classes.json").read_text()
    tags = {versions.SHA256: folder_sha256(model), "classes": classes, "architecture": model.name}
    return mlflow.register_model(logged.model_uri, name, tags=tags)
