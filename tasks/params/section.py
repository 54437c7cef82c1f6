"""The base class of every schema of `params.yaml`, and the kinds of numbers that schemas share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Level = Literal["error", "warn", "off"]


class Section(BaseModel):
    """A frozen part of `params.yaml` that allows no unknown key.

    The text below a field describes that key. The reference page of the docs shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
