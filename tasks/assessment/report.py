"""Write the report of a model on foreign images, with its own test scores for comparison."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.assessment.model_record import ModelRecord
from tasks.reporting import card, comparison, data, page
from tasks.reporting.language import _, speak
from tasks.reporting.models import ScoredModel, choose_images, draw_predictions
from tasks.reporting.scores import read_json, read_scores
from tasks.reporting.thumbnails import Images
from tasks.reporting.words import name_class, show_class_names
from tasks.results import METRICS_JSON, PREDICTIONS_CSV
from tasks.tables import read_table

TEMPLATES = Path(__file__).parent / "templates"
# The prefixes of metrics: all foreign images, those that do not overlap, and its own test images.
ALL, REST, OWN = "external", "external_without_overlap", "test"
FOLDERS_CSV, OVERLAP_CSV, QUARANTINE_CSV = "folders.csv", "overlap.csv", "quarantine.csv"
TABLES = ("per_class", "confusion", "roc", "pr", "calibration", "coverage", "errors", "suspects")


@dataclass(frozen=True)
class Assessed:
    """The foreign images, and the folder with the tables of their assessment."""

    images: Images
    output: Path
    files: pd.DataFrame
    sha256: str
    language: str


def write(assessed: Assessed, record: ModelRecord) -> None:
    """Write report.html and report.md from the tables in the output folder."""
    with speak(assessed.language), show_class_names(record.predictor.class_names):
        page.write(describe(assessed, record), assessed.output, "assessment", TEMPLATES)


def describe(assessed: Assessed, record: ModelRecord) -> dict[str, Any]:
    """Return the facts that the templates need."""
    output, images = assessed.output, assessed.images
    model = describe_model(assessed, record)
    scores = model.scores
    columns = {
        prefix: words for prefix, words in name_columns().items() if f"{prefix}_accuracy" in scores
    }
    clean = Images(record.data / "clean", images.shown)
    return {
        "title": _("{model} on {folder}").format(
            model=model.name, folder=images.folder.resolve().name
        ),
        "language": assessed.language,
        "pictures": images.shown,
        "model": model,
        "columns": columns,
        "rows": {
            name: row
            for name, row in name_rows(model.labels).items()
            if any(f"{prefix}_{name}" in scores for prefix in columns)
        },
        "folders": read_table(output / FOLDERS_CSV).to_dict("records"),
        "files": len(assessed.files),
        "sizes": data.describe_sizes(assessed.files),
        "quarantine": data.describe_quarantine(read_table(output / QUARANTINE_CSV), images),
        "overlap": describe_overlap(output / OVERLAP_CSV, images, clean),
        "accuracies": comparison.draw_accuracies([model], columns) if len(columns) > 1 else None,
        "suspects": len(model.tables["suspects"]),
        "is_worse_here": scores[f"{ALL}_accuracy_high"] < scores.get(f"{OWN}_accuracy_low", 0),
        "is_worse_without_overlap": (
            scores.get(f"{REST}_accuracy_high", 1) < scores[f"{ALL}_accuracy_low"]
        ),
        "architecture": record.predictor.facts.get("architecture"),
        "hashes": {"model": record.predictor.sha256, "images": assessed.sha256},
        "versions": card.list_versions(),
    }


def name_columns() -> dict[str, str]:
    """Return the title of each column of scores by its prefix."""
    return {ALL: _("all images"), REST: _("without overlap"), OWN: _("its own test images")}


def name_rows(labels: list[str]) -> dict[str, tuple[str, str]]:
    """Return the title and the number format of each row of scores by its metric."""
    rows = {
        "images": (_("images"), "count"),
        "classes": (_("classes"), "count"),
        "accuracy": (_("accuracy"), "score"),
        "macro_f1": (_("macro F1"), "score"),
        "balanced_accuracy": (_("balanced accuracy"), "score"),
        "roc_auc": ("ROC AUC", "score"),
        "calibration_error": (_("calibration error"), "score"),
        "brier": (_("Brier score"), "score"),
        "coverage": (_("share of images answered"), "percent"),
        "answered_accuracy": (_("accuracy of the answers"), "score"),
        "unfamiliar_share": (_("share of images called unfamiliar"), "percent"),
    }
    recall = _("recall of {label}")
    return rows | {
        f"recall_{label}": (recall.format(label=name_class(label)), "score") for label in labels
    }


def describe_model(assessed: Assessed, record: ModelRecord) -> ScoredModel:
    """Return the model with its scores, tables, figures and galleries of the foreign images."""
    tables = {name: read_scores(assessed.output / f"{name}.csv") for name in TABLES}
    scores = read_json(assessed.output / METRICS_JSON)
    predictions = read_table(assessed.output / PREDICTIONS_CSV)
    groups = dict(zip(predictions.path, predictions.group, strict=True))
    thresholds = record.predictor.thresholds
    return ScoredModel(
        name=record.predictor.name,
        place=0,
        scores=scores,
        thresholds={"confidence": thresholds.confidence, "distance": thresholds.distance},
        tables=tables,
        figures=draw_predictions(tables, scores, thresholds.confidence, ALL),
        galleries=choose_images(tables["errors"], assessed.images, groups),
    )


def describe_overlap(overlap_csv: Path, images: Images, clean: Images) -> dict[str, Any] | None:
    """Return the counts of the overlap, and the first pairs. None if the overlap is not known.

    `clean` holds the images that the model was given, if they are on this machine.
    """
    if not overlap_csv.exists():
        return None
    found = read_table(overlap_csv)
    rows = found.head(data.SHOWN).to_dict("records")
    for row in rows:
        pair = [images.show(row["path"])]
        if row["copy_of"]:
            pair.append(clean.show(row["copy_of"]))
        row["pictures"] = pair if images.shown else []
    return {
        "images": len(found),
        "counts": pd.crosstab(found.kind, found.split).to_dict("index"),
        "splits": sorted(found.split.unique()),
        "by_hash": int(found.correlation.isna().sum()),
        "rows": rows,
    }
