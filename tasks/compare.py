"""Compare the architectures and ensembles of params.yaml, and name the winner.

The winner of a question is the model with the best validation score. No test score chooses
anything. These tables are written:

- `data/comparison.csv`: all models with their scores and 95 % intervals, and `comparison.json`.
- `data/shared_questions.csv`: models of different questions, on questions that several can answer.
- `data/paired_tests.csv`: each winner against the other models on the same test images.
- `data/suspects.csv`: images whose label the models of the main question doubt.

Run by hand: `dvc repro --single-item compare`.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.errors import UserError
from tasks.params.architectures import Architecture
from tasks.params.compare import Compare
from tasks.params.ensembles import read_ensembles
from tasks.params.questions import ALL_CLASSES
from tasks.params.read import read_section
from tasks.params.read_architectures import read_architectures
from tasks.results import (
    HISTORY_CSV,
    INDEX,
    METRICS_JSON,
    PREDICTIONS_CSV,
    SIZE_JSON,
    find_folder,
    read_timing,
)
from tasks.scoring.metrics import describe_overfitting
from tasks.scoring.paired_tests import run_paired_tests
from tasks.scoring.predictions import add_groups
from tasks.scoring.review import find_shared_suspects
from tasks.scoring.shared_questions import compare_questions
from tasks.stage import run
from tasks.tables import read_table, write_table

COMPARISON_COLUMNS = {
    "rank": "Rank within the question, by the validation score `compare.rank_by`.",
    "question": "Question that the model answers.",
    "architecture": "Name of the architecture or ensemble.",
    "kind": "`cnn`, `transfer`, `classical` or `ensemble`.",
    "backbone": "Pretrained network, if there is one.",
    "filters": "Filters of each convolution block of a CNN.",
    "kernel": "Kernel size of a CNN.",
    "dropout": "Dropout rates of the classifier.",
    "batch_size": "Images in a training batch.",
    "vote": "`soft` or `majority`: how an ensemble combines its members.",
    "members": "Members of an ensemble.",
    "weights": "Weights of the members, in the same order.",
    "train_accuracy": "Accuracy on the training images, without augmentation.",
    "val_accuracy": "Accuracy on the validation images.",
    "val_accuracy_low": "Lower end of its 95 % interval.",
    "val_accuracy_high": "Upper end of its 95 % interval.",
    "val_balanced_accuracy": "Balanced accuracy on the validation images.",
    "val_macro_f1": "Macro F1 on the validation images.",
    "val_macro_f1_low": "Lower end of its 95 % interval.",
    "val_macro_f1_high": "Upper end of its 95 % interval.",
    "val_log_loss": "Log loss on the validation images.",
    "test_accuracy": "Accuracy on the test images.",
    "test_accuracy_low": "Lower end of its 95 % interval.",
    "test_accuracy_high": "Upper end of its 95 % interval.",
    "test_macro_f1": "Macro F1 on the test images.",
    "test_macro_f1_low": "Lower end of its 95 % interval.",
    "test_macro_f1_high": "Upper end of its 95 % interval.",
    "test_roc_auc": "Mean ROC AUC on the test images.",
    "test_pr_auc": "Mean average precision on the test images.",
    "test_log_loss": "Log loss on the test images.",
    "test_calibration_error_before": "Expected calibration error before temperature scaling.",
    "test_calibration_error": "Expected calibration error on the test images.",
    "test_brier_before": "Brier score before temperature scaling.",
    "test_brier": "Brier score on the test images.",
    "test_without_copies_images": "Number of test images that have no copy in training.",
    "test_without_copies_classes": "Number of classes of these images.",
    "test_without_copies_accuracy": "Accuracy on these images.",
    "test_without_copies_accuracy_low": "Lower end of its 95 % interval.",
    "test_without_copies_accuracy_high": "Upper end of its 95 % interval.",
    "test_without_copies_macro_f1": "Macro F1 on these images.",
    "test_without_copies_macro_f1_low": "Lower end of its 95 % interval.",
    "test_without_copies_macro_f1_high": "Upper end of its 95 % interval.",
    "best_epoch": "Epoch whose weights were kept.",
    "parameters": "Number of parameters of the model.",
    "epochs": "Number of epochs that were trained.",
    "seconds": "Training time. Blank if another machine trained the model.",
    "predict_seconds_per_image": "Prediction time for one image. Blank like `seconds`.",
    "overfitting": "`none`, `some` or `strong`: the gap of training and validation accuracy.",
}
BY_KIND = (
    "architecture",
    "train_accuracy",
    "val_accuracy",
    "val_macro_f1",
    "val_log_loss",
    "test_accuracy",
    "test_macro_f1",
    "test_log_loss",
    "parameters",
    "overfitting",
)
LOGGED = (
    "architecture",
    "asked",
    "kind",
    "backbone",
    "members",
    "weights",
    "train_accuracy",
    "val_accuracy",
    "val_macro_f1",
    "test_accuracy",
    "test_interval",
    "test_macro_f1",
    "test_roc_auc",
    "test_without_copies_accuracy",
    "parameters",
    "seconds",
    "overfitting",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The files and folders that the stage reads and writes."""

    splits_csv: Path
    results: Path
    ensembles: Path
    comparison_csv: Path
    comparison_json: Path
    shared_questions_csv: Path
    paired_tests_csv: Path
    suspects_csv: Path


