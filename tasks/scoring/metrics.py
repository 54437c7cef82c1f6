"""Score a classifier's predictions with scikit-learn. Arrays in, numbers and tables out."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

from tasks.scoring.predictions import Labels, Probabilities

PER_CLASS_COLUMNS = {
    "label": "Class.",
    "precision": "Share of the images predicted as this class that belong to it.",
    "recall": "Share of the images of this class that are predicted as it.",
    "f1": "Harmonic mean of precision and recall.",
    "support": "Number of test images of this class.",
    "roc_auc": "Area under the ROC curve of this class against the rest.",
    "pr_auc": "Average precision: the area under the precision-recall curve.",
}
CONFUSION_COLUMNS = {
    "actual": "Class of the images.",
    "predicted": "Class that the model predicts.",
    "count": "Number of test images of `actual` that are predicted as `predicted`.",
    "share": "`count` divided by all test images of `actual`.",
}
ROC_COLUMNS = {
    "label": "Class, against the rest.",
    "fpr": "False positive rate.",
    "tpr": "True positive rate.",
}
PR_COLUMNS = {"label": "Class, against the rest.", "recall": "Recall.", "precision": "Precision."}


def score(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Return the scores over all classes, except undefined scores, such as the AUC of one class.

    Averages are over the classes that have images. Such a class has precision and F1 of 0 if it is
    never predicted. `roc_auc` and `pr_auc` are the means over the classes.
    """
    predicted = probabilities.argmax(axis=1)
    classes, present = np.arange(probabilities.shape[1]), np.unique(labels)
    averages: dict[str, float] = {}
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, predicted, labels=present, average=average, zero_division=0
        )
        averages |= {
            f"{average}_precision": precision,
            f"{average}_recall": recall,
            f"{average}_f1": f1,
        }
    scores = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": averages["macro_recall"],
        **averages,
        "log_loss": metrics.log_loss(labels, normalise(probabilities), labels=classes),
    }
    means = measure_areas(labels, probabilities).mean()
    return scores | {name: float(mean) for name, mean in means.items() if not np.isnan(mean)}


def score_classes(labels: Labels, probabilities: Probabilities, classes: list[str]) -> pd.DataFrame:
    """Return the scores of each class, as in `per_class.csv`. Undefined scores are NaN."""
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)), zero_division=np.nan
    )
    columns = {
        "label": classes,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "support": support,
    }
    return pd.DataFrame(columns).join(measure_areas(labels, probabilities))


def measure_areas(labels: Labels, probabilities: Probabilities) -> pd.DataFrame:
    """Return `roc_auc` and `pr_auc` of each class against the rest.

    Both are NaN if all images are of this class, or if no image is.
    """
    truth, ranking = encode_one_hot(labels, probabilities.shape[1]), rank_images(probabilities)
    rows = np.full((probabilities.shape[1], 2), np.nan)
    for index in np.flatnonzero((truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth))):
        column = truth[:, index], ranking[:, index]
        rows[index] = metrics.roc_auc_score(*column), metrics.average_precision_score(*column)
    return pd.DataFrame(rows, columns=["roc_auc", "pr_auc"])


def count_confusions(
    labels: Labels, probabilities: Probabilities, classes: list[str]
) -> pd.DataFrame:
    """Return one row for each pair of classes, in the columns of `confusion.csv`."""
    matrix = metrics.confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(classes))
    )
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return pd.DataFrame(
        {
            "actual": np.repeat(classes, len(classes)),
            "predicted": np.tile(classes, len(classes)),
            "count": matrix.ravel(),
            "share": shares.ravel(),
        }
    )


def trace_curves(
    labels: Labels, probabilities: Probabilities, classes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ROC curves and the precision-recall curves of each class against the rest.

    Points on a straight line between two others are left out.
    """
    truth, ranking = encode_one_hot(labels, len(classes)), rank_images(probabilities)
    roc, pr = [], []
    for index, label in enumerate(classes):
        if not 0 < truth[:, index].sum() < len(truth):
            continue
        fpr, tpr, _ = metrics.roc_curve(truth[:, index], ranking[:, index])
        precision, recall, _ = metrics.precision_recall_curve(
            truth[:, index], ranking[:, index], drop_intermediate=True
        )
        roc.append(pd.DataFrame({"label": label, "fpr": fpr, "tpr": tpr}))
        pr.append(pd.DataFrame({"label": label, "recall": recall, "precision": precision}))
    empty = [pd.DataFrame(columns=["label"])]
    return pd.concat(roc or empty), pd.concat(pr or empty)


def encode_one_hot(labels: Labels, classes: int) -> NDArray[np.int64]:
    """Return a column of zeros and ones for each class, of shape (images, classes)."""
    return np.eye(classes, dtype=int)[labels]


def rank_images(probabilities: Probabilities) -> Probabilities:
    """Return the numbers that rank the images for each class.

    These are the probabilities, or for two classes their difference. Near 1 a rounded probability
    ties images that the small probability of the other class still orders. The two classes would
    then have different areas.
    """
    return probabilities - probabilities[:, ::-1] if probabilities.shape[1] == 2 else probabilities


def normalise(probabilities: Probabilities) -> Probabilities:
    """Scale each row to a sum of 1. Tables keep seven digits, so their rows miss it slightly."""
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def describe_overfitting(train_accuracy: float, val_accuracy: float, gap: float) -> str:
    """Return `none`, `some` or `strong`, by the gap of training and validation accuracy."""
    difference = train_accuracy - val_accuracy
    if difference > 2 * gap:
        return "strong"
    return "some" if difference > gap else "none"
