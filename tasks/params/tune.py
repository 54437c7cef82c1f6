"""The section `tune` of `params.yaml`: objective, budget and space of the search.

No stage reads it.
"""

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.search_space import Range
from tasks.params.section import Count, Section


class Tune(Section):
    """Objective, budget and space of the hyperparameter search."""

    objective: Literal["val_accuracy", "val_macro_f1", "val_loss"] = "val_accuracy"
    """Validation score that the search improves."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Folds of cross-validation on training and validation images; null uses the given split."""
    epochs: Count = 10
    """Epochs of the longest trial."""
    factor: Annotated[int, Field(ge=2)] = 3
    """Reduction factor of Hyperband: with 3, each round keeps one in three trials."""
    trials: Count = 30
    """Number of trials."""
    seed: int = 42
    """Seed of the sampler."""
    space: dict[str, Annotated[dict[str, Range], Field(min_length=1)]]
    """Values to try: {architecture: {dotted path of a key: range or list of choices}}."""