def main(files: Files) -> None:
    """Write the comparison, the winner, the shared questions, the paired tests and the suspects."""
    wanted = read_section("compare", Compare)
    splits = read_table(files.splits_csv)
    architectures = read_architectures()
    questions = {name: section.question for name, section in architectures.items()}
    for name, ensemble in read_ensembles().items():
        questions[name] = questions[ensemble.members[0]]
    structures = describe_structures(architectures, files.ensembles)
    folders = {name: find_folder(name, files.results, files.ensembles) for name in questions}
    table = rank(
        pd.DataFrame(
            dict.fromkeys(COMPARISON_COLUMNS, "")
            | {"question": questions[name].name, "architecture": name}
            | structures[name]
            | describe_results(folders[name], wanted.overfitting_gap)
            for name in questions
        ),
        wanted,
    )
    write_table(table, files.comparison_csv)
    comparison = summarise(table, wanted.rank_by)
    files.comparison_json.write_text(json.dumps(comparison, indent=2) + "\n")

    predictions = read_predictions(folders, splits)
    labels = sorted(set(splits.label))
    shared = compare_questions(questions, predictions, labels, wanted.rank_by)
    write_table(shared, files.shared_questions_csv)
    ranked = dict(list(table.groupby("question", sort=False).architecture))
    paired = run_paired_tests(ranked, predictions)
    write_table(paired, files.paired_tests_csv)
    suspects = find_shared_suspects(
        [predictions[name].query("split != 'training'") for name in comparison["architectures"]]
    )
    write_table(suspects, files.suspects_csv)

    log_ranking(table, comparison)
    log_tests(shared, paired)
    log.info("%d validation and test images have a label that the models doubt", len(suspects))


