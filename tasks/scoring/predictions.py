"""The table `predictions.csv` as arrays, and as answers to a coarser question than the model was asked."""

import numpy as np
import pandas as pd


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Return the classes in the order of the model's outputs."""
    return [column.removeprefix("p_") for column in predictions if column.startswith("p_")]


def arrays(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return class indices of shape (images,) and probabilities of shape (images, classes)."""
    classes = class_names(predictions)
    probabilities = predictions[[f"p_{label}" for label in classes]].to_numpy()
    return predictions.label.map(classes.index).to_numpy(int), probabilities


def collapse(predictions: pd.DataFrame, groups: dict[str, str], classes: list[str]) -> pd.DataFrame:
    """Return the predictions with each class's probability added to that of its coarser class.

    `groups` is {class: coarser class}, `classes` are the coarser ones in the order of the columns. What is predicted is
    the highest sum, which need not hold the class that was predicted before.
    """
    sums = {
        f"p_{coarser}": predictions[[f"p_{label}" for label in class_names(predictions) if groups[label] == coarser]].sum(axis=1)
        for coarser in classes
    }
    highest = pd.DataFrame(sums).to_numpy().argmax(axis=1)
    predicted = [classes[index] for index in highest]
    return predictions[["path", "split"]].assign(label=predictions.label.map(groups), predicted=predicted, **sums)
