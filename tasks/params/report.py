"""The section `report` of `params.yaml`: texts and pictures of the report."""

from pathlib import Path

from pydantic import field_validator

from tasks.params.section import Section

LOCALE = Path(__file__).parents[1] / "reporting" / "locale"  # one file for each other language


class Report(Section):
    """Texts and pictures of the report. The report names each text that is missing."""

    title: str = "Image classification"
    """Title of the report."""
    thumbnails: bool = True
    """`false` keeps all pictures of images out of the report and out of MLflow."""
    purpose: str | None = None
    """What the model is for."""
    images: str | None = None
    """Source and licence of the images."""
    weights: str | None = None
    """Licence of the pretrained weights, if any are used."""
    language: str = "en"
    """Language of the report: `en` or `fr`."""

    @field_validator("language")
    @classmethod
    def _has_texts(cls, language: str) -> str:
        languages = ["en", *sorted(file.stem for file in LOCALE.glob("*.po"))]
        if language not in languages:
            raise ValueError(f"expected one of {', '.join(languages)}")
        return language
