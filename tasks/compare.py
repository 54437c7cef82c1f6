"""Compare the architectures and ensembles that params list, and name the winner: `data/comparison.csv`, `data/comparison.json`.

Ranked by a validation score alone, among those that answer the same question; test scores stand beside it, with 95 %
intervals. What else it writes chooses nothing: `data/shared_questions.csv` compares models of different questions on those
that several can answer, `data/paired_tests.csv` each winner with the others on the same test images, and
`data/suspects.csv` lists images whose label the models of the main question doubt.
Run by hand: `dvc repro --single-item compare`.
"""

import json
import logging
from pathlib import Path

import pandas as pd

from tasks.errors import UserError
from tasks.params.architectures import Architecture, read_architectures
from tasks.params.compare import Compare
from tasks.params.ensembles import read_ensembles
from tasks.params.questions import ALL_CLASSES, Question
from tasks.params.read import read_section
from tasks.results import (
    HISTORY_CSV,
    INDEX,
    METRICS_JSON,
    PREDICTIONS_CSV,
    SIZE_JSON,
    find_folder,
    read_timing,
)
from tasks.scoring.metrics import score, verdict
from tasks.scoring.pairs import pair
from tasks.scoring.predictions import arrays, collapse, with_groups
from tasks.scoring.review import shared_suspects
from tasks.scoring.statistics import intervals
from tasks.stage import run
from tasks.tables import read_table, write_table

