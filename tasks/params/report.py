"""The section `report` of `params.yaml`: what the report says beyond the results."""

from tasks.params.section import Section


class Report(Section):
    """What the report says beyond the results; texts that are left out are said to be missing."""

    title: str = "Image classification"
    thumbnails: bool = True  # false: no picture of an image is in the report or in MLflow
    purpose: str | None = None  # of the model
    images: str | None = None  # where they are from, and their licence
    weights: str | None = None  # the licence of pretrained weights
