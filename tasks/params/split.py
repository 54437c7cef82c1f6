"""The section `split` of `params.yaml`: the shares of the parts, duplicates, and which images are of one patient."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.params.section import Section, Share


class NearCopies(Section):
    hash_distance: Annotated[int, Field(ge=0, le=64)] = (
        32  # differing bits of 240 that make two images worth a look
    )
    correlation: Annotated[float, Field(gt=0, le=1)] = (
        0.965  # of the fine structure of 64x64 thumbnails
    )


class Patients(Section):
    """Images of one patient stay together: a pattern with one group, or a CSV table in the image folder
    with the columns path and patient."""

    pattern: str | None = None
    table: str | None = None
    missing: Literal["refuse", "single"] = (
        "refuse"  # single: an image without a patient is a patient of its own
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Patients":
        if self.pattern is not None and self.table is not None:
            raise ValueError("give a pattern or a table, not both")
        return self


class Split(Section):
    seed: int = 42
    validation: Share = 0.15  # of the training images, where no validation folder is given
    test: Share = 0.15  # likewise, where no test folder is given
    copies: Literal["withhold", "withhold_identical", "keep"] = (
        "withhold"  # training images that copy a test or validation image
    )
    near_copies: NearCopies = NearCopies()
    patients: Patients = Patients()

    @model_validator(mode="after")
    def _some_training_left(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test together leave nothing to train on: expected less than 1"
            )
        return self
