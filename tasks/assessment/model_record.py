"""The model that is assessed, and what is known of it: its scores on its own test images, and the images it was given."""

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


@dataclass(frozen=True)
class Subject:
    """A model with its record. `data` is the folder in which `splits.csv` and `clean` may lie."""

    predictor: Predictor
    temperature: float
    own: dict[str, float]  # on its own test images, by names such as `test_accuracy`
    given: pd.DataFrame | None  # as evidence.images_given returns it; None where nobody knows
    data: Path
    tags: dict[str, str]  # for MLflow


def find(model: str, name: str | None, limits: Limits) -> Subject:
    """Load the model that `tasks.registry.load` finds under these names. Raises `UserError` in words for the user."""
    if model.startswith(load.IMAGENET):
        raise UserError(
            f"received --model {model}, expected champion, challenger, a version, or a folder that training wrote"
        )
    if load.is_folder(model):
        return of_folder(Path(model), limits)
    return of_version(load.find(model, name), limits)


def of_folder(folder: Path, limits: Limits) -> Subject:
    """Load `data/models/<architecture>` or an ensemble's like; its record are the tables beside it, as they are today."""
    predictor, home = load.of_folder(folder, limits), folder.resolve().parent.parent
    data = (
        home if (home / "splits.csv").exists() else home.parent
    )  # ensembles lie one deeper, in data/ensembles
    results, tables = (
        home / "results" / folder.resolve().name,
        (data / "splits.csv", data / "files.csv"),
    )
    given = (
        unseen_images.images_given(*map(read_table, tables))
        if all(table.exists() for table in tables)
        else None
    )
    own = own_scores(_read(results / METRICS_JSON), _read(results / THRESHOLDS_JSON))
    return Subject(
        predictor,
        read_temperature(folder / CALIBRATION_JSON),
        own,
        given,
        data,
        {"model": str(folder)},
    )


def of_version(version: ModelVersion, limits: Limits) -> Subject:
    """Load a registered version; its record was registered with it."""
    with versions.fetched(version) as files:
        predictor = load.of_files(version, files, limits)
        own = own_scores(versions.read_tags(version), _read(_artifact(files, "thresholds")))
        temperature = read_temperature(versions.artifact(files, "model") / CALIBRATION_JSON)
        seen = _artifact(files, "seen")
        given = (
            read_table(seen).reindex(columns=["sha256", "hash", "split"], fill_value="")
            if seen
            else None
        )
    return Subject(
        predictor,
        temperature,
        own,
        given,
        DATA,
        {"registered_model": version.name, "version": str(version.version)},
    )


def own_scores(metrics: Mapping[str, Any], thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Return all metrics of the test, and what the thresholds gave there."""
    scores = {name: float(value) for name, value in metrics.items() if name.startswith("test_")}
    given = judgements(
        *((thresholds.get(kind) or {}).get("test") for kind in ("abstain", "unfamiliar"))
    )
    return scores | {f"test_{name}": value for name, value in given.items()}


def judgements(
    abstain: Mapping[str, Any] | None, unfamiliar: Mapping[str, Any] | None
) -> dict[str, float]:
    """Return flat metrics of what `scoring.thresholds.abstaining` and `alarms` tell."""
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


def _artifact(files: Path, name: str) -> Path | None:
    try:
        return versions.artifact(files, name)
    except FileNotFoundError:
        return None  # registered before there was one


def _read(file: Path | None) -> dict[str, Any]:
    return json.loads(file.read_text()) if file is not None and file.exists() else {}
