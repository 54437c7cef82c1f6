"""The table `predictions.csv` as arrays, beside its images' groups, and as answers to a coarser question than was asked."""

import numpy as np
import pandas as pd

from tasks.errors import UserError

TRAINING = ("training", "withheld")


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Return the classes in the order of the model's outputs."""
    return [column.removeprefix("p_") for column in predictions if column.startswith("p_")]


def arrays(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return class indices of shape (images,) and probabilities of shape (images, classes)."""
    classes = class_names(predictions)
    probabilities = predictions[[f"p_{label}" for label in classes]].to_numpy()
    return predictions.label.map(classes.index).to_numpy(int), probabilities


def with_groups(predictions: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Add the `group` of each image, and `copied`: whether it has a copy (or its patient an image) in training.

    An image that was withheld from training counts as in training. Raises `UserError` for images that splits.csv lacks.
    """
    group = predictions.path.map(splits.set_index("path").group)
    if unknown := list(predictions.path[group.isna()]):
        raise UserError(
            f"predictions.csv has {len(unknown)} images that splits.csv lacks, such as {unknown[0]}: they are of different runs; "
            "run dvc repro"
        )
    training = splits.group[splits.split.isin(TRAINING)]
    return predictions.assign(group=group, copied=group.isin(training))


def collapse(predictions: pd.DataFrame, groups: dict[str, str], classes: list[str]) -> pd.DataFrame:
    """Return the predictions with each class's probability added to that of its coarser class.

    `groups` is {class: coarser class}, `classes` are the coarser ones in the order of the columns. What is predicted is
    the highest sum, which need not hold the class that was predicted before.
    """
    sums = {
        f"p_{coarser}": predictions[
            [f"p_{label}" for label in class_names(predictions) if groups[label] == coarser]
        ].sum(axis=1)
        for coarser in classes
    }
    highest = pd.DataFrame(sums).to_numpy().argmax(axis=1)
    predicted = [classes[index] for index in highest]
    kept = predictions.drop(columns=[f"p_{label}" for label in class_names(predictions)])
    return kept.assign(label=predictions.label.map(groups), predicted=predicted, **sums)
