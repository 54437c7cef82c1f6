"""Scores of a classifier from its predictions, by scikit-learn: arrays in, numbers and tables out.

`labels` are class indices of shape (images,), `probabilities` have shape (images, classes).
"""

import numpy as np
import pandas as pd
from sklearn import metrics


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the scores over all classes. A score that is not defined, such as the AUC of one class, is left out.

    Averages are over the classes that have images; of these, one that is never predicted has precision and F1 0.
    `pr_auc` is the mean average precision, as `roc_auc` is the mean area.
    """
    predicted = probabilities.argmax(axis=1)
    classes, present = np.arange(probabilities.shape[1]), np.unique(labels)
    averages = {}
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
    means = areas(labels, probabilities).mean()
    return scores | {name: float(mean) for name, mean in means.items() if not np.isnan(mean)}


def per_class(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Return one row per class: precision, recall, f1, support, and what `areas` returns; NaN where it is not defined."""
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
    return pd.DataFrame(columns).join(areas(labels, probabilities))


def areas(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return each class's one-versus-rest `roc_auc`, and `pr_auc`, its average precision; NaN where all or no images are of it."""
    truth, ranking = one_versus_rest(labels, probabilities.shape[1]), evidence(probabilities)
    rows = np.full((probabilities.shape[1], 2), np.nan)
    for index in np.flatnonzero((truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth))):
        column = truth[:, index], ranking[:, index]
        rows[index] = metrics.roc_auc_score(*column), metrics.average_precision_score(*column)
    return pd.DataFrame(rows, columns=["roc_auc", "pr_auc"])


def confusion(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Return one row per pair of classes: actual, predicted, count, and the share of the actual class's images."""
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


def curves(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the one-versus-rest ROC curves (label, fpr, tpr) and precision-recall curves (label, recall, precision).

    Points within a straight line are left out.
    """
    truth, ranking = one_versus_rest(labels, len(classes)), evidence(probabilities)
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


def one_versus_rest(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return a 0/1 column per class, shape (images, classes)."""
    return np.eye(classes, dtype=int)[labels]


def evidence(probabilities: np.ndarray) -> np.ndarray:
    """Return what ranks the images for each class: its probability, of two classes the difference.

    Close to one a rounded probability ties images that the other class's tiny one tells apart; one area would be two.
    """
    return probabilities - probabilities[:, ::-1] if probabilities.shape[1] == 2 else probabilities


def normalise(probabilities: np.ndarray) -> np.ndarray:
    """Let each row sum to one exactly: tables keep seven digits."""
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def verdict(train_accuracy: float, val_accuracy: float, gap: float) -> str:
    """Say whether a model overfits: how far its training accuracy lies above its validation accuracy."""
    difference = train_accuracy - val_accuracy
    if difference > 2 * gap:
        return "strong"
    return "some" if difference > gap else "none"
