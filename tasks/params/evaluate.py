"""The section `evaluate` of `params.yaml`: thresholds that are chosen on validation images."""

from typing import Annotated

from pydantic import Field

from tasks.params.section import Count, Section, Share


class Abstain(Section):
    """The accuracy that the confidence threshold has to reach."""

    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Lowest accuracy on the validation images whose confidence reaches the threshold."""


class Unfamiliar(Section):
    """How often the out-of-distribution threshold may be wrong."""

    false_alarms: Share = 0.02
    """Largest share of validation images that the model may call unfamiliar."""


class Evaluate(Section):
    """How each model's thresholds and calibration error are computed."""

    calibration_bins: Count = 15
    """Number of confidence bins of the calibration error."""
    abstain: Abstain | None = Abstain()
    """Sets the confidence below which a model gives no prediction; null always predicts."""
    unfamiliar: Unfamiliar | None = Unfamiliar()
    """Sets the out-of-distribution score above which an image is unfamiliar; null sets no limit."""
