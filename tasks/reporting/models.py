"""Describe each model of a report: its errors, its figures, and images to look at."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.reporting import figures
from tasks.reporting.language import _
from tasks.reporting.numbers import Score, format_number
from tasks.reporting.scores import read_json, read_scores
from tasks.reporting.svg import Drawn
from tasks.reporting.thumbnails import Images, make_thumbnail
from tasks.reporting.words import name_class
from tasks.results import METRICS_JSON, PREDICTIONS_CSV, THRESHOLDS_JSON
from tasks.scoring.figures import CURVES, draw_curve

SHOWN = 12  # images of a gallery


@dataclass(frozen=True)
class Gallery:
    """Images side by side. Each row has a path, label, prediction, confidence and `pictures`."""

    title: str
    words: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class ScoredModel:
    """A model with its scores on labelled images. `place` decides its colour."""

    name: str
    place: int
    scores: dict[str, float]
    thresholds: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Drawn]
    galleries: list[Gallery]

    @property
    def labels(self) -> list[str]:
        """The classes in the order of the model's outputs."""
        return list(self.tables["per_class"].label)

    def score(self, metric: str) -> Score:
        """Return a metric with its interval. The values are None if it was not measured."""
        return {
            "value": self.scores.get(metric),
            "low": self.scores.get(f"{metric}_low"),
            "high": self.scores.get(f"{metric}_high"),
        }

    @property
    def extremes(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The rows of the classes with the best and the worst F1. None if all are equally good."""
        rows = self.tables["per_class"].dropna(subset="f1").sort_values("f1", kind="stable")
        if rows.f1.nunique() < 2:
            return None
        worst, best = (rows.iloc[index].to_dict() for index in (0, -1))
        return best, worst

    @property
    def errors_by_class(self) -> list[dict[str, Any]]:
        """The images and errors of each class, and the classes that were predicted instead."""
        rows = []
        for actual, of_class in self.tables["confusion"].groupby("actual", sort=False):
            wrong = of_class[(of_class.predicted != actual) & (of_class["count"] > 0)]
            taken = wrong.sort_values("count", ascending=False, kind="stable")
            rows.append(
                {
                    "label": actual,
                    "images": int(of_class["count"].sum()),
                    "wrong": int(wrong["count"].sum()),
                    "taken": list(zip(taken.predicted, taken["count"], strict=True)),
                }
            )
        return rows


@dataclass(frozen=True)
class TrainedModel(ScoredModel):
    """A model of the comparison, with its row of comparison.csv and its explanations."""

    row: dict[str, Any]
    explained: list[Gallery]  # one for each class
    sanity: dict[str, Any]
    summary: str

    @property
    def question(self) -> str:
        """The question that the model answers."""
        return str(self.row["question"])

    @property
    def members(self) -> list[tuple[str, str]]:
        """The members of an ensemble with their weights. Empty for an architecture."""
        return list(zip(self.row["members"].split(), self.row["weights"].split(), strict=True))

    @property
    def is_worse_on_test(self) -> bool:
        """Whether the interval on the test images is below the interval on validation images."""
        return self.scores["test_accuracy_high"] < self.scores["val_accuracy_low"]

    @property
    def is_worse_without_copies(self) -> bool:
        """Whether the interval without copies is below the interval on all test images."""
        without = self.scores.get("test_without_copies_accuracy_high", 1)
        return without < self.scores["test_accuracy_low"]


@dataclass(frozen=True)
class ModelFolders:
    """The folders of one model: the model itself, its results, and its explanations."""

    model: Path
    results: Path
    explanations: Path


def describe_model(
    row: dict[str, Any], folders: ModelFolders, images: Images, groups: dict[str, str]
) -> TrainedModel:
    """Read the tables of one model, and draw its figures.

    `row` is its row of comparison.csv. `groups` is {path: group of copies}: a gallery shows one
    image of each group.
    """
    tables = {
        path.stem: read_scores(path)
        for path in sorted(folders.results.glob("*.csv"))
        if path.name != PREDICTIONS_CSV
    }
    scores = read_json(folders.results / METRICS_JSON)
    thresholds = read_json(folders.results / THRESHOLDS_JSON)
    drawn = draw_predictions(tables, scores, thresholds["confidence"])
    if row["kind"] == "ensemble":
        words = _("an ensemble has no heat map. The heat maps of its members are in their sections")
        explained: list[Gallery] = []
        sanity: dict[str, Any] = {"reason": words}
    else:
        explained, sanity = explain(folders.explanations, images.shown)
        drawn = draw_training(tables["history"], int(scores["best_epoch"])) | drawn
    return TrainedModel(
        name=row["architecture"],
        place=row["place"],
        scores=scores,
        thresholds=thresholds,
        tables=tables,
        figures=drawn,
        galleries=choose_images(tables["errors"], images, groups),
        row=row,
        explained=explained,
        sanity=sanity,
        summary=(folders.model / "summary.txt").read_text(),
    )


def draw_training(history: pd.DataFrame, kept: int) -> dict[str, Drawn]:
    """Return the curves of a training by name."""
    return {name: _draw_curve(history, name, kept) for name in CURVES if name in history}


def draw_predictions(
    tables: dict[str, pd.DataFrame],
    scores: dict[str, float],
    threshold: float | None,
    part: str = "test",
) -> dict[str, Drawn]:
    """Return the figures of the predictions by name. `part` is the prefix of the scores."""
    per_class, labels = tables["per_class"], list(tables["per_class"].label)
    before, after = (
        format_number(scores[f"{part}_calibration_error{when}"]) for when in ("_before", "")
    )
    return {
        "roc": Drawn(
            figures.draw_roc(tables["roc"], labels),
            _("ROC curve of each class. Areas: {areas}").format(
                areas=_list_areas(per_class, "roc_auc")
            ),
        ),
        "precision_recall": Drawn(
            figures.draw_precision_recall(tables["pr"], labels),
            _("Precision against recall of each class. Areas: {areas}").format(
                areas=_list_areas(per_class, "pr_auc")
            ),
        ),
        "calibration": Drawn(
            figures.draw_reliability(tables["calibration"]),
            _(
                "Accuracy against confidence before and after temperature scaling. "
                "Calibration error {before} before, {after} after"
            ).format(before=before, after=after),
        ),
        "coverage": Drawn(
            figures.draw_coverage(tables["coverage"], threshold),
            _describe_coverage(tables["coverage"], part),
        ),
    }


def choose_images(errors: pd.DataFrame, images: Images, groups: dict[str, str]) -> list[Gallery]:
    """Return the worst errors and the least certain images, one image of each group of copies."""
    galleries = []
    for kind, title, words in (
        ("worst", _("Worst errors"), _("Wrong predictions with the highest confidence.")),
        ("uncertain", _("Least certain"), _("Right or wrong, with the lowest confidence.")),
    ):
        of_kind = errors[errors.kind == kind]
        first = of_kind[~of_kind.path.map(groups).duplicated()].head(SHOWN).to_dict("records")
        rows = [
            row | {"pictures": [images.show(row["path"])] if images.shown else []} for row in first
        ]
        galleries.append(Gallery(title, words, rows))
    return galleries


def explain(folder: Path, shown: bool) -> tuple[list[Gallery], dict[str, Any]]:
    """Return the heat maps of each class, and the sanity check of the stage `explain`."""
    rows = read_scores(folder / "explanations.csv").to_dict("records")
    for row in rows:
        files = (folder / row["picture"], folder / row["overlay"])
        row["pictures"] = [make_thumbnail(file) for file in files] if shown else []
    labels = dict.fromkeys(row["label"] for row in rows)
    galleries = [
        Gallery(name_class(label), "", [row for row in rows if row["label"] == label])
        for label in labels
    ]
    return galleries, json.loads((folder / "sanity.json").read_text())


def _draw_curve(history: pd.DataFrame, name: str, kept: int) -> Drawn:
    validated = f"val_{name}" in history
    values = history[f"val_{name}" if validated else name]
    text = (
        _("validation {name} by epoch, from {first} to {last}; epoch {kept} kept")
        if validated
        else _("{name} by epoch, from {first} to {last}; epoch {kept} kept")
    )
    words = text.format(
        name=_(name.replace("_", " ")),
        first=f"{values.iloc[0]:.3g}",
        last=f"{values.iloc[-1]:.3g}",
        kept=kept,
    )
    return Drawn(draw_curve(history, name, kept, _), words)


def _list_areas(per_class: pd.DataFrame, column: str) -> str:
    areas = zip(per_class.label, per_class[column], strict=True)
    return ", ".join(f"{name_class(label)} {format_number(area)}" for label, area in areas)


def _describe_coverage(rows: pd.DataFrame, part: str) -> str:
    test = rows[rows.split == part]
    words = _("Accuracy against the share of images that is answered. All images: {accuracy}")
    half = test[test.coverage <= 0.5].accuracy
    if len(half):
        words += _("; the most confident half: {half}")
    return words.format(
        accuracy=format_number(test.accuracy.iloc[-1]),
        half=format_number(half.iloc[-1]) if len(half) else "",
    )
