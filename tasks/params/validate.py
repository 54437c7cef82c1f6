"""The section `validate` of `params.yaml`: how large files may be, and what their table is expected to fulfil."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Count, Level, Section


class Minimum(Section):
    minimum: float
    level: Level


class Maximum(Section):
    maximum: float
    level: Level


class Judgement(Section):
    level: Level


class Expectations(Section):
    """What the table of files is expected to fulfil; `error` stops the pipeline, `warn` is reported."""

    usable_share: Minimum = Minimum(
        minimum=0.8, level="error"
    )  # files that are usable images, of all files
    classes: Minimum = Minimum(minimum=2, level="error")
    images_per_class: Minimum = Minimum(minimum=10, level="error")  # usable images
    imbalance: Maximum = Maximum(maximum=10, level="warn")  # largest class over smallest
    side: Minimum = Minimum(minimum=32, level="warn")  # pixels of the shorter side
    contrast: Minimum = Minimum(
        minimum=1, level="warn"
    )  # standard deviation of the grey values, 0 to 255
    levels: Minimum = Minimum(
        minimum=32, level="warn"
    )  # different grey values that an image uses, of 256
    distinct_share: Minimum = Minimum(
        minimum=0.95, level="warn"
    )  # files whose content no other file has
    format_matches_name: Judgement = Judgement(level="warn")


class Layout(Section):
    """How the images lie, where that is not read from their folders or not to be."""

    # Folders of each part, as they lie in the imported folder; {} there are none; null reads them from their names.
    parts: dict[Literal["training", "validation", "test"], list[str]] | None = None
    depth: Annotated[int, Field(ge=0)] | None = (
        None  # folders between that of a part and those of the classes
    )
    similar_names: Literal["refuse", "keep"] = (
        "refuse"  # classes that differ in case, blanks or the coding of letters only
    )


class Validate(Section):
    layout: Layout = Layout()
    label_from: Literal["folder", "name"] = (
        "folder"  # name: cat.12.jpg is a cat, whatever folder it lies in
    )
    max_bytes: Count = 100_000_000
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 100_000_000  # Pillow refuses more
    expectations: Expectations = Expectations()
