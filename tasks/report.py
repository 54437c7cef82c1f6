"""Write the report: one page, `data/report/report.html`, and its short form `report.md`.

The report shows the tables of the other stages. Its figures and tables are also logged to the
MLflow run of each training. With `report: {thumbnails: false}`, no image appears in any of them.
Run by hand: `dvc repro --single-item report`.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from tasks.params.ensembles import read_ensembles
from tasks.params.read import read_section
from tasks.params.read_architectures import read_architectures
from tasks.params.register import Register
from tasks.params.report import Report
from tasks.reporting import card, comparison, data, page, svg, words
from tasks.reporting.language import speak
from tasks.reporting.models import ModelFolders, TrainedModel, describe_model
from tasks.reporting.scores import read_json, read_scores
from tasks.reporting.thumbnails import Images
from tasks.results import PREDICTIONS_CSV, find_folder
from tasks.stage import run
from tasks.tables import read_table
from tasks.tracking import runs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The files and folders that the stage reads, and the folder that it writes."""

    clean: Path
    files_csv: Path
    quarantine: Path
    quarantine_csv: Path
    validation_json: Path
    splits_csv: Path
    split_json: Path
    comparison_csv: Path
    comparison_json: Path
    shared_questions_csv: Path
    paired_tests_csv: Path
    suspects_csv: Path
    models: Path
    results: Path
    ensembles: Path
    explanations: Path
    registration_json: Path
    report: Path


def main(files: Files) -> None:
    """Fill the templates, and log figures and tables to MLflow."""
    wanted = read_section("report", Report)
    names = read_section("register", Register).class_names
    with speak(wanted.language), words.show_class_names(names):
        write_report(files, wanted)


def write_report(files: Files, wanted: Report) -> None:
    """Write the report in the current language, and log figures and tables to MLflow."""
    splits = read_table(files.splits_csv)
    rows = read_scores(files.comparison_csv).to_dict("records")
    folders = {row["architecture"]: find_folders(row["architecture"], files) for row in rows}
    clean = Images(files.clean, wanted.thumbnails)
    groups = dict(zip(splits.path, splits.group, strict=True))
    models = [
        describe_model(row | {"place": place}, folders[row["architecture"]], clean, groups)
        for place, row in enumerate(rows)
    ]
    facts = {
        **describe_data(files, splits, clean),
        **describe_comparison(files, models),
        "title": wanted.title,
        "language": wanted.language,
        "pictures": wanted.thumbnails,
        "stated": card.read_statements(wanted),
        "registration": read_json(files.registration_json),
        "weights": card.list_weights(read_architectures(), wanted),
        "versions": card.list_versions(),
        "hashes": card.hash_winner(folders[models[0].name].model, files.splits_csv),
    }
    page.write(facts, files.report)
    for model in models:
        track(model, folders[model.name], wanted.thumbnails)


def find_folders(name: str, files: Files) -> ModelFolders:
    """Return the folders of an architecture or an ensemble."""
    return ModelFolders(
        *(
            find_folder(name, folder, files.ensembles)
            for folder in (files.models, files.results, files.explanations)
        )
    )


def describe_data(files: Files, splits: pd.DataFrame, clean: Images) -> dict[str, Any]:
    """Return the facts for the chapter on the data."""
    split = read_json(files.split_json)
    groups = dict(zip(splits.path, splits.group, strict=True))
    rejected = Images(files.quarantine, clean.shown)
    return {
        "counts": data.count_images(split),
        "sizes": data.describe_sizes(read_table(files.files_csv)),
        "samples": data.choose_samples(splits, clean),
        "validation": read_json(files.validation_json),
        "quarantine": data.describe_quarantine(read_table(files.quarantine_csv), rejected),
        "copies": data.describe_copies(split, splits, clean),
        "suspects": data.describe_suspects(read_table(files.suspects_csv), groups, clean),
    }


def describe_comparison(files: Files, models: list[TrainedModel]) -> dict[str, Any]:
    """Return the facts for the result and the chapters on the models, the best model first."""
    compared = read_json(files.comparison_json)
    questions: dict[str, list[TrainedModel]] = {}
    for model in models:
        questions.setdefault(model.question, []).append(model)
    return {
        "compared": compared,
        "ranked_by": words.name_score(compared["ranked_by"]),
        "shared": list_by_question(read_scores(files.shared_questions_csv)),
        "paired": list_by_question(read_scores(files.paired_tests_csv)),
        "models": models,
        "ensembles": read_ensembles(),
        "winner": models[0],
        "questions": questions,
        "costs": comparison.draw_costs(models),
        "intervals": comparison.draw_accuracies(models, words.name_parts()),
        "describe_test": comparison.describe_test,
    }


def list_by_question(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each question, in their order."""
    return {
        question: of_question.to_dict("records")
        for question, of_question in rows.groupby("question", sort=False)
    }


def track(model: TrainedModel, folders: ModelFolders, pictures: bool) -> None:
    """Add figures and tables to the MLflow run of the training, and images if they may be shown."""
    with runs.record_run(lambda: runs.continue_run(model.name, folders.results / PREDICTIONS_CSV)):
        runs.record(lambda: log_files(model, folders, pictures))


def log_files(model: TrainedModel, folders: ModelFolders, pictures: bool) -> None:
    """Log the files of a model to the open run."""
    for name, drawn in model.figures.items():
        mlflow.log_text(svg.put_on_white(drawn.svg), f"figures/{name}.svg")
    for path in sorted(folders.results.glob("*.csv")) + sorted(folders.results.glob("*.json")):
        if path.name != PREDICTIONS_CSV:
            mlflow.log_artifact(str(path), "tables")
    if pictures and not model.members:
        mlflow.log_artifact(str(folders.results / "samples.jpg"))
        mlflow.log_artifacts(str(folders.explanations), "explanations")


if __name__ == "__main__":
    run(main)
