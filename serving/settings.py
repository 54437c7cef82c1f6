"""How the REST server is set, from environment variables: `API_PORT`, `API_KEY`, `API_FILE_BYTES`, one for each field."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.registry import versions

PREFIX = "API_"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Which model answers, where, to whom, and what one request and all of them together may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = versions.CHAMPION  # as `tasks/registry/load.py` takes it
    name: str | None = None  # of the registered model; None: what params.yaml says
    poll_seconds: Seconds = 10  # between two looks whether the alias has moved
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    key: Annotated[SecretStr, Field(min_length=1)] | None = (
        None  # what X-API-Key has to hold; None: nobody is asked
    )

    file_bytes: Count = 25_000_000
    file_pixels: Count = 64_000_000  # decoded in colour these are 192 MB, in each of a few threads
    request_files: Count = 100
    request_bytes: Count = 100_000_000
    upload_seconds: Seconds = 60  # until a request is whole
    answer_seconds: Seconds = 60  # from there to its answer

    waiting_files: Count = 500  # of all requests in hand; who comes with more is sent away
    waiting_bytes: Count = 500_000_000
    batch: Count = 32  # images in one call of the model; 1: no batching

    @model_validator(mode="after")
    def _a_request_fits(self) -> "Settings":
        for one, all_ in (("request_files", "waiting_files"), ("request_bytes", "waiting_bytes")):
            if getattr(self, one) > getattr(self, all_):
                raise UserError(
                    f"{PREFIX}{one.upper()} is larger than {PREFIX}{all_.upper()}: such a request would never be taken"
                )
        return self

    @property
    def limits(self) -> Limits:
        """What one file may cost."""
        return Limits(max_bytes=self.file_bytes, max_pixels=self.file_pixels)


def read(environment: Mapping[str, str], **given: object) -> Settings:
    """Return the settings of an environment, `given` ones going before. Raises `UserError` that names the variables."""
    values = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if PREFIX + name.upper() in environment
    }
    try:
        return Settings.model_validate(
            values | {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        raise UserError("\n".join(map(_explain, error.errors()))) from error


def _explain(detail: Mapping) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    return f"{PREFIX}{detail['loc'][0].upper()}: {detail['msg']}, received {detail['input']!r}"
