"""The section `weigh` of `params.yaml`: how classes weigh in the loss."""

from typing import Literal

from tasks.params.section import Section


class Weigh(Section):
    method: Literal["balanced", "none"] = "balanced"
