"""Settings of the REST server. Each is an environment variable, such as `API_PORT`."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.registry import versions

PREFIX = "API_"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """The model, its address and key, and the limits of a request and of all requests together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = versions.CHAMPION  # see tasks/registry/load.py
    name: str | None = None  # the registered model; None: register.model of params.yaml
    poll_seconds: Seconds = 10  # between two checks of the alias
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    # Expected in the header X-API-Key; None: no key is needed.
    key: Annotated[SecretStr, Field(min_length=1)] | None = None

    file_bytes: Count = 25_000_000
    file_pixels: Count = 64_000_000  # 192 MB when decoded in colour, in each of a few threads
    request_files: Count = 100
    request_bytes: Count = 100_000_000
    upload_seconds: Seconds = 60  # until a request is complete
    answer_seconds: Seconds = 60  # from the complete request to its answer

    # Limits of all accepted requests together; a request beyond these limits is refused for now.
    waiting_files: Count = 500
    waiting_bytes: Count = 500_000_000
    batch: Count = 32  # images in one call of the model; 1: no batching

    @model_validator(mode="after")
    def _a_request_fits(self) -> "Settings":
        for one, all_ in (("request_files", "waiting_files"), ("request_bytes", "waiting_bytes")):
            if getattr(self, one) > getattr(self, all_):
                raise UserError(
                    f"{PREFIX}{one.upper()} is larger than {PREFIX}{all_.upper()}: "
                    "the largest request would never be accepted"
                )
        return self

    @property
    def limits(self) -> Limits:
        """The limits of one file."""
        return Limits(max_bytes=self.file_bytes, max_pixels=self.file_pixels)


def read(environment: Mapping[str, str], **given: object) -> Settings:
    """Return the settings of an environment; a `given` value that is not None comes first.

    Raises `UserError` that names the wrong variables.
    """
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
        raise UserError("\n".join(map(_describe, error.errors()))) from error


def _describe(detail: Mapping[str, Any]) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    return f"{PREFIX}{detail['loc'][0].upper()}: {detail['msg']}, received {detail['input']!r}"
