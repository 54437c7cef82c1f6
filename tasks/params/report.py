"""The section `report` of `params.yaml`: texts and pictures of the report."""

from tasks.params.section import Section


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