def read_predictions(folders: Mapping[str, Path], splits: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the predictions of each model with their groups, sorted by path.

    Raises `UserError` if a model has predicted other images than those in `splits`.
    """
    wanted = sorted(splits.path[splits.split != "withheld"])
    found = {}
    for name, results in folders.items():
        file = results / PREDICTIONS_CSV
        found[name] = add_groups(read_table(file), splits).sort_values("path", ignore_index=True)
        if list(found[name].path) != wanted:
            raise UserError(
                f"{file} has {len(found[name])} images, expected the {len(wanted)} images of "
                "splits.csv. Run dvc repro"
            )
    return found


def describe_results(results: Path, gap: float) -> dict[str, object]:
    """Return the scores, the costs and the overfitting of a model, for its row of the table."""
    scores = json.loads((results / METRICS_JSON).read_text())
    timing, history = read_timing(results), results / HISTORY_CSV
    return {
        **{column: scores[column] for column in COMPARISON_COLUMNS if column in scores},
        "parameters": json.loads((results / SIZE_JSON).read_text())["parameters"],
        "epochs": len(read_table(history)) if history.exists() else "",
        "seconds": timing.get("train_seconds", ""),
        "predict_seconds_per_image": timing.get("predict_seconds_per_image", ""),
        "overfitting": describe_overfitting(scores["train_accuracy"], scores["val_accuracy"], gap),
    }


def describe_structures(
    architectures: dict[str, Architecture], ensembles: Path
) -> dict[str, dict[str, object]]:
    """Return the cells that describe the structure of each architecture and ensemble."""
    columns: dict[str, dict[str, object]] = {}
    for name, section in architectures.items():
        columns[name] = {"kind": section.structure.kind, **section.structure.describe()}
        if section.structure.in_epochs:
            columns[name]["batch_size"] = section.train.batch_size
    for name, listed in json.loads((ensembles / INDEX).read_text()).items():
        weights = {member: f"{weight:.4g}" for member, weight in listed["weights"].items()}
        columns[name] = {
            "kind": "ensemble",
            "vote": listed["vote"],
            "members": " ".join(weights),
            "weights": " ".join(weights.values()),
        }
    return columns


def rank(table: pd.DataFrame, wanted: Compare) -> pd.DataFrame:
    """Sort the rows, and set the column `rank`.

    The rows of a question are sorted by the validation score, then by fewer parameters, then by
    name. The main question comes first: `compare.question`, else all classes, else the question of
    the first row.
    """
    found = set(table.question)
    first = wanted.question or (ALL_CLASSES if ALL_CLASSES in found else table.question.iloc[0])
    order = list(dict.fromkeys([first, *table.question]))
    ranked = table.assign(order=table.question.map(order.index)).sort_values(
        ["order", wanted.rank_by, "parameters", "architecture"],
        ascending=[True, False, True, True],
        ignore_index=True,
    )
    ranked["rank"] = ranked.groupby("order").cumcount() + 1
    return ranked.drop(columns="order")


def summarise(table: pd.DataFrame, rank_by: str) -> dict[str, Any]:
    """Return the winner of the main question with its scores, all winners, and the best by kind."""
    best = table.to_dict("records")[0]
    main_rows = table[table.question == best["question"]]
    firsts = table[table["rank"] == 1]
    return {
        "winner": best["architecture"],
        "question": best["question"],
        "ranked_by": rank_by,
        "architectures": list(main_rows.architecture),
        "winners": dict(zip(firsts.question, firsts.architecture, strict=True)),
        **{
            name: value
            for name, value in best.items()
            if name.startswith(("val_", "test_")) and value != ""
        },
        **find_best_by_kind(main_rows),
    }


def find_best_by_kind(ranked: pd.DataFrame) -> dict[str, Any]:
    """Return the best CNN, the best transfer model, and the better of both.

    Returns {} if one of the kinds is missing.
    """
    best = ranked[ranked.kind.isin(["cnn", "transfer"])].drop_duplicates("kind")
    if len(best) < 2:
        return {}
    rows = best.set_index("kind")[list(BY_KIND)].to_dict("index")
    return {"best_by_kind": {"winner": best.architecture.iloc[0], **rows}}


def log_ranking(table: pd.DataFrame, comparison: dict[str, Any]) -> None:
    """Log the ranking and the winner of each question, and CNN against transfer learning."""
    ranked_by = comparison["ranked_by"]
    for question, rows in table.groupby("question", sort=False):
        winner = rows.architecture.iloc[0]
        log.info("%s\n%s\nwinner by %s: %s", question, to_text(rows), ranked_by, winner)
    if kinds := comparison.get("best_by_kind"):
        log.info(
            "best CNN %s, best transfer model %s: by %s, %s wins",
            kinds["cnn"]["architecture"],
            kinds["transfer"]["architecture"],
            ranked_by,
            kinds["winner"],
        )


def log_tests(shared: pd.DataFrame, paired: pd.DataFrame) -> None:
    """Log the models that can answer each shared question, and the paired tests."""
    for question, rows in shared.groupby("question", sort=False):
        text = to_text(rows.drop(columns="question"))
        log.info("all models that can answer: %s\n%s", question, text)
    for question, rows in paired.groupby("question", sort=False):
        text = rows.drop(columns="question").to_string(index=False, float_format="%.3g")
        log.info("%s: the winner against the others, on the test images\n%s", question, text)


def to_text(table: pd.DataFrame) -> str:
    """Return the columns that fit a terminal, without those that are blank in every row."""
    bounds = zip(table.test_accuracy_low, table.test_accuracy_high, strict=True)
    shown = table.assign(
        test_interval=[f"{low:.3f}-{high:.3f}" for low, high in bounds],
    ).filter(list(LOGGED))
    formats = {
        "parameters": "{:,}".format,
        "seconds": lambda seconds: f"{seconds:.0f}" if seconds != "" else "",
    }
    return shown.loc[:, (shown != "").any()].to_string(
        index=False, formatters=formats, float_format="%.3f", na_rep=""
    )


if __name__ == "__main__":
    run(main)
