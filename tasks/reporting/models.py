"""The chapters on one model each: what became of each class, curves, confidence, images to look at."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.reporting.numbers import Score, told
from tasks.reporting.thumbnails import thumbnail
from tasks.results import METRICS_JSON, THRESHOLDS_JSON
from tasks.scoring import figures
from tasks.scoring.figures import CURVES, Drawn
from tasks.tables import read_table

SHOWN = 12  # images of a gallery
PARTS = {
    "val": "validation",
    "test": "test",
    "test_without_copies": "test without copies",
}  # prefix of a metric: in words
GALLERIES = {
    "worst": ("Worst errors", "Wrong, and the surest of it; one of each group of copies."),
    "uncertain": ("Least certain", "Right or wrong, with the lowest confidence."),
}
NO_MAPS = "an ensemble has no heat map of its own; those of its members are in their sections"
TEXT = (
    "path",
    "label",
    "actual",
    "predicted",
    "phase",
    "split",
    "kind",
    "picture",
    "overlay",
    "when",
    "suggested",
)


@dataclass(frozen=True)
class Gallery:
    """Images side by side. Rows have path, label, predicted, confidence, and the `pictures` of each."""

    title: str
    words: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Model:
    """What the other stages found of one architecture. `place` is its rank among all, and with that its colour."""

    place: int
    row: dict[str, Any]  # of comparison.csv
    scores: dict[str, float]
    thresholds: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Drawn]
    galleries: list[Gallery]
    explained: list[Gallery]  # one for each class
    sanity: dict[str, Any]
    summary: str

    @property
    def name(self) -> str:
        return self.row["architecture"]

    @property
    def question(self) -> str:
        return self.row["question"]

    @property
    def members(self) -> list[tuple[str, str]]:
        """Of an ensemble each member and its weight; of an architecture none."""
        return list(zip(self.row["members"].split(), self.row["weights"].split(), strict=True))

    @property
    def labels(self) -> list[str]:
        return list(self.tables["per_class"].label)

    def score(self, name: str) -> Score:
        """Return a metric with its interval; None where it was not measured."""
        return {
            "value": self.scores.get(name),
            "low": self.scores.get(f"{name}_low"),
            "high": self.scores.get(f"{name}_high"),
        }

    @property
    def errors_by_class(self) -> list[dict[str, Any]]:
        """Of each class how many test images there are, how many of them wrong, and what they were taken for, the most first."""
        rows = []
        for actual, of_class in self.tables["confusion"].groupby("actual", sort=False):
            wrong = of_class[(of_class.predicted != actual) & (of_class["count"] > 0)]
            taken = wrong.sort_values("count", ascending=False, kind="stable")
            numbers = {"images": int(of_class["count"].sum()), "wrong": int(wrong["count"].sum())}
            rows.append(
                {
                    "label": actual,
                    **numbers,
                    "taken": list(zip(taken.predicted, taken["count"], strict=True)),
                }
            )
        return rows

    @property
    def falls(self) -> bool:
        """Whether it is clearly worse on test than on validation: the intervals do not meet."""
        return self.scores["test_accuracy_high"] < self.scores["val_accuracy_low"]

    @property
    def leans_on_copies(self) -> bool:
        """Whether it is clearly worse on the test images without a copy than on all of them."""
        return (
            self.scores.get("test_without_copies_accuracy_high", 1)
            < self.scores["test_accuracy_low"]
        )


def describe_model(
    place: int,
    row: dict[str, Any],
    folders: tuple[Path, Path, Path],
    clean: Path,
    groups: dict[str, str],
    pictures: bool,
) -> Model:
    """Read what there is of one model in its own `folders` of the model, results and explanations, and draw it.

    `groups` is {path: group of copies}: a gallery shows one image of each.
    """
    model, results, explanations = folders
    tables = {
        path.stem: read_scores(path)
        for path in sorted(results.glob("*.csv"))
        if path.stem != "predictions"
    }
    scores = json.loads((results / METRICS_JSON).read_text())
    thresholds = json.loads((results / THRESHOLDS_JSON).read_text())
    is_ensemble = row["kind"] == "ensemble"
    explained, sanity = (
        ([], {"reason": NO_MAPS}) if is_ensemble else explain(explanations, pictures)
    )
    curves = {} if is_ensemble else draw_training(tables["history"], scores["best_epoch"])
    return Model(
        place=place,
        row=row,
        scores=scores,
        thresholds=thresholds,
        tables=tables,
        figures=curves | draw_answers(tables, scores, thresholds["confidence"]),
        galleries=choose_images(tables["errors"], clean, groups, pictures),
        explained=explained,
        sanity=sanity,
        summary=(model / "summary.txt").read_text(),
    )


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores: names stay the text that they are, all else are numbers."""
    table = read_table(path)
    return table.assign(
        **{column: pd.to_numeric(table[column]) for column in table if column not in TEXT}
    )


