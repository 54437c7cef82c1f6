"""Read `predictions.csv` as arrays, add the groups of its images, answer a coarser question."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.errors import UserError

PREDICTIONS_COLUMNS = {
    "path": "Path of the image below `data/clean`.",
    "label": "Class of the image.",
    "split": "`training`, `validation` or `test`.",
    "predicted": "Class with the highest probability.",
    "distance": "Out-of-distribution score: the distance from the training images.",
    "p_<class>": "Probability of the class, after temperature scaling. One column for each class.",
}
TRAINING = ("training", "withheld")

Labels = NDArray[np.int64]  # class indices of shape (images,)
Probabilities = NDArray[np.float64]  # of shape (images, classes)


def list_classes(predictions: pd.DataFrame) -> list[str]:
    """Return the classes in the order of the model's outputs."""
    return [column.removeprefix("p_") for column in predictions if column.startswith("p_")]


def to_arrays(predictions: pd.DataFrame) -> tuple[Labels, Probabilities]:
    """Return the labels as class indices, and the probabilities."""
    classes = list_classes(predictions)
    probabilities = predictions[[f"p_{label}" for label in classes]].to_numpy()
    return predictions.label.map(classes.index).to_numpy(int), probabilities


def add_groups(predictions: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `group` and `copied` to the predictions.

    `copied` is true if an image of the same group, a copy or the same patient, is in training. An
    image that was withheld from training counts as being in training.

    Raises `UserError` if `splits` lacks an image.
    """
    group = predictions.path.map(splits.set_index("path").group)
    if unknown := list(predictions.path[group.isna()]):
        raise UserError(
            f"predictions.csv has {len(unknown)} images that are not in splits.csv, such as "
            f"{unknown[0]}: the two files are from different runs. Run dvc repro"
        )
    training = splits.group[splits.split.isin(TRAINING)]
    return predictions.assign(group=group, copied=group.isin(training))


def collapse(predictions: pd.DataFrame, groups: dict[str, str], classes: list[str]) -> pd.DataFrame:
    """Answer a coarser question: add up the probabilities of the classes that it puts together.

    `groups` is {class: coarser class}. `classes` are the coarser classes in the order of the new
    columns. The new prediction is the class with the highest sum. It may differ from the coarser
    class of the old prediction.
    """
    old = list_classes(predictions)
    sums = {
        f"p_{coarser}": predictions[
            [f"p_{label}" for label in old if groups[label] == coarser]
        ].sum(axis=1)
        for coarser in classes
    }
    highest = pd.DataFrame(sums).to_numpy().argmax(axis=1)
    return predictions.drop(columns=[f"p_{label}" for label in old]).assign(
        label=predictions.label.map(groups),
        predicted=[classes[index] for index in highest],
        **sums,
    )
