"""The report of a model on foreign images: the same chapters as of its own test, and the scores side by side."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.assessment.model_record import Subject
from tasks.reporting import card, data
from tasks.reporting.models import Model, choose_images, draw_answers, read_scores
from tasks.reporting.numbers import told
from tasks.reporting.thumbnails import thumbnail
from tasks.results import METRICS_JSON, PREDICTIONS_CSV
from tasks.scoring import figures
from tasks.scoring.figures import Drawn
from tasks.tables import read_table

TEMPLATES = Path(__file__).parent / "templates"
ALL, REST, OWN = (
    "external",
    "external_without_overlap",
    "test",
)  # what the names of metrics begin with
COLUMNS = {ALL: "all images", REST: "without overlap", OWN: "its own test images"}
ROWS = {  # of the table of scores: metric, in words, form
    "images": ("images", "count"),
    "classes": ("classes", "count"),
    "accuracy": ("accuracy", "score"),
    "macro_f1": ("macro F1", "score"),
    "balanced_accuracy": ("balanced accuracy", "score"),
    "roc_auc": ("ROC AUC", "score"),
    "calibration_error": ("calibration error", "score"),
    "brier": ("Brier score", "score"),
    "coverage": ("answered, share", "percent"),
    "answered_accuracy": ("accuracy of the answers", "score"),
    "unfamiliar_share": ("called unfamiliar, share", "percent"),
}


def describe(
    images: Path, output: Path, assessed: Subject, files: pd.DataFrame, sha256: str, pictures: bool
) -> dict[str, Any]:
    """Return what the templates `assessment.html` and `.md` need, from the tables in `output`."""
    scores = json.loads((output / METRICS_JSON).read_text())
    model = describe_model(output, images, assessed, scores, pictures)
    columns = {prefix: words for prefix, words in COLUMNS.items() if f"{prefix}_accuracy" in scores}
    rows = ROWS | {f"recall_{label}": (f"recall of {label}", "score") for label in model.labels}
    return {
        "title": f"{model.name} on {images.resolve().name}",
        "pictures": pictures,
        "model": model,
        "columns": columns,
        "rows": {
            name: row
            for name, row in rows.items()
            if any(f"{prefix}_{name}" in scores for prefix in columns)
        },
        "folders": read_table(output / "folders.csv").to_dict("records"),
        "files": len(files),
        "sizes": data.describe_sizes(files),
        "quarantine": data.describe_quarantine(
            read_table(output / "quarantine.csv"), images, pictures
        ),
        "overlap": describe_overlap(
            output / "overlap.csv", images, assessed.data / "clean", pictures
        ),
        "accuracies": draw_accuracies(model, columns) if len(columns) > 1 else None,
        "suspects": len(model.tables["suspects"]),
        "falls": scores[f"{ALL}_accuracy_high"] < scores.get(f"{OWN}_accuracy_low", 0),
        "leans": scores.get(f"{REST}_accuracy_high", 1) < scores[f"{ALL}_accuracy_low"],
        "subject": assessed,
        "hashes": {"model": assessed.predictor.sha256, "images": sha256},
        "versions": card.versions(),
    }


def describe_model(
    output: Path, images: Path, assessed: Subject, scores: dict[str, float], pictures: bool
) -> Model:
    """Return the model as the chapter on one has it, without what only its training knows."""
    names = ("per_class", "confusion", "roc", "pr", "calibration", "coverage", "errors", "suspects")
    tables = {name: read_scores(output / f"{name}.csv") for name in names}
    predictions = read_table(output / PREDICTIONS_CSV)
    groups = dict(zip(predictions.path, predictions.group, strict=True))
    thresholds = assessed.predictor.thresholds
    return Model(
        place=0,
        row={"architecture": assessed.predictor.name},
        scores=scores,
        thresholds={"confidence": thresholds.confidence, "distance": thresholds.distance},
        tables=tables,
        figures=draw_answers(tables, scores, thresholds.confidence, ALL),
        galleries=choose_images(tables["errors"], images, groups, pictures),
        explained=[],
        sanity={},
        summary="",
    )


def describe_overlap(
    overlap_csv: Path, images: Path, clean: Path, pictures: bool
) -> dict[str, Any] | None:
    """Return the counts by kind and split, and the first pairs with their pictures; None where overlap is not known."""
    if not overlap_csv.exists():
        return None
    found = read_table(overlap_csv)
    shown = found.head(data.SHOWN).to_dict("records")
    return {
        "images": len(found),
        "counts": pd.crosstab(found.kind, found.split).to_dict("index"),
        "splits": sorted(found.split.unique()),
        "by_hash": int(found.correlation.isna().sum()),
        "rows": [
            row | {"pictures": show_pair(row, images, clean) if pictures else []} for row in shown
        ],
    }


def show_pair(row: dict[str, Any], images: Path, clean: Path) -> list[str]:
    """Return the thumbnails of an image and of what it copies, if that is there."""
    return [
        thumbnail(images / row["path"]),
        *([thumbnail(clean / row["copy_of"])] if row["copy_of"] else []),
    ]


def draw_accuracies(model: Model, columns: dict[str, str]) -> Drawn:
    """Draw the accuracies side by side, with their intervals."""
    scores = {words: model.score(f"{prefix}_accuracy") for prefix, words in columns.items()}
    rows = pd.DataFrame(
        [{"model": model.name, "part": words, **score} for words, score in scores.items()]
    )
    said = "; ".join(f"{words} {told(score['value'])}" for words, score in scores.items())
    return Drawn(figures.intervals(rows), f"Accuracies with 95 % intervals. {said}")
