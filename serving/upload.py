"""Read the files of a multipart form in memory while they arrive.

A form is refused as soon as it exceeds a limit, and nothing is written to disk. Starlette's own
parser writes files over 1 MB to temporary files and does not limit their size. `Room` limits all
accepted requests together. Each refusal is an `HTTPException` with a message for the user. No
message has the name of a file: it may be the name of a patient.
"""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.settings import Settings
from tasks.reporting.language import _

if TYPE_CHECKING:  # the library defines the type for checkers only
    from python_multipart.multipart import MultipartCallbacks

RETRY_AFTER = {"Retry-After": "1"}  # seconds
DRAIN_SECONDS = 2.0
FORM = "multipart/form-data"
CURL = 'curl sends a file with -F "files=@scan.jpg"'


@dataclass(frozen=True)
class File:
    """An uploaded file, with its name in the form."""

    name: str
    content: bytes


class Room:
    """The files and bytes that the server can still accept."""

    def __init__(self, files: int, size: int) -> None:
        self.files, self.size = files, size


class Lease:
    """The part of a `Room` that one request takes and returns when it is done."""

    def __init__(self, room: Room) -> None:
        self.room, self.files, self.size = room, 0, 0

    def check(self, files: int = 1, size: int = 1) -> None:
        """Raise `HTTPException` 503 if the room is too small."""
        if files > self.room.files or size > self.room.size:
            raise HTTPException(
                503,
                _("too many images are waiting: send this request again in a second"),
                RETRY_AFTER,
            )

    def take(self, files: int = 0, size: int = 0) -> None:
        """Take some of the room. Raises `HTTPException` 503 if it is too small."""
        self.check(files, size)
        self.room.files, self.room.size = self.room.files - files, self.room.size - size
        self.files, self.size = self.files + files, self.size + size

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.room.files, self.room.size = self.room.files + self.files, self.room.size + self.size


@dataclass
class Form:
    """Collect the files of a form, and refuse what exceeds a limit: the parser's callbacks."""

    settings: Settings
    lease: Lease
    files: list[File] = field(default_factory=list)
    complete: bool = False
    received: int = 0
    _header: tuple[bytes, bytes] = (b"", b"")
    _disposition: bytes = b""
    _name: str = ""
    _content: list[bytes] = field(default_factory=list)
    _size: int = 0

    @property
    def callbacks(self) -> "MultipartCallbacks":
        """The methods that the parser calls."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._read_header_name,
            "on_header_value": self._read_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._read_file_name,
            "on_part_data": self._read_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def receive(self, size: int) -> None:
        """Count bytes of the body before they are parsed."""
        self.received += size
        if self.received > self.settings.request_bytes:
            raise refuse_size(self.settings)
        self.lease.take(size=size)

    def _begin_part(self) -> None:
        if len(self.files) == self.settings.request_files:
            raise HTTPException(
                413,
                _(
                    "expected at most {files} files in one request, received more: send them in "
                    "several requests"
                ).format(files=self.settings.request_files),
            )
        self.lease.take(files=1)
        self._disposition, self._content, self._size = b"", [], 0

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = (b"", b"")

    def _read_file_name(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"filename" not in options:
            raise HTTPException(
                422,
                "expected only files in the form, received a field without a file name: " + CURL,
            )
        self._name = options[b"filename"].decode("utf-8", "replace")

    def _read_content(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self.settings.file_bytes:
            raise HTTPException(
                413,
                _(
                    "expected files of at most {size} bytes, received a larger one (file "
                    "{number} of the form): send a smaller one"
                ).format(size=f"{self.settings.file_bytes:,}", number=len(self.files) + 1),
            )
        self._content.append(data[start:end])

    def _end_part(self) -> None:
        self.files.append(File(self._name, b"".join(self._content)))

    def _end(self) -> None:
        self.complete = True


async def read_files(request: Request, settings: Settings, lease: Lease) -> list[File]:
    """Return the files of a form, at least one, in their order.

    Raises `HTTPException` 400, 408, 413, 415, 422 or 503.
    """
    boundary = _read_boundary(request.headers.get("content-type", ""))
    # The server has already checked that the length is a number.
    if int(request.headers.get("content-length", 0)) > settings.request_bytes:
        raise refuse_size(settings)
    lease.check()
    form = Form(settings, lease)
    await _parse(request, form, MultipartParser(boundary, form.callbacks))
    if not form.complete:
        raise HTTPException(400, "the form ends before its last boundary: send it again")
    if not form.files:
        raise HTTPException(422, "expected at least one file in the form, received none: " + CURL)
    return form.files


async def _parse(request: Request, form: Form, parser: MultipartParser) -> None:
    seconds = form.settings.upload_seconds
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                form.receive(len(chunk))
                parser.write(chunk)
    except TimeoutError:
        raise HTTPException(
            408,
            _(
                "the request was not complete after {seconds:g} seconds: send it again, or fewer "
                "files at a time"
            ).format(seconds=seconds),
        ) from None
    except FormParserError as error:
        raise HTTPException(
            400, f"the body is not the {FORM} that its header announces: {error}"
        ) from error
    except ClientDisconnect:  # nobody reads this answer
        raise HTTPException(
            400, "the connection was closed before the request was complete"
        ) from None


def refuse_size(settings: Settings) -> HTTPException:
    """Return the refusal of a request that is too large."""
    return HTTPException(
        413,
        _(
            "expected a request of at most {size} bytes, received a larger one: send the files "
            "in several requests"
        ).format(size=f"{settings.request_bytes:,}"),
    )


def _read_boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != FORM.encode():
        received = content_type[:100] or "none"
        raise HTTPException(415, f"expected the content type {FORM}, received {received}: {CURL}")
    if not options.get(b"boundary"):
        raise HTTPException(
            400,
            f"the content type {FORM} names no boundary: let your HTTP library write that header",
        )
    return options[b"boundary"]


class DrainUpload:
    """Drain a refused upload for two seconds, so that the client reads the answer.

    Clients do not read while they send. If the connection is closed meanwhile, the answer is lost.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and drain the rest of its body before the answer is sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # A client that expects 100-continue waits for the answer and sends nothing before.
        complete = (b"expect", b"100-continue") in scope["headers"]

        async def receive_noting() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def send_when_complete(message: Message) -> None:
            if message["type"] == "http.response.start" and not complete:
                try:
                    async with asyncio.timeout(DRAIN_SECONDS):
                        while not complete:
                            await receive_noting()
                except TimeoutError:
                    headers = [*message["headers"], (b"connection", b"close")]
                    message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive_noting, send_when_complete)
