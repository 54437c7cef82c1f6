"""Recompute every number of the report from tables and predictions, independently of the pipeline.

`check` compares a page. `recompute` takes the folder of a run, the metric of a number on the page,
and its other attributes (model, class, path and so on). It uses scikit-learn, SciPy or counting.
The ends of bootstrap intervals and measured times cannot be recomputed. They are read from the
table that the page read.
"""

import json
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn import metrics

from tests.support.page import Page

SPLITS = {"train": "training", "val": "validation", "test": "test", "test_without_copies": "test"}
SCORE = re.compile(r"(train|val|test_without_copies|test)_(.*?)(_before)?(_low|_high)?")
READ = (
    "epochs",
    "parameters",
    "seconds",
    "predict_seconds_per_image",
    "macro_f1_difference_low",
    "macro_f1_difference_high",
)


def check(root: Path, page: Page, bins: int) -> None:
    """Compare each marked number of the page with its recomputed value and with its text."""
    for attributes, text in page.numbers:
        about = {
            name.removeprefix("data-"): value
            for name, value in attributes.items()
            if name.startswith("data-")
        }
        metric = about.pop("metric")
        expected = recompute(root, metric, about, bins)
        if isinstance(expected, str):
            assert attributes["value"] == text == expected, (metric, about)
            continue
        assert float(attributes["value"]) == pytest.approx(float(expected), rel=2e-6, abs=1e-6), (
            metric,
            about,
        )
        plain = re.fullmatch(r"[+-]?[\d,]+(\.\d+)?", text)
        if plain and plain[0].replace(",", "") != attributes["value"]:
            decimals = len(plain[1] or ".") - 1
            assert float(text.replace(",", "")) == pytest.approx(
                float(expected), abs=0.51 * 10**-decimals
            ), (metric, about)


@cache
def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / "data" / name, dtype=str, keep_default_na=False)


@cache
def document(root: Path, name: str) -> dict:
    return json.loads((root / "data" / name).read_text())


@cache
def ensembles(root: Path) -> dict[str, dict]:
    """Return the section `ensembles` of params."""
    return YAML(typ="safe", pure=True).load(root / "params.yaml").get("ensembles", {})


def locate(root: Path, kind: str, model: str) -> str:
    """Return the folder of the `models` or `results` of an architecture or an ensemble."""
    return f"ensembles/{kind}/{model}" if model in ensembles(root) else f"{kind}/{model}"


@cache
def ensemble(root: Path, model: str) -> dict[str, float]:
    """Return the weights of an ensemble's members.

    Weights chosen on validation images must have nearly the lowest loss that SciPy finds.
    """
    section = ensembles(root)[model]
    members, given = section["members"], section.get("weights", "validation")
    if given != "validation":
        raw = {member: 1 if given == "equal" else given[member] for member in members}
        return {member: weight / sum(raw.values()) for member, weight in raw.items()}
    chosen = document(root, "ensembles/ensembles.json")[model]["weights"]
    assert list(chosen) == members
    rows = [predictions(root, member).query("split == 'validation'") for member in members]
    truth = np.array([[row[f"p_{row.label}"] for _, row in table.iterrows()] for table in rows])

    def loss(weights: np.ndarray) -> float:
        return -np.log(np.maximum(weights, 0) @ truth).mean()

    together = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    best = minimize(
        loss,
        np.full(len(members), 1 / len(members)),
        bounds=[(0, 1)] * len(members),
        constraints=together,
    )
    assert loss(np.array(list(chosen.values()))) <= best.fun + 1e-6
    return chosen


@cache
def predictions(root: Path, model: str) -> pd.DataFrame:
    """Return predictions.csv by path, with each image's group and confidence.

    `copied` is true if an image of the group was given for training, even if it was withheld.
    """
    splits = table(root, "splits.csv")
    rows = (
        table(root, f"{locate(root, 'results', model)}/predictions.csv")
        .merge(splits[["path", "group"]], on="path")
        .sort_values("path")
    )
    shares = rows.filter(regex="^p_").astype(float)
    given = set(splits.group[splits.split.isin(["training", "withheld"])])
    return rows.assign(
        **shares, confidence=shares.max(axis=1), copied=rows.group.isin(given)
    ).set_index("path")


