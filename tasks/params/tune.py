"""The section `tune` of `params.yaml`: what the search looks for, and how long. No stage reads it."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.search_space import Range
from tasks.params.section import Count, Section


class Tune(Section):
    """What the search looks for, how long it may train, and where it looks."""

    objective: Literal["val_accuracy", "val_macro_f1", "val_loss"] = "val_accuracy"
    folds: Annotated[int, Field(ge=2)] | None = (
        None  # of training and validation images; null scores the validation images
    )
    epochs: Count = 10  # of the longest trial
    factor: Annotated[int, Field(ge=2)] = (
        3  # Hyperband lets one of so many trials go on at each halving
    )
    trials: Count = 30
    seed: int = 42
    space: dict[str, Annotated[dict[str, Range], Field(min_length=1)]]
