"""The section `weigh` of `params.yaml`: the weight of each class in the loss."""

from typing import Literal

from tasks.params.section import Section


class Weigh(Section):
    """The weight of each class in the loss."""

    method: Literal["balanced", "none"] = "balanced"
    """`balanced` weighs a class by its inverse frequency; `none` weighs all images equally."""