def coarsen(root: Path, model: str, question: str) -> pd.DataFrame:
    """Return the model's predictions for a coarser question.

    The classes of the question come from the predictions of a model that answers it.
    """
    asked = table(root, "comparison.csv").set_index("architecture").question
    if asked[model] == question:
        return predictions(root, model)
    rows, truth = (
        predictions(root, model),
        predictions(root, asked.index[asked == question][0]).label,
    )
    coarse = dict(zip(rows.label, truth[rows.index], strict=True))
    sums = {
        label: sum(rows[f"p_{fine}"] for fine in coarse if coarse[fine] == label)
        for label in sorted(set(truth))
    }
    return pd.DataFrame(
        {
            "split": rows.split,
            "label": truth[rows.index],
            "predicted": pd.DataFrame(sums).idxmax(axis=1),
            "copied": rows.copied,
        }
        | {f"p_{label}": share for label, share in sums.items()}
    )


def recompute(root: Path, metric: str, about: dict[str, str], bins: int) -> float:
    """Return a number that the page shows. Raises `KeyError` if it is not recomputed here."""
    if metric in READ:
        return read_number(root, metric, about)
    if "other" in about:
        return compare_pair(root, metric, about["model"], about["other"])
    if "model" not in about:
        return recompute_data(root, metric, about)
    if (found := SCORE.fullmatch(metric)) and "epoch" not in about:
        return recompute_score(root, about["model"], found, bins, about.get("question"))
    return recompute_model(root, metric, about)


def recompute_data(root: Path, metric: str, about: dict[str, str]) -> float:
    """Return a number about the images."""
    if "path" in about:
        return recompute_suspect(root, metric, about["path"])
    files, splits = table(root, "files.csv"), table(root, "splits.csv")
    split, suspects = document(root, "split.json"), table(root, "suspects.csv")
    usable, refused = files[files.status == "usable"], files[files.status != "usable"]
    chosen = splits[splits.split == about.get("part", splits.split)]
    training = splits[splits.split == "training"].label.value_counts()
    common = usable.groupby(["width", "height"]).size().sort_values(ascending=False, kind="stable")
    test = splits[splits.split == "test"]
    given = set(splits.group[splits.split.isin(["training", "withheld"])])
    side, _, which = metric.partition("_")
    if side in ("width", "height"):
        return getattr(usable[side].astype(int), which)()
    return {
        "images": lambda: (chosen.label == about.get("label", chosen.label)).sum(),
        "images_share": lambda: (chosen.label == about["label"]).mean(),
        "format": lambda: (usable.format == about["name"]).sum(),
        "mode": lambda: (usable["mode"] == about["name"]).sum(),
        "quarantined": lambda: (refused.reason == about.get("reason", refused.reason)).sum(),
        "pairs": lambda: split["pairs"][about["kind"]],
        "files": lambda: len(files),
        "imbalance": lambda: training.max() / training.min(),
        "sizes": lambda: len(common),
        "commonest_width": lambda: int(common.index[0][0]),
        "commonest_height": lambda: int(common.index[0][1]),
        "commonest_images": lambda: common.iloc[0],
        "groups": lambda: (splits.group.value_counts() > 1).sum(),
        "withheld": lambda: (splits.split == "withheld").sum(),
        "test_with_copies": lambda: test.group.isin(given).sum(),
        "test_with_trained_copies": lambda: len(
            test[test.group.isin(splits.group[splits.split == "training"])]
        ),
        "label_conflicts": lambda: len(split["label_conflicts"]),
        "suspects": lambda: len(suspects),
        "suspects_shown": lambda: min(
            24, suspects.path.map(splits.set_index("path").group).nunique()
        ),
        "models": lambda: len(document(root, "comparison.json")["architectures"]),
        **{
            name: lambda: document(root, "registration.json")[metric]
            for name in ("champion", "champion_before", "version", "looks")
        },
    }[metric]()


def recompute_suspect(root: Path, metric: str, path: str) -> float:
    """Return a number about an image whose label the models doubt."""
    models = document(root, "comparison.json")["architectures"]
    rows = [predictions(root, model).loc[path] for model in models]
    suggested = table(root, "suspects.csv").set_index("path").suggested[path]
    return {
        "models": len(rows),
        "disagree": sum(row.predicted != row.label for row in rows),
        "suspect_confidence": np.mean([row[f"p_{suggested}"] for row in rows]),
    }[metric]


