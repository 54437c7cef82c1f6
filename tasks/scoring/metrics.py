"""Scores of a classifier from its predictions, by scikit-learn: arrays in, numbers and tables out.

`labels` are class indices of shape (images,), `probabilities` have shape (images, classes).
"""

import numpy as np
import pandas as pd
from sklearn import metrics


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the scores over all classes. A score that is not defined, such as the AUC of one class, is left out."""
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    averages = {}
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, predicted, labels=classes, average=average, zero_division=0
        )
        averages |= {f"{average}_precision": precision, f"{average}_recall": recall, f"{average}_f1": f1}
    scores = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        **averages,
        "log_loss": metrics.log_loss(labels, normalise(probabilities), labels=classes),
    }
    areas = [area for area in roc_areas(labels, probabilities) if not np.isnan(area)]
    return scores | ({"roc_auc": float(np.mean(areas))} if areas else {})


def per_class(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Return one row per class: precision, recall, f1, support, one-versus-rest ROC AUC."""
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)), zero_division=0
    )
    areas = roc_areas(labels, probabilities)
    return pd.DataFrame(
        {"label": classes, "precision": precision, "recall": recall, "f1": f1, "support": support, "roc_auc": areas}
    )


def roc_areas(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """Return the one-versus-rest area under the ROC curve of each class, NaN where all or no images are of it."""
    truth, ranking = one_versus_rest(labels, probabilities.shape[1]), evidence(probabilities)
    return [
        metrics.roc_auc_score(truth[:, index], ranking[:, index]) if 0 < truth[:, index].sum() < len(truth) else np.nan
        for index in range(probabilities.shape[1])
    ]


def confusion(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Return one row per pair of classes: actual, predicted, count, and the share of the actual class's images."""
    matrix = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return pd.DataFrame(
        {
            "actual": np.repeat(classes, len(classes)),
            "predicted": np.tile(classes, len(classes)),
            "count": matrix.ravel(),
            "share": shares.ravel(),
        }
    )


def curves(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the one-versus-rest ROC curves (label, fpr, tpr) and precision-recall curves (label, recall, precision)."""
    truth, ranking = one_versus_rest(labels, len(classes)), evidence(probabilities)
    roc, pr = [], []
    for index, label in enumerate(classes):
        if not 0 < truth[:, index].sum() < len(truth):
            continue
        fpr, tpr, _ = metrics.roc_curve(truth[:, index], ranking[:, index])
        precision, recall, _ = metrics.precision_recall_curve(truth[:, index], ranking[:, index])
        roc.append(pd.DataFrame({"label": label, "fpr": fpr, "tpr": tpr}))
        pr.append(pd.DataFrame({"label": label, "recall": recall, "precision": precision}))
    empty = [pd.DataFrame(columns=["label"])]
    return pd.concat(roc or empty), pd.concat(pr or empty)


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> tuple[float, pd.DataFrame]:
    """Return the expected calibration error of the top class, and its bins: confidence, accuracy, count.

    Equal-width bins of the confidence; the error is the mean gap, weighted by count (Guo et al. 2017, arXiv:1706.04599).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": bin_of, "confidence": confidence, "accuracy": right.astype(float)}).groupby("bin")
    rows = table.mean().assign(count=table.size()).reset_index(drop=True)
    error = float((rows["count"] * (rows.confidence - rows.accuracy).abs()).sum() / len(labels))
    return error, rows


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
