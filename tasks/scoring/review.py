"""List the images that a person should look at. Tables in the columns of `predictions.csv` in.

These lists never remove or relabel an image.
"""

import numpy as np
import pandas as pd

from tasks.scoring.predictions import list_classes, to_arrays

ERRORS_COLUMNS = {
    "path": "Path of the test image.",
    "label": "Class of the image.",
    "predicted": "Class that the model predicts.",
    "confidence": "Probability of `predicted`.",
    "p_label": "Probability of `label`.",
    "kind": "`worst`: a wrong prediction. `uncertain`: one of the least confident predictions.",
}
SUSPECTS_COLUMNS = {
    "path": "Path of the image.",
    "label": "Class of the image, which may be wrong.",
    "split": "`validation` or `test`.",
    "suggested": "Class that fits the image better.",
    "disagree": "Number of models that predict another class. Only in `data/suspects.csv`.",
    "models": "Number of models that answer the question. Only in `data/suspects.csv`.",
    "confidence": "Probability of `suggested`; in `data/suspects.csv`, the mean of the models.",
    "p_label": "Probability of `label`; in `data/suspects.csv`, the mean of the models.",
}
UNCERTAIN = 50  # at most this many uncertain images are listed


def list_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return all wrong images, the most confident first, and then the least certain images.

    An image can be in both lists: `uncertain` holds right and wrong images.
    """
    labels, probabilities = to_arrays(predictions)
    table = predictions[["path", "label", "predicted"]].assign(
        confidence=probabilities.max(axis=1), p_label=probabilities[np.arange(len(labels)), labels]
    )
    worst = table[table.label != table.predicted].sort_values(
        ["confidence", "path"], ascending=[False, True]
    )
    uncertain = table.sort_values(["confidence", "path"]).head(UNCERTAIN)
    return pd.concat([worst.assign(kind="worst"), uncertain.assign(kind="uncertain")])


def find_suspects(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the images whose label may be wrong, the most suspicious first.

    A class is a candidate if its probability reaches its mean on the images with that label. The
    most probable candidate is suggested if it is not the label (confident learning, Northcutt et
    al. 2021, arXiv:1911.00068). Pass held-out images only: a model repeats the labels that it was
    trained on.
    """
    labels, probabilities = to_arrays(predictions)
    thresholds = np.full(probabilities.shape[1], np.inf)  # no images, no suggestion
    for index in np.unique(labels):
        thresholds[index] = probabilities[labels == index, index].mean()
    candidates = np.where(probabilities >= thresholds, probabilities, -1)
    suggested = candidates.argmax(axis=1)
    rows = np.arange(len(labels))
    table = predictions[["path", "label", "split"]].assign(
        suggested=np.array(list_classes(predictions))[suggested],
        confidence=probabilities[rows, suggested],
        p_label=probabilities[rows, labels],
    )
    return table[(candidates.max(axis=1) >= 0) & (suggested != labels)].sort_values(
        ["p_label", "path"]
    )


def find_shared_suspects(predictions: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the suspects by the mean probabilities of several models.

    The tables must answer the same question for the same images in the same order.
    """
    first = predictions[0]
    columns = [f"p_{label}" for label in list_classes(first)]
    mean = first.assign(**(sum(table[columns] for table in predictions) / len(predictions)))
    disagree = sum((table.predicted != table.label).astype(int) for table in predictions)
    found = find_suspects(mean)
    return found.assign(disagree=disagree[found.index], models=len(predictions))[
        list(SUSPECTS_COLUMNS)
    ]
