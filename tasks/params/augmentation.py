"""The key `augmentation` of `params.yaml`: random changes of training images, some with names."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.params.section import Section, Share


class Elastic(Section):
    """Smooth bending by random displacements of a coarse grid.

    Source: Ronneberger et al. 2015, arXiv 1505.04597.
    """

    scale: Annotated[float, Field(gt=0, le=0.2)] = 0.02
    """Standard deviation of the displacements as a share of each side."""
    grid: Annotated[int, Field(ge=2, le=16)] = 3
    """Number of displacements along each side, with bicubic interpolation between them."""


class Mixup(Section):
    """Blending of each image and its class with another image of the batch.

    Source: Zhang et al. 2018, arXiv 1710.09412.
    """

    alpha: Annotated[float, Field(gt=0, le=10)] = 0.2
    """The blending share is drawn from Beta(alpha, alpha), so a small alpha blends little."""


class Augmentation(Section):
    """Random changes of training images, drawn anew for each image and epoch.

    Each change is drawn uniformly from its range. The key takes a mapping of changes, a name in
    `AUGMENTATIONS`, or a mapping that starts from a name: `{like: light, rotation: 20}`.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 0
    """Largest rotation to either side in degrees."""
    width_shift: Share = 0
    """Largest shift to either side as a share of the width."""
    height_shift: Share = 0
    """Largest shift up or down as a share of the height."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0
    """Largest shear to either side in degrees."""
    zoom: Share = 0
    """Each axis is scaled by a factor from 1 - zoom to 1 + zoom."""
    horizontal_flip: bool = False
    """Whether half of the images are mirrored left to right."""
    vertical_flip: bool = False
    """Whether half of the images are flipped upside down."""
    brightness: Share = 0
    """Pixel values are multiplied by a factor from 1 - brightness to 1 + brightness."""
    contrast: Share = 0
    """Distances from the image's mean are scaled by a factor from 1 - contrast to 1 + contrast."""
    blur: Annotated[float, Field(ge=0, le=1)] = 0
    """Largest share of the fine structure that is removed."""
    fill: Literal["nearest", "constant", "reflect", "wrap"] = "nearest"
    """How pixels beyond the image border are filled."""
    elastic: Elastic | None = None
    """Smooth bending by random displacements; null does not bend."""
    mixup: Mixup | None = None
    """Blending with another image of the batch; null does not blend."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, given: Any) -> Any:
        values = expand_augmentation(given)
        if isinstance(values, str) or (isinstance(values, dict) and "like" in values):
            raise ValueError(
                f"unknown augmentation; known are {', '.join(AUGMENTATIONS)}, "
                "and every mapping of changes"
            )
        return values


AUGMENTATIONS: dict[str, dict[str, Any]] = {
    # The reference comparison. Its shear of 0.15 is in degrees, so it changes next to nothing.
    "comparison": {
        "rotation": 20, "width_shift": 0.2, "height_shift": 0.2, "shear": 0.15, "zoom": 0.2,
        "horizontal_flip": True, "brightness": 0.2,
    },
    # The original notebook rotated by up to a tenth of a full turn.
    "photo_filter": {
        "rotation": 36, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": True,
        "fill": "reflect",
    },
    "light": {
        "rotation": 10, "width_shift": 0.1, "height_shift": 0.1, "zoom": 0.1,
        "horizontal_flip": True, "brightness": 0.1,
    },
}  # fmt: skip


def expand_augmentation(given: Any) -> Any:
    """Return a known name, or a mapping that starts from one, as a mapping of all keys.

    Any other value comes back unchanged.
    """
    own = {"like": given} if isinstance(given, str) else given
    if not isinstance(own, dict) or own.get("like") not in list(AUGMENTATIONS):
        return given
    defaults = {key: field.default for key, field in Augmentation.model_fields.items()}
    changes = {key: value for key, value in own.items() if key != "like"}
    return defaults | AUGMENTATIONS[own["like"]] | changes
