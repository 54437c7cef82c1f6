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
SEEN_COLUMNS = ("sha256", "hash", "split")


@dataclass(frozen=True)
class ModelRecord:
    """A model with its record."""

    predictor: Predictor
    temperature: float
    own: dict[str, float]  # scores on its own test images, such as `test_accuracy`
    given: pd.DataFrame | None  # the images it was given, see `images_given`; None if not known
    data: Path  # the folder that may hold `splits.csv` and `clean`
    tags: dict[str, str]  # for MLflow


def find_record(model: str, name: str | None, limits: Limits) -> ModelRecord:
    """Load a model and its record. `model` and `name` are those of `tasks.registry.load.find`.

    Raises `UserError` if there is no such model.
    """
    if model.startswith(load.IMAGENET):
        raise UserError(
            f"received --model {model}, expected champion, challenger, a version, or a folder that "
            "training wrote"
        )
    if load.is_folder(model):
        return load_folder(Path(model), limits)
    return load_version(load.find(model, name), limits)


def load_folder(folder: Path, limits: Limits) -> ModelRecord:
    """Load the model in a folder such as `data/models/cnn_a`.

    Its record is made of the tables that are in the data folder now.
    """
    predictor, home = load.of_folder(folder, limits), folder.resolve().parent.parent
    in_data = (home / "splits.csv").exists()
    data = home if in_data else home.parent  # an ensemble is one folder deeper: data/ensembles
    results = home / "results" / folder.resolve().name
    tables = data / "splits.csv", data / "files.csv"
    is_known = all(table.exists() for table in tables)
    return ModelRecord(
        predictor=predictor,
        temperature=read_temperature(folder / CALIBRATION_JSON),
        own=own_scores(_read(results / METRICS_JSON), _read(results / THRESHOLDS_JSON)),
        given=unseen_images.images_given(*map(read_table, tables)) if is_known else None,
        data=data,
        tags={"model": str(folder)},
    )


def load_version(version: ModelVersion, limits: Limits) -> ModelRecord:
    """Load a registered version with the record that was registered with it."""
    with versions.fetched(version) as files:
        seen = _find_artifact(files, "seen")
        given = None
        if seen is not None:
            given = read_table(seen).reindex(columns=SEEN_COLUMNS, fill_value="")
        return ModelRecord(
            predictor=load.of_files(version, files, limits),
            temperature=read_temperature(versions.artifact(files, "model") / CALIBRATION_JSON),
            own=own_scores(versions.read_tags(version), _read(_find_artifact(files, "thresholds"))),
            given=given,
            data=DATA,
            tags={"registered_model": version.name, "version": str(version.version)},
        )


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


def _find_artifact(files: Path, name: str) -> Path | None:
    """Return an artifact of a version. None if the version is older than this artifact."""
    try:
        return versions.artifact(files, name)
    except FileNotFoundError:
        return None


def _read(file: Path | None) -> dict[str, Any]:
    return json.loads(file.read_text()) if file is not None and file.exists() else {}
