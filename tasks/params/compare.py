"""The section `compare` of `params.yaml`: how models are ranked."""

from typing import Literal

from tasks.params.section import Section, Share


class Compare(Section):
    """How models are ranked. No test score has any influence."""

    rank_by: Literal["val_macro_f1", "val_accuracy", "val_balanced_accuracy"] = "val_macro_f1"
    """Validation score that ranks the models and names the winner."""
    overfitting_gap: Share = 0.1
    """Training accuracy minus validation accuracy from which a model counts as overfitted."""
    question: str | None = None
    """Question whose winner is registered; null takes `all classes`, or else the first question."""
