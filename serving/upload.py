"""Files of a multipart form, read in memory while they arrive.

A form over a limit is refused as soon as it goes over it, and nothing is written to disk: Starlette's own parser puts
files over 1 MB into temporary files, and has no limit on the bytes of one. What all requests in hand hold together is
bounded too (`Room`). Every refusal is an `HTTPException` in words for the user; names of files appear in none, for they
may be those of patients.
"""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.settings import Settings

RETRY_AFTER = {"Retry-After": "1"}  # seconds
LATE_SECONDS = 2.0
FORM = "multipart/form-data"


@dataclass(frozen=True)
class File:
    name: str  # as sent
    content: bytes


class Room:
    """How many files, and bytes of them, the requests in hand may still bring."""

    def __init__(self, files: int, size: int) -> None:
        self.files, self.size = files, size


class Lease:
    """What one request takes of a `Room`, given back when it is done."""

    def __init__(self, room: Room) -> None:
        self.room, self.files, self.size = room, 0, 0

    def check(self, files: int = 1, size: int = 1) -> None:
        """Raises `HTTPException` 503 where there is not that much room."""
        if files > self.room.files or size > self.room.size:
            raise HTTPException(
                503,
                "too many images are waiting already: send this request again in a second",
                RETRY_AFTER,
            )

    def take(self, files: int = 0, size: int = 0) -> None:
        """Raises `HTTPException` 503 as `check` does."""
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
    """The callbacks of the parser, which collect the files and refuse what goes over a limit."""

    settings: Settings
    lease: Lease
    files: list[File] = field(default_factory=list)
    whole: bool = False
    received: int = 0
    _header: tuple[bytes, bytes] = (b"", b"")
    _disposition: bytes = b""
    _name: str = ""
    _content: list[bytes] = field(default_factory=list)
    _size: int = 0

    def receive(self, size: int) -> None:
        """Count bytes of the body before they are looked at."""
        self.received += size
        if self.received > self.settings.request_bytes:
            raise too_large(self.settings)
        self.lease.take(size=size)

    def on_part_begin(self) -> None:
        if len(self.files) == self.settings.request_files:
            raise HTTPException(413, f"expected at most {self.settings.request_files} files in one request, received more: send "
                                     "them in several requests")  # fmt: skip
        self.lease.take(files=1)
        self._disposition, self._content, self._size = b"", [], 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = (b"", b"")

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            raise HTTPException(422, "expected files alone in the form, received a field without a file name: curl sends a file as "
                                     '-F "files=@scan.jpg"')  # fmt: skip
        self._name = options[b"filename"].decode("utf-8", "replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self.settings.file_bytes:
            raise HTTPException(413, f"expected files of at most {self.settings.file_bytes:,} bytes, received a larger one (file "
                                     f"{len(self.files) + 1} of the form): send it smaller")  # fmt: skip
        self._content.append(data[start:end])

    def on_part_end(self) -> None:
        self.files.append(File(self._name, b"".join(self._content)))

    def on_end(self) -> None:
        self.whole = True


async def read_files(request: Request, settings: Settings, lease: Lease) -> list[File]:
    """Return the files of a form, at least one, in their order. Raises `HTTPException` 400, 408, 413, 415, 422 or 503."""
    boundary = _boundary(request.headers.get("content-type", ""))
    if (
        int(request.headers.get("content-length", 0)) > settings.request_bytes
    ):  # the server took care that it is a number
        raise too_large(settings)
    lease.check()
    form = Form(settings, lease)
    try:
        parser = MultipartParser(
            boundary, {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
        )
        async with asyncio.timeout(settings.upload_seconds):
            async for chunk in request.stream():
                form.receive(len(chunk))
                parser.write(chunk)
    except TimeoutError:
        raise HTTPException(408, f"the request was not whole after {settings.upload_seconds:g} seconds: send it again, or fewer "
                                 "files at a time") from None  # fmt: skip
    except FormParserError as error:
        raise HTTPException(
            400, f"the body is no {FORM} as its header announces: {error}"
        ) from error
    except ClientDisconnect:
        raise HTTPException(
            400, "the connection was closed before the request was whole"
        ) from None  # nobody will read it
    if not form.whole:
        raise HTTPException(400, "the form ends before its last boundary: send it again")
    if not form.files:
        raise HTTPException(
            422,
            'expected at least one file in the form, received none: curl sends one as -F "files=@scan.jpg"',
        )
    return form.files


def too_large(settings: Settings) -> HTTPException:
    return HTTPException(413, f"expected a request of at most {settings.request_bytes:,} bytes, received a larger one: send the "
                              "files in several requests")  # fmt: skip


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != FORM.encode():
        received = content_type[:100] or "none"
        raise HTTPException(
            415,
            f'expected the content type {FORM}, received {received}: curl sends it with -F "files=@scan.jpg"',
        )
    if not options.get(b"boundary"):
        raise HTTPException(
            400,
            f"the content type {FORM} names no boundary: let your HTTP library write that header",
        )
    return options[b"boundary"]


class Late:
    """Takes in, for two seconds at most, what a client still sends when its answer is there already, as that it sends too much.

    Clients read no answer while they send, and a connection that is closed on them takes the answer with it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        whole = (b"expect", b"100-continue") in scope[
            "headers"
        ]  # such a client waits for the answer: ask it for nothing

        async def receive_noting() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def send_when_whole(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                try:
                    async with asyncio.timeout(LATE_SECONDS):
                        while not whole:
                            await receive_noting()
                except TimeoutError:
                    message = {
                        **message,
                        "headers": [*message["headers"], (b"connection", b"close")],
                    }
            await send(message)

        await self.app(scope, receive_noting, send_when_whole)
