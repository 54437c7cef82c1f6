"""The section `evaluate` of `params.yaml`: which thresholds are chosen on validation images."""

from typing import Annotated

from pydantic import Field

from tasks.params.section import Count, Section, Share


class Abstain(Section):
    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.95  # of the answers that are given, at least


class Unfamiliar(Section):
    false_alarms: Share = 0.02  # images of the known kind that are called unfamiliar, at most


class Evaluate(Section):
    """What the thresholds of `results/<architecture>/thresholds.json` shall give; null switches one off."""

    calibration_bins: Count = 15
    abstain: Abstain | None = Abstain()
    unfamiliar: Unfamiliar | None = Unfamiliar()
