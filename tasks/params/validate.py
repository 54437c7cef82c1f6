"""The section `validate` of `params.yaml`: how large files may be, and what their table is expected to fulfil."""

from typing import Annotated

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

    usable_share: Minimum = Minimum(minimum=0.8, level="error")  # files that are usable images, of all files
    classes: Minimum = Minimum(minimum=2, level="error")
    images_per_class: Minimum = Minimum(minimum=10, level="error")  # usable images
    imbalance: Maximum = Maximum(maximum=10, level="warn")  # largest class over smallest
    side: Minimum = Minimum(minimum=32, level="warn")  # pixels of the shorter side
    contrast: Minimum = Minimum(minimum=1, level="warn")  # standard deviation of the grey values, 0 to 255
    levels: Minimum = Minimum(minimum=32, level="warn")  # different grey values that an image uses, of 256
    distinct_share: Minimum = Minimum(minimum=0.95, level="warn")  # files whose content no other file has
    format_matches_name: Judgement = Judgement(level="warn")


class Validate(Section):
    max_bytes: Count = 100_000_000
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 100_000_000  # Pillow refuses more
    expectations: Expectations = Expectations()
