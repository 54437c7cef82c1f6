"""What all schemas of `params.yaml` share: sections are closed and frozen, and numbers come in a few kinds."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Level = Literal["error", "warn", "off"]


class Section(BaseModel):
    """A closed, frozen part of `params.yaml`. The text below a field describes that key."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
