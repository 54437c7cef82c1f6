"""Which images a person should look at: wrong ones, uncertain ones, and those whose label may be wrong.

Predictions in the columns of `predictions.csv` in, tables out. Nothing is ever removed or relabelled by them.
"""

import numpy as np
import pandas as pd

from tasks.scoring.predictions import arrays, class_names

UNCERTAIN = 50  # images of a table, at most


def errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return path, label, predicted, confidence, p_label, kind: all wrong images, the most confident first (kind `worst`).

    The least certain images, right or wrong, follow: those of the lowest confidence (kind `uncertain`).
    """
    labels, probabilities = arrays(predictions)
    table = predictions[["path", "label", "predicted"]].assign(
        confidence=probabilities.max(axis=1), p_label=probabilities[np.arange(len(labels)), labels]
    )
    worst = table[table.label != table.predicted].sort_values(
        ["confidence", "path"], ascending=[False, True]
    )
    uncertain = table.sort_values(["confidence", "path"]).head(UNCERTAIN)
    return pd.concat([worst.assign(kind="worst"), uncertain.assign(kind="uncertain")])


def suspects(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return path, label, split, suggested, confidence, p_label of images whose label may be wrong, the surest first.

    A class is suggested where its probability reaches the mean that it has on the images labelled so, of the highest such
    class if there are several (confident learning, Northcutt et al. 2021, arXiv:1911.00068). For held-out images: what a
    model was trained on, it repeats.
    """
    labels, probabilities = arrays(predictions)
    thresholds = np.full(
        probabilities.shape[1], np.inf
    )  # a class without images is never suggested
    for index in np.unique(labels):
        thresholds[index] = probabilities[labels == index, index].mean()
    reached = np.where(probabilities >= thresholds, probabilities, -1)
    suggested = reached.argmax(axis=1)
    rows = np.arange(len(labels))
    table = predictions[["path", "label", "split"]].assign(
        suggested=np.array(class_names(predictions))[suggested],
        confidence=probabilities[rows, suggested],
        p_label=probabilities[rows, labels],
    )
    return table[(reached.max(axis=1) >= 0) & (suggested != labels)].sort_values(
        ["p_label", "path"]
    )


def shared_suspects(predictions: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the suspects of the mean probabilities of several models, and how many of these `models` `disagree` with the label.

    The models must answer the same question of the same images in the same order.
    """
    first = predictions[0]
    columns = [f"p_{label}" for label in class_names(first)]
    mean = first.assign(**(sum(table[columns] for table in predictions) / len(predictions)))
    disagree = sum((table.predicted != table.label).astype(int) for table in predictions)
    found = suspects(mean)
    return found.assign(disagree=disagree[found.index], models=len(predictions))[
        ["path", "label", "split", "suggested", "disagree", "models", "confidence", "p_label"]
    ]
