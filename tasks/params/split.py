"""The section `split` of `params.yaml`: split sizes, duplicates and patients."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.params.section import Section, Share


class NearCopies(Section):
    """When two images count as near copies of each other."""

    hash_distance: Annotated[int, Field(ge=0, le=64)] = 32
    """Two images are compared closely if their 240-bit hashes differ in at most this many bits."""
    correlation: Annotated[float, Field(gt=0, le=1)] = 0.965
    """They are near copies if the fine structure of 64x64 thumbnails correlates this much."""


class Patients(Section):
    """How the patient of an image is found. Images of one patient stay in one split."""

    pattern: str | None = None
    """Regular expression with one group that finds the patient in the image's path."""
    table: str | None = None
    """CSV file in the image folder with the columns `path` and `patient`."""
    missing: Literal["refuse", "single"] = "refuse"
    """For an image without a patient: `refuse` stops, `single` gives it a patient of its own."""

    @model_validator(mode="after")
    def _check_one_source(self) -> "Patients":
        if self.pattern is not None and self.table is not None:
            raise ValueError("give a pattern or a table, not both")
        return self


class Split(Section):
    """How images are divided into training, validation and test."""

    seed: int = 42
    """Seed of the hash that assigns images; another seed gives another split."""
    validation: Share = 0.15
    """Share of the training images used for validation if there is no validation folder."""
    test: Share = 0.15
    """Share of the training images used as test images if there is no test folder."""
    copies: Literal["withhold", "withhold_identical", "keep"] = "withhold"
    """Whether training images that copy a validation or test image are withheld from training."""
    near_copies: NearCopies = NearCopies()
    """When two images count as near copies of each other."""
    patients: Patients = Patients()
    """How the patient of an image is found; without pattern and table, patients are ignored."""

    @model_validator(mode="after")
    def _check_some_training_left(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test together leave nothing to train on: expected less than 1"
            )
        return self
