"""Load the model that is assessed, with its own test scores and the images it was given."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.inference.predictor import Predictor
from tasks.registry import load, unseen_images, versions
from tasks.results import CALIBRATION_JSON, METRICS_JSON, THRESHOLDS_JSON, read_temperature
from tasks.tables import read_table

DATA = Path("data")
GIVEN = ("sha256", "hash", "split")

# Own scores, given images, data folder, tags: fields of `ModelRecord`.
Record = tuple[dict[str, float], pd.DataFrame | None, Path, dict[str, str]]


@dataclass(frozen=True)
class ModelRecord:
    """A model with its record."""

    predictor: Predictor
    temperature: float
    own: dict[str, float]  # scores on its own test images, such as `test_accuracy`
    given: (
        pd.DataFrame | None
    )  # the images it was given, see `select_given_images`; None if not known
    data: Path  # the folder that may hold `splits.csv` and `clean`
    tags: dict[str, str]  # for MLflow


def find_record(model: str, name: str | None, limits: Limits) -> ModelRecord:
    """Load a model that `tasks.registry.load` finds, with its record. Raises `UserError`."""
    if model.startswith(load.IMAGENET):
        raise UserError(
            f"received --model {model}, expected champion, challenger, a version, or a folder that "
            "training wrote"
        )
    with load.open_model(model, name) as files:
        predictor = load.read_predictor(files, limits)
        temperature = read_temperature(files.folder / CALIBRATION_JSON)
        version = files.version
        record = _read_version_record(files, version) if version else _read_folder_record(files)
        return ModelRecord(predictor, temperature, *record)


def own_scores(metrics: Mapping[str, Any], thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Return the test metrics, and the effect of the thresholds on the test images."""
    scores = {name: float(value) for name, value in metrics.items() if name.startswith("test_")}
    abstain, unfamiliar = (
        (thresholds.get(kind) or {}).get("test") for kind in ("abstain", "unfamiliar")
    )
    effects = flatten_effects(abstain, unfamiliar)
    return scores | {f"test_{name}": value for name, value in effects.items()}


def flatten_effects(
    abstain: Mapping[str, Any] | None, unfamiliar: Mapping[str, Any] | None
) -> dict[str, float]:
    """Return the results of `measure_abstention` and `count_alarms` as flat metrics."""
    found: dict[str, float | None] = {}
    if abstain:
        found |= {name: abstain[name] for name in ("images", "answered", "coverage")}
        found |= {
            f"answered_{name}": abstain[name]
            for name in ("accuracy", "accuracy_low", "accuracy_high")
        }
    if unfamiliar:
        found |= {
            "images": unfamiliar["images"],
            "unfamiliar": unfamiliar["alarms"],
            "unfamiliar_share": unfamiliar["false_alarms"],
        }
    return {name: value for name, value in found.items() if value is not None}


def _read_folder_record(files: load.ModelFiles) -> Record:
    """Return the `Record` of a model's folder, from the tables beside it."""
    folder = files.folder.resolve()
    home = folder.parent.parent
    # Ensembles are one level deeper, in data/ensembles.
    data = home if (home / "splits.csv").exists() else home.parent
    tables = (data / "splits.csv", data / "files.csv")
    is_known = all(table.exists() for table in tables)
    given = unseen_images.select_given_images(*map(read_table, tables)) if is_known else None
    results = home / "results" / folder.name
    own = own_scores(_read(results / METRICS_JSON), _read(results / THRESHOLDS_JSON))
    return own, given, data, {"model": str(files.folder)}


def _read_version_record(files: load.ModelFiles, version: ModelVersion) -> Record:
    """Return the `Record` that was registered with a version."""
    own = own_scores(versions.read_tags(version), _read(files.thresholds))
    given = None
    if files.seen:
        given = read_table(files.seen).reindex(columns=GIVEN, fill_value="")
    return own, given, DATA, {"registered_model": version.name, "version": str(version.version)}


def _read(file: Path | None) -> dict[str, Any]:
    return json.loads(file.read_text()) if file is not None and file.exists() else {}
