"""Which random changes training images undergo: `augmentation` of `params.yaml` as a typed model, and the named ones as a table."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.params.section import Section, Share


class Elastic(Section):
    """Smooth bending: random vectors on a coarse grid, between them bicubic (Ronneberger et al. 2015, arXiv 1505.04597)."""

    scale: Annotated[float, Field(gt=0, le=0.2)] = (
        0.02  # standard deviation of the vectors, as a share of each side
    )
    grid: Annotated[int, Field(ge=2, le=16)] = 3  # vectors a side


class Mixup(Section):
    """Each image is blended with another of its batch, and so are their classes (Zhang et al. 2018, arXiv 1710.09412)."""

    alpha: Annotated[float, Field(gt=0, le=10)] = (
        0.2  # the share is drawn from Beta(alpha, alpha): small blends little
    )


class Augmentation(Section):
    """Random changes of training images, drawn anew for each image and epoch, uniform in the stated ranges.

    Given as a mapping, as a name out of `AUGMENTATIONS`, or as a mapping that starts from one: `{like: light, rotation: 20}`.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 0  # degrees, to either side
    width_shift: Share = 0  # of the width, to either side
    height_shift: Share = 0  # of the height, up or down
    shear: Annotated[float, Field(ge=0, lt=90)] = 0  # degrees, to either side
    zoom: Share = 0  # from 1 - zoom to 1 + zoom, per axis
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: Share = 0  # factor from 1 - brightness to 1 + brightness
    contrast: Share = 0  # likewise, of the difference from the image's mean
    blur: Annotated[float, Field(ge=0, le=1)] = (
        0  # share of the fine structure that is lost, from 0 to blur
    )
    fill: Literal["nearest", "constant", "reflect", "wrap"] = "nearest"  # beyond the border
    elastic: Elastic | None = None
    mixup: Mixup | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        values = spelled_out(given)
        if isinstance(values, str) or (isinstance(values, dict) and "like" in values):
            raise ValueError(
                f"unknown augmentation; known are {', '.join(AUGMENTATIONS)}, and every mapping of changes"
            )
        return values


AUGMENTATIONS: dict[str, dict[str, Any]] = {
    # The seven kinds of the reference comparison. Its shear of 0.15 was degrees, which is next to nothing.
    "comparison": {
        "rotation": 20, "width_shift": 0.2, "height_shift": 0.2, "shear": 0.15, "zoom": 0.2,
        "horizontal_flip": True, "brightness": 0.2,
    },
    # The original notebook turned by up to a tenth of a full turn.
    "photo_filter": {"rotation": 36, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": True, "fill": "reflect"},
    "light": {"rotation": 10, "width_shift": 0.1, "height_shift": 0.1, "zoom": 0.1, "horizontal_flip": True, "brightness": 0.1},
}  # fmt: skip


def spelled_out(given: Any) -> Any:
    """Return a known name, or a mapping that starts from one, as a mapping of every key; anything else as it is."""
    own = {"like": given} if isinstance(given, str) else given
    if not isinstance(own, dict) or own.get("like") not in list(AUGMENTATIONS):
        return given
    everything = {key: field.default for key, field in Augmentation.model_fields.items()}
    return (
        everything
        | AUGMENTATIONS[own["like"]]
        | {key: value for key, value in own.items() if key != "like"}
    )
