"""The section `validate` of `params.yaml`: folder layout, file sizes and expectations."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Count, Level, Section


class Minimum(Section):
    """An expectation with a lower limit."""

    minimum: float
    """Lowest value that meets the expectation."""
    level: Level
    """If unmet, `error` stops the pipeline and `warn` reports; `off` skips the expectation."""


class Maximum(Section):
    """An expectation with an upper limit."""

    maximum: float
    """Highest value that meets the expectation."""
    level: Level
    """If unmet, `error` stops the pipeline and `warn` reports; `off` skips the expectation."""


class Check(Section):
    """An expectation without a number."""

    level: Level
    """If unmet, `error` stops the pipeline and `warn` reports; `off` skips the expectation."""


class Expectations(Section):
    """What is expected of the images, and what happens otherwise."""

    usable_share: Minimum = Minimum(minimum=0.8, level="error")
    """Share of the files that are usable images."""
    classes: Minimum = Minimum(minimum=2, level="error")
    """Number of classes."""
    images_per_class: Minimum = Minimum(minimum=10, level="error")
    """Usable images of the smallest class."""
    imbalance: Maximum = Maximum(maximum=10, level="warn")
    """Size of the largest class divided by the size of the smallest."""
    side: Minimum = Minimum(minimum=32, level="warn")
    """Shorter side of each image in pixels."""
    contrast: Minimum = Minimum(minimum=1, level="warn")
    """Standard deviation of each image's grey values, which run from 0 to 255."""
    levels: Minimum = Minimum(minimum=32, level="warn")
    """Number of different grey values in each image, at most 256."""
    distinct_share: Minimum = Minimum(minimum=0.95, level="warn")
    """Share of the images whose content differs from all other images."""
    format_matches_name: Check = Check(level="warn")
    """Whether the ending of each file name fits the format of its content."""


class Layout(Section):
    """The folder layout, if it cannot be detected or is detected wrongly."""

    parts: dict[Literal["training", "validation", "test"], list[str]] | None = None
    """Folders of each split in the imported folder; {} means no folders, null detects them."""
    depth: Annotated[int, Field(ge=0)] | None = None
    """Folder levels between a split's folder and the class folders; null detects them."""
    similar_names: Literal["refuse", "keep"] = "refuse"
    """Classes whose names differ only in case, blanks or Unicode form: refused, or kept apart."""


class Validate(Section):
    """Folder layout, largest files and images, and expectations."""

    layout: Layout = Layout()
    """The folder layout, if it cannot be detected or is detected wrongly."""
    label_from: Literal["folder", "name"] = "folder"
    """Source of the class: the folder, or the file name (`cat.12.jpg` is a cat in any folder)."""
    max_bytes: Count = 100_000_000
    """Largest file size in bytes; a larger file goes into quarantine."""
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 100_000_000  # Pillow refuses more
    """Largest number of pixels of an image; a larger image goes into quarantine."""
    expectations: Expectations = Expectations()
    """What is expected of the images, and what happens otherwise."""