def draw_training(history: pd.DataFrame, kept: int) -> dict[str, Drawn]:
    """Return the curves of a training by name, each with its words."""
    return {name: _curve(history, name, kept) for name in CURVES if name in history}


def draw_answers(
    tables: dict[str, pd.DataFrame],
    scores: dict[str, float],
    threshold: float | None,
    part: str = "test",
) -> dict[str, Drawn]:
    """Return the figures of what was answered by name, each with its words; `part` is what the scores' names begin with."""
    labels, errors = (
        list(tables["per_class"].label),
        [scores[f"{part}_calibration_error{when}"] for when in ("_before", "")],
    )
    areas = {name: _say_areas(tables["per_class"], name) for name in ("roc_auc", "pr_auc")}
    return {
        "roc": Drawn(
            figures.roc(tables["roc"], labels),
            f"ROC curve of each class. Areas: {areas['roc_auc']}",
        ),
        "precision_recall": Drawn(
            figures.precision_recall(tables["pr"], labels),
            f"Precision against recall of each class. Areas: {areas['pr_auc']}",
        ),
        "calibration": Drawn(
            figures.reliability(tables["calibration"]),
            "Accuracy against confidence before and after scaling. Calibration error "
            f"{told(errors[0])} before, {told(errors[1])} after",
        ),
        "coverage": Drawn(
            figures.coverage(tables["coverage"], threshold), _say_coverage(tables["coverage"], part)
        ),
    }


def choose_images(
    errors: pd.DataFrame, root: Path, groups: dict[str, str], pictures: bool
) -> list[Gallery]:
    """Return the worst errors and the least certain images, which lie below `root`, one of each group of copies."""
    galleries = []
    for kind, (title, words) in GALLERIES.items():
        of_kind = errors[errors.kind == kind]
        first = of_kind[~of_kind.path.map(groups).duplicated()].head(SHOWN).to_dict("records")
        galleries.append(
            Gallery(
                title,
                words,
                [row | {"pictures": show(pictures, root / row["path"])} for row in first],
            )
        )
    return galleries


def explain(folder: Path, pictures: bool) -> tuple[list[Gallery], dict[str, Any]]:
    """Return for each class where the network looked, and what the stage `explain` says of its maps."""
    rows = read_scores(folder / "explanations.csv").to_dict("records")
    shown = [
        row | {"pictures": show(pictures, folder / row["picture"], folder / row["overlay"])}
        for row in rows
    ]
    sanity = json.loads((folder / "sanity.json").read_text())
    return [
        Gallery(label, "", [row for row in shown if row["label"] == label])
        for label in dict.fromkeys(row["label"] for row in rows)
    ], sanity


def show(pictures: bool, *paths: Path) -> list[str]:
    """Return the thumbnails of these files; none where no picture may be shown."""
    return [thumbnail(path) for path in paths] if pictures else []


def _curve(history: pd.DataFrame, name: str, kept: int) -> Drawn:
    column = f"val_{name}" if f"val_{name}" in history else name
    first, last = history[column].iloc[0], history[column].iloc[-1]
    of = "validation " if column != name else ""
    words = f"{name.replace('_', ' ')} by epoch, epoch {kept} kept; {of}{first:.3g} at first, {last:.3g} at last"
    return Drawn(figures.curve(history, name, kept), words)


def _say_areas(per_class: pd.DataFrame, column: str) -> str:
    return ", ".join(
        f"{label} {told(area)}"
        for label, area in zip(per_class.label, per_class[column], strict=True)
    )


def _say_coverage(rows: pd.DataFrame, part: str) -> str:
    test = rows[rows.split == part]
    half = test[test.coverage <= 0.5].accuracy
    said = f", of the surest half {told(half.iloc[-1])}" if len(half) else ""
    return f"Accuracy by the share of images that is answered: of all {part} images {told(test.accuracy.iloc[-1])}{said}"
