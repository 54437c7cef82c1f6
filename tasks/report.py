"""One file a person can read, `data/report/report.html`, and its short form `report.md` for pull requests.

Everything in it is taken from the tables of the other stages; figures and tables join the MLflow run of each training.
`report: {thumbnails: false}` keeps every picture of an image out of all of them. Run by hand: `dvc repro --single-item report`.
"""

import json
import logging
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from tasks.params.architectures import read_architectures
from tasks.params.ensembles import read_ensembles
from tasks.params.read import read_section
from tasks.params.report import Report
from tasks.reporting import card, comparison, data, page
from tasks.reporting.models import Model, describe_model
from tasks.results import PREDICTIONS_CSV, find_folder
from tasks.scoring import figures
from tasks.stage import run
from tasks.tables import read_table
from tasks.tracking import runs

VERDICTS = {
    "promoted": "promoted",
    "refused": "refused",
    "undecided": "left to a person",
    "stands": "nothing changes",
}

TEXT = (
    "question", "architecture", "asked", "winner", "other", "filters", "kernel", "dropout", "batch_size", "vote", "members",
    "weights",
)  # fmt: skip
RANKED_BY = {
    "val_macro_f1": "macro F1",
    "val_accuracy": "accuracy",
    "val_balanced_accuracy": "balanced accuracy",
}
KINDS = {
    "cnn": "A CNN from scratch", "transfer": "Transfer learning", "classical": "A scikit-learn model", "ensemble": "An ensemble",
}  # fmt: skip

log = logging.getLogger(__name__)


def main(
    clean: Path, files_csv: Path, quarantine: Path, quarantine_csv: Path, validation_json: Path, splits_csv: Path,
    split_json: Path, comparison_csv: Path, comparison_json: Path, shared_questions_csv: Path, paired_tests_csv: Path,
    suspects_csv: Path, models: Path,
    results: Path, ensembles: Path, explanations: Path, registration_json: Path, report: Path,
) -> None:  # fmt: skip
    """Fill the templates, and hand figures and tables to MLflow."""
    wanted = read_section("report", Report)
    pictures = wanted.thumbnails
    splits, split = read_table(splits_csv), read_json(split_json)
    groups = dict(zip(splits.path, splits.group, strict=True))
    rows = read_scores(comparison_csv).to_dict("records")
    folders = {
        row["architecture"]: tuple(
            find_folder(row["architecture"], folder, ensembles)
            for folder in (models, results, explanations)
        )
        for row in rows
    }
    described = [
        describe_model(number, row, folders[row["architecture"]], clean, groups, pictures)
        for number, row in enumerate(rows)
    ]
    compared = read_json(comparison_json)
    facts = {
        "title": wanted.title,
        "pictures": pictures,
        "stated": card.statements(wanted),
        "counts": data.count_images(split),
        "sizes": data.describe_sizes(read_table(files_csv)),
        "samples": data.choose_samples(splits, clean, pictures),
        "validation": read_json(validation_json),
        "quarantine": data.describe_quarantine(read_table(quarantine_csv), quarantine, pictures),
        "copies": data.describe_copies(split, splits, clean, pictures),
        "suspects": data.describe_suspects(read_table(suspects_csv), groups, clean, pictures),
        "compared": compared,
        "ranked_by": RANKED_BY[compared["ranked_by"]],
        "shared": by_question(read_scores(shared_questions_csv)),
        "paired": by_question(read_scores(paired_tests_csv)),
        "models": described,
        "ensembles": read_ensembles(),
        "winner": described[0],
        "questions": {
            one.question: [model for model in described if model.question == one.question]
            for one in described
        },
        "costs": comparison.draw_costs(described),
        "intervals": comparison.draw_intervals(described),
        "registration": read_json(registration_json),
        "weights": card.weights_of(read_architectures(), wanted),
        "versions": card.versions(),
        "hashes": card.hashes(folders[described[0].name][0], splits_csv),
        "verdicts": VERDICTS,
        "kinds": KINDS,
        "overfitting": comparison.OVERFITTING,
        "say_test": comparison.say_test,
    }
    page.write(facts, report)
    for model in described:
        track(model, *folders[model.name][1:], pictures)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores; names and settings stay the text that they are, and blank cells blank."""
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False)


def by_question(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each question, in their order."""
    return {
        question: of_question.to_dict("records")
        for question, of_question in rows.groupby("question", sort=False)
    }


def track(model: Model, results: Path, explanations: Path, pictures: bool) -> None:
    """Add figures and tables to the MLflow run of the training, and pictures of images where they may be shown."""
    with runs.record_run(lambda: runs.continue_run(model.name, results / PREDICTIONS_CSV)):
        runs.record(lambda: log_files(model, results, explanations, pictures))


def log_files(model: Model, results: Path, explanations: Path, pictures: bool) -> None:
    """Log them to the run that is open."""
    for name, drawn in model.figures.items():
        mlflow.log_text(figures.on_white(drawn.svg), f"figures/{name}.svg")
    for path in sorted(results.glob("*.csv")) + sorted(results.glob("*.json")):
        if path.name != PREDICTIONS_CSV:
            mlflow.log_artifact(str(path), "tables")
    if pictures and not model.members:
        mlflow.log_artifact(str(results / "samples.jpg"))
        mlflow.log_artifacts(str(explanations), "explanations")


if __name__ == "__main__":
    run(main)