SCORES = [
    "train_accuracy", "val_accuracy", "val_accuracy_low", "val_accuracy_high", "val_balanced_accuracy", "val_macro_f1",
    "val_macro_f1_low", "val_macro_f1_high", "val_log_loss",
    *(f"test_{name}{end}" for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")),
    "test_roc_auc", "test_pr_auc", "test_log_loss",
    *(f"test_{name}{when}" for name in ("calibration_error", "brier") for when in ("_before", "")),
    "test_without_copies_images", "test_without_copies_classes",
    *(f"test_without_copies_{name}{end}" for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")),
    "best_epoch",
]  # fmt: skip
STRUCTURE = (
    "kind",
    "backbone",
    "filters",
    "kernel",
    "dropout",
    "batch_size",
    "vote",
    "members",
    "weights",
)
BY_KIND = [
    "architecture", "train_accuracy", "val_accuracy", "val_macro_f1", "val_log_loss", "test_accuracy", "test_macro_f1",
    "test_log_loss", "parameters", "overfitting",
]  # fmt: skip
SHARED_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")
SHARED = [
    "question", "architecture", "asked", *(f"{prefix}_{name}" for prefix in ("val", "test") for name in SHARED_SCORES),
    "test_accuracy_low", "test_accuracy_high",
]  # fmt: skip

log = logging.getLogger(__name__)


def main(
    splits_csv: Path, results: Path, ensembles: Path, comparison_csv: Path, comparison_json: Path,
    shared_questions_csv: Path, paired_tests_csv: Path, suspects_csv: Path,
) -> None:  # fmt: skip
    """Write one row per model, the winner, the scores on shared questions, the paired tests, and the suspects."""
    architectures, combined, wanted = (
        read_architectures(),
        read_ensembles(),
        read_section("compare", Compare),
    )
    rank_by = wanted.rank_by
    splits = read_table(splits_csv)
    questions = {name: section.question for name, section in architectures.items()}
    questions |= {name: questions[section.members[0]] for name, section in combined.items()}
    columns = describe_structures(architectures, ensembles)
    places = {name: find_folder(name, results, ensembles) for name in questions}
    rows = [
        describe(name, questions[name].name, columns[name], places[name], wanted.overfitting_gap)
        for name in questions
    ]
    table = rank(pd.DataFrame(rows), rank_by, wanted.question)
    write_table(table, comparison_csv)
    comparison = summarise(table, rank_by)
    comparison_json.write_text(json.dumps(comparison, indent=2) + "\n")
    predictions = read_predictions(places, splits)
    shared = share(questions, predictions, sorted(set(splits.label)), rank_by)
    write_table(shared, shared_questions_csv)
    paired = pair(dict(list(table.groupby("question", sort=False).architecture)), predictions)
    write_table(paired, paired_tests_csv)
    suspects = shared_suspects(
        [predictions[name].query("split != 'training'") for name in comparison["architectures"]]
    )
    write_table(suspects, suspects_csv)
    tell(table, comparison, shared, paired, suspects)


def read_predictions(places: dict[str, Path], splits: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the predictions of each name, sorted by path, with groups. Raises `UserError` for other images than in splits."""
    wanted = sorted(splits.path[splits.split != "withheld"])
    found = {}
    for name, results in places.items():
        file = results / PREDICTIONS_CSV
        found[name] = with_groups(read_table(file), splits).sort_values("path", ignore_index=True)
        if list(found[name].path) != wanted:
            raise UserError(
                f"{file} has {len(found[name])} images, expected the {len(wanted)} of splits.csv: run dvc repro"
            )
    return found


def describe(
    name: str, question: str, columns: dict[str, object], results: Path, gap: float
) -> dict[str, object]:
    """Return a model's row: question, structure, scores, cost and overfitting verdict; blank where there is none.

    Times are blank where another machine trained the model.
    """
    scores = json.loads((results / METRICS_JSON).read_text())
    timing, history = read_timing(results), results / HISTORY_CSV
    return {
        "question": question,
        "architecture": name,
        **dict.fromkeys(STRUCTURE, ""),
        **columns,
        **{column: scores.get(column, "") for column in SCORES},
        "parameters": json.loads((results / SIZE_JSON).read_text())["parameters"],
        "epochs": len(read_table(history))
        if history.exists()
        else "",  # an ensemble is not trained itself
        "seconds": timing.get("train_seconds", ""),
        "predict_seconds_per_image": timing.get("predict_seconds_per_image", ""),
        "overfitting": verdict(scores["train_accuracy"], scores["val_accuracy"], gap),
    }


def describe_structures(
    architectures: dict[str, Architecture], ensembles: Path
) -> dict[str, dict[str, object]]:
    """Return what is said in `STRUCTURE` of each architecture and ensemble, of this its members and their weights, in one order."""
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


def rank(table: pd.DataFrame, rank_by: str, question: str | None) -> pd.DataFrame:
    """Number each question's rows by the validation score; between equals the smaller model wins, then the name.

    The main question comes first: `question`, or else that of all classes, or else that of the first row.
    """
    first = question or (
        ALL_CLASSES if ALL_CLASSES in set(table.question) else table.question.iloc[0]
    )
    order = list(dict.fromkeys([first, *table.question]))
    ranked = table.assign(order=table.question.map(order.index)).sort_values(
        ["order", rank_by, "parameters", "architecture"],
        ascending=[True, False, True, True],
        ignore_index=True,
    )
    ranked.insert(0, "rank", ranked.groupby("order").cumcount() + 1)
    return ranked.drop(columns="order")


def summarise(table: pd.DataFrame, rank_by: str) -> dict[str, object]:
    """Return the winner of the main question with its scores, the winners of all questions, and the best of each kind."""
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
        **best_by_kind(main_rows),
    }


def best_by_kind(ranked: pd.DataFrame) -> dict[str, object]:
    """Return the best CNN beside the best transfer model, and which of them ranks higher; {} where one kind is missing."""
    best = ranked[ranked.kind.isin(["cnn", "transfer"])].drop_duplicates("kind")
    if len(best) < 2:
        return {}
    return {
        "best_by_kind": {
            "winner": best.architecture.iloc[0],
            **best.set_index("kind")[BY_KIND].to_dict("index"),
        }
    }


def share(
    asked: dict[str, Question],
    predictions: dict[str, pd.DataFrame],
    folders: list[str],
    rank_by: str,
) -> pd.DataFrame:
    """Return, of each question but that of all classes, one row per model that can answer it, the best on validation first.

    A model answers a coarser question by the sums of its probabilities. Without rows where all were asked the same.
    """
    questions = {question.name: question for question in asked.values()}
    if len(questions) == 1:
        return pd.DataFrame(columns=SHARED)
    rows: list[dict[str, object]] = []
    for question in (question for name, question in questions.items() if name != ALL_CLASSES):
        answered = [
            {"question": question.name, "architecture": architecture, "asked": own.name}
            | shared_scores(collapse(predictions[architecture], groups, question.classes(folders)))
            for architecture, own in asked.items()
            if (groups := own.coarsen(question, folders)) is not None
        ]
        rows += sorted(answered, key=lambda row: (-row[rank_by], row["architecture"]))
    return pd.DataFrame(rows, columns=SHARED)


def shared_scores(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the scores of validation and test by prefixed name, and the interval of the test accuracy."""
    scores: dict[str, float] = {}
    for prefix, part in (("val", "validation"), ("test", "test")):
        rows = predictions[predictions.split == part]
        labels, probabilities = arrays(rows)
        numbers = score(labels, probabilities)
        if part == "test":
            numbers |= intervals(
                labels, probabilities.argmax(axis=1), probabilities.shape[1], rows.group
            )
        scores |= {f"{prefix}_{name}": value for name, value in numbers.items()}
    return scores


def tell(
    table: pd.DataFrame,
    comparison: dict[str, object],
    shared: pd.DataFrame,
    paired: pd.DataFrame,
    suspects: pd.DataFrame,
) -> None:
    """Log the ranking of each question, the winners, what is shared, the paired tests, and how many labels are doubted."""
    for question, rows in table.groupby("question", sort=False):
        log.info(
            "%s\n%s\nwinner by %s: %s",
            question,
            to_text(rows),
            comparison["ranked_by"],
            rows.architecture.iloc[0],
        )
    if kinds := comparison.get("best_by_kind"):
        log.info(
            "the best CNN %s against the best transfer model %s: %s wins by %s",
            kinds["cnn"]["architecture"], kinds["transfer"]["architecture"], kinds["winner"], comparison["ranked_by"],
        )  # fmt: skip
    for question, rows in shared.groupby("question", sort=False):
        log.info(
            "all models that can answer: %s\n%s", question, to_text(rows.drop(columns="question"))
        )
    for question, rows in paired.groupby("question", sort=False):
        shown = rows.drop(columns="question").to_string(index=False, float_format="%.3g")
        log.info("%s: the winner against each other model on the test images\n%s", question, shown)
    log.info("%d validation and test images whose label the models doubt", len(suspects))


def to_text(table: pd.DataFrame) -> str:
    """Return the columns that fit a terminal, without those that are blank in every row."""
    bounds = zip(table.test_accuracy_low, table.test_accuracy_high, strict=True)
    shown = table.assign(test_interval=[f"{low:.3f}-{high:.3f}" for low, high in bounds]).filter(
        ["architecture", "asked", "kind", "backbone", "members", "weights", "train_accuracy", "val_accuracy", "val_macro_f1",
         "test_accuracy", "test_interval", "test_macro_f1", "test_roc_auc", "test_without_copies_accuracy", "parameters",
         "seconds", "overfitting"]
    )  # fmt: skip
    formats = {
        "parameters": "{:,}".format,
        "seconds": lambda seconds: f"{seconds:.0f}" if seconds != "" else "",
    }
    return shown.loc[:, (shown != "").any()].to_string(
        index=False, formatters=formats, float_format="%.3f", na_rep=""
    )


if __name__ == "__main__":
    run(main)
