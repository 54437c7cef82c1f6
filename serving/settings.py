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

    model: str = versions.CHAMPION
    """Model to serve: an alias, a version, or a folder such as data/models/cnn_a."""
    name: str | None = None
    """Name of the registered model; without it, register.model of params.yaml."""
    poll_seconds: Seconds = 10
    """Seconds between two checks whether the alias names another version."""
    host: str = "127.0.0.1"
    """Address to listen at; the default can only be reached from this machine."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen at."""
    key: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Key that clients send in the header X-API-Key; without it, no key is needed."""

    file_bytes: Count = 25_000_000
    """Largest size of a file."""
    file_pixels: Count = 64_000_000
    """Largest number of pixels of a file; in colour, 64 million take 192 MB when decoded."""
    request_files: Count = 100
    """Most files in a request."""
    request_bytes: Count = 100_000_000
    """Largest size of a request."""
    upload_seconds: Seconds = 60
    """Longest time until a request is complete."""
    answer_seconds: Seconds = 60
    """Longest time from a complete request to its answer."""

    waiting_files: Count = 500
    """Most files in all accepted requests together; a request beyond it is refused for now."""
    waiting_bytes: Count = 500_000_000
    """Largest size of all accepted requests together."""
    batch: Count = 32
    """Most images in one call of the model; no image waits for others. 1 switches batches off."""

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
