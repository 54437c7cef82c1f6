"""The section `explain` of `params.yaml`: how many images get a heat map."""

from typing import Annotated

from pydantic import Field

from tasks.params.section import Section


class Explain(Section):
    """How many validation and test images of each class get a heat map, most confident first."""

    right: Annotated[int, Field(ge=0)] = 2
    """Correctly predicted images of each class."""
    wrong: Annotated[int, Field(ge=0)] = 2
    """Wrongly predicted images of each class."""
