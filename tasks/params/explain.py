"""The section `explain` of `params.yaml`: how many images are explained."""

from typing import Annotated

from pydantic import Field

from tasks.params.section import Section


class Explain(Section):
    """How many validation and test images of each class are explained, the surest answers first."""

    right: Annotated[int, Field(ge=0)] = 2
    wrong: Annotated[int, Field(ge=0)] = 2