def recompute_score(
    root: Path, model: str, found: re.Match, bins: int, question: str | None = None
) -> float:
    """Return a score on the training, validation or test images."""
    prefix, name, before, end = found.groups()
    rows = predictions(root, model) if question is None else coarsen(root, model, question)
    rows = rows[(rows.split == SPLITS[prefix]) & ~((prefix == "test_without_copies") & rows.copied)]
    if end:
        scores = document(root, f"{locate(root, 'results', model)}/metrics.json")
        value = recompute_score(root, model, SCORE.fullmatch(f"{prefix}_{name}"), bins)
        assert scores[f"{prefix}_{name}_low"] <= value <= scores[f"{prefix}_{name}_high"]
        return scores[found[0]]
    names = [column[2:] for column in rows if column.startswith("p_")]
    shares = rows[[f"p_{label}" for label in names]].to_numpy()
    if before:
        shares = (
            shares
            ** document(root, f"{locate(root, 'models', model)}/calibration.json")["temperature"]
        )
        shares = shares / shares.sum(axis=1, keepdims=True)
    right, sure = (rows.label == rows.predicted).to_numpy(), shares.max(axis=1)
    truth = (rows.label.to_numpy()[:, None] == np.array(names)).astype(float)
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    return {
        "accuracy": lambda: right.mean(),
        **{
            f"{average}_{score}": partial(average_score, rows, score, average)
            for average in ("macro", "weighted")
            for score in ("precision", "recall", "f1")
        },
        "pr_auc": lambda: np.mean(
            [
                metrics.average_precision_score(truth[:, index], shares[:, index])
                for index in range(len(names))
            ]
        ),
        "roc_auc": lambda: np.mean(
            [
                metrics.roc_auc_score(truth[:, index], shares[:, index])
                for index in range(len(names))
            ]
        ),
        "log_loss": lambda: (
            -np.log(
                np.maximum((shares * truth).sum(axis=1) / shares.sum(axis=1), np.finfo(float).eps)
            ).mean()
        ),
        "images": lambda: len(rows),
        "classes": lambda: rows.label.nunique(),
        "brier": lambda: ((shares - truth) ** 2).sum(axis=1).mean(),
        "calibration_error": lambda: (
            sum(abs((sure - right)[bin_of == index].sum()) for index in range(bins)) / len(rows)
        ),
    }[name]()


def average_score(rows: pd.DataFrame, score: str, average: str) -> float:
    """Return the average precision, recall or F1 of the classes that have images."""
    compute = getattr(metrics, f"{score}_score")
    present = sorted(set(rows.label))
    return compute(rows.label, rows.predicted, labels=present, average=average, zero_division=0)


def recompute_model(root: Path, metric: str, about: dict[str, str]) -> float | str:
    """Return a number about one model: a class of its test images, its training, or an image."""
    model, results = about["model"], locate(root, "results", about["model"])
    rows = predictions(root, model)
    test, label = rows[rows.split == "test"], about.get("label")
    of_class = test[test.label == label]
    if metric == "weight":
        return float(
            f"{ensemble(root, model)[about['member']]:.4g}"
        )  # rounded as in comparison.csv
    history = (
        None
        if model in ensembles(root)
        else table(root, f"results/{model}/history.csv").set_index("epoch")
    )
    if "part" in about:
        return recompute_thresholds(root, metric, model, rows[rows.split == about["part"]])
    if "epoch" in about:
        return (
            float(about["epoch"]) if metric == "epoch" else float(history[metric][about["epoch"]])
        )
    if metric in ("filters", "kernel", "dropout", "batch_size"):
        return table(root, "comparison.csv").set_index("architecture")[metric][model]
    if metric.startswith("correlation_"):
        return document(root, f"explanations/{model}/sanity.json")[metric]
    arguments = {"labels": [label], "average": None, "zero_division": 0}
    one = test.label == label
    rank = test[f"p_{label}"] if label else None
    return {
        "images": lambda: len(of_class),
        "support": lambda: len(of_class),
        "wrong": lambda: (of_class.predicted != label).sum(),
        "taken": lambda: (of_class.predicted == about["taken"]).sum(),
        "confusion_count": lambda: (of_class.predicted == about["predicted"]).sum(),
        "confusion_share": lambda: (of_class.predicted == about["predicted"]).mean(),
        "precision": lambda: metrics.precision_score(test.label, test.predicted, **arguments)[0],
        "recall": lambda: metrics.recall_score(test.label, test.predicted, **arguments)[0],
        "f1": lambda: metrics.f1_score(test.label, test.predicted, **arguments)[0],
        "roc_auc": lambda: metrics.roc_auc_score(one, rank),
        "pr_auc": lambda: metrics.average_precision_score(one, rank),
        "confidence": lambda: rows.confidence[about["path"]],
        "classes": lambda: len(rows.filter(regex="^p_").columns),
        "temperature": lambda: document(root, f"{locate(root, 'models', model)}/calibration.json")[
            "temperature"
        ],
        "confidence_threshold": lambda: document(root, f"{results}/thresholds.json")["confidence"],
        "distance_threshold": lambda: document(root, f"{results}/thresholds.json")["distance"],
        "abstain_accuracy": lambda: document(root, f"{results}/thresholds.json")["abstain"][
            "accuracy"
        ],
        "unfamiliar_share": lambda: document(root, f"{results}/thresholds.json")["unfamiliar"][
            "false_alarms"
        ],
        "best_epoch": lambda: float(find_kept_epoch(root, model, history)),
    }[metric]()


