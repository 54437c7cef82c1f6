"""The section `compare` of `params.yaml`: by which validation score models are ranked."""

from typing import Literal

from tasks.params.section import Section, Share


class Compare(Section):
    rank_by: Literal["val_macro_f1", "val_accuracy", "val_balanced_accuracy"] = "val_macro_f1"
    overfitting_gap: Share = 0.1  # training accuracy above validation accuracy
    question: str | None = (
        None  # the one whose winner is registered; null: all classes, or else what the first architecture is asked
    )