def find_kept_epoch(root: Path, model: str, history: pd.DataFrame) -> int:
    """Return the epoch whose weights were kept, by the keys of the architecture and of `train`."""
    params = YAML(typ="safe", pure=True).load(root / "params.yaml")
    own, shared = params["architectures"][model] or {}, params.get("train") or {}
    if own.get("keep", shared.get("keep", "best")) == "last":
        return max(history.index)
    stopping = {"monitor": "val_loss"}
    for section in (shared, own):
        given = section.get("early_stopping", {})
        stopping = {"monitor": "val_loss"} if given is None else stopping | given
    watched = history[stopping["monitor"]].astype(float)
    return watched.idxmax() if stopping["monitor"] == "val_accuracy" else watched.idxmin()


def recompute_thresholds(root: Path, metric: str, model: str, rows: pd.DataFrame) -> float:
    """Return a number about the effect of the thresholds on one split."""
    thresholds = document(root, f"{locate(root, 'results', model)}/thresholds.json")
    answered = rows[rows.confidence >= (thresholds["confidence"] or 0)]
    right = int((answered.label == answered.predicted).sum())
    strange = rows.distance.astype(float) > (thresholds["distance"] or np.inf)
    interval = (
        binomtest(right, len(answered)).proportion_ci(0.95, "wilson") if len(answered) else None
    )
    return {
        "images": lambda: len(rows),
        "answered": lambda: len(answered),
        "coverage": lambda: len(answered) / len(rows),
        "answered_accuracy": lambda: right / len(answered),
        "answered_accuracy_low": lambda: interval.low,
        "answered_accuracy_high": lambda: interval.high,
        "alarms": lambda: strange.sum(),
        "false_alarms": lambda: strange.mean(),
    }[metric]()


def compare_pair(root: Path, metric: str, model: str, other: str) -> float:
    """Compare the winner with another model.

    Each group of copies counts once, for the model that is right more often on it.
    """
    one, two = (predictions(root, name).query("split == 'test'") for name in (model, other))
    edge = (
        ((one.label == one.predicted).astype(int) - (two.label == two.predicted))
        .groupby(one.group)
        .sum()
    )
    gains, losses = int((edge > 0).sum()), int((edge < 0).sum())
    p = binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
    scores = [metrics.f1_score(rows.label, rows.predicted, average="macro") for rows in (one, two)]
    if metric == "p_holm":
        rows = table(root, "paired_tests.csv").query("winner == @model")
        own = sorted(compare_pair(root, "p", model, name) for name in rows.other)
        return max(
            min(1, value * (len(own) - place)) for place, value in enumerate(own) if value <= p
        )
    return {
        "winner_alone": gains,
        "other_alone": losses,
        "p": p,
        "macro_f1_difference": scores[0] - scores[1],
    }[metric]


def read_number(root: Path, metric: str, about: dict[str, str]) -> float:
    """Return a number that cannot be recomputed."""
    if "other" in about:
        rows = table(root, "paired_tests.csv")
        return float(
            rows[(rows.winner == about["model"]) & (rows.other == about["other"])][metric].iloc[0]
        )
    model = about["model"]
    if model in ensembles(root):
        weights = ensemble(root, model)
        members = [name for name, weight in weights.items() if weight or metric == "seconds"]
        return sum(read_number(root, metric, {"model": member}) for member in members)
    (kept,) = (root / "data/timing").glob(f"{model}_*.json")
    timing, size = (
        document(root, f"timing/{kept.name}"),
        document(root, f"results/{model}/size.json"),
    )
    return {
        "epochs": len(timing["epoch_seconds"]),
        "seconds": timing["train_seconds"],
        **timing,
        **size,
    }[metric]
