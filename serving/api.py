"""The REST server: image files in, classes out.

    python -m serving.api [--model champion] [--host 127.0.0.1] [--port 8000]        (make api)

Settings are environment variables (`serving/settings.py`). Uploads stay in memory, and their names in the answer: neither
is written to disk or into a log. When the champion changes, the server follows and drops no request.
"""

import argparse
import asyncio
import html
import io
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Security
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import APIKeyHeader
from PIL import Image

from serving import listen, schemas, settings, upload
from serving.batching import Batcher
from serving.current import Current, Model
from serving.schemas import Answers, ModelCard, Refusal, State, Unanswered
from serving.settings import Settings
from serving.upload import Lease, Room
from tasks import machine
from tasks.errors import exit_with_message
from tasks.inference import gradcam
from tasks.inference.predictor import Predictor
from tasks.tracking.servers import hold_port

SIDE = 768  # pixels of the longer side of an explained picture, at most
LOOPBACK = ("127.0.0.1", "localhost", "::1")
UNUSABLE = "expected images that can be decoded, received: "
FILE = {"type": "string", "format": "binary"}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no whole form"},
    401: {"model": Refusal, "description": "The API key is missing or wrong"},
    408: {"model": Refusal, "description": "The upload took too long"},
    413: {
        "model": Refusal,
        "description": "A file, the number of files, or all of them together are too large",
    },
    415: {"model": Refusal, "description": f"The body is not {upload.FORM}"},
    422: {"model": Unanswered, "description": "Nothing in the request can be answered"},
    503: {
        "model": Refusal,
        "description": "Too many images are waiting: try again after `Retry-After` seconds",
    },
    504: {"model": Refusal, "description": "The answer took too long"},
}

Result = TypeVar("Result")

log = logging.getLogger(__name__)
anyone, keyed = APIRouter(), APIRouter()


@dataclass(frozen=True)
class Service:
    """What the routes share."""

    settings: Settings
    current: Current
    batcher: Batcher
    room: Room


def service_of(request: Request) -> Service:
    """Return what `create_app` put there."""
    return request.app.state.service


Served = Annotated[Service, Depends(service_of)]
Key = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))]


def check_key(service: Served, key: Key) -> None:
    """Raises `HTTPException` 401 unless the key is right; how long it takes tells nothing of the key."""
    expected = service.settings.key.get_secret_value().encode()
    if not secrets.compare_digest((key or "").encode("latin-1"), expected):
        received = "none" if key is None else "another one"
        detail = f"expected the server's API key in the header X-API-Key, received {received}"
        raise HTTPException(401, detail, {"WWW-Authenticate": "X-API-Key"})


def form(**properties: Any) -> dict[str, Any]:
    """Describe a form of files for OpenAPI: `serving/upload.py` reads it, and not FastAPI."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"requestBody": {"required": True, "content": {upload.FORM: {"schema": schema}}}}


@keyed.post(
    "/predict",
    responses=REFUSED,
    openapi_extra=form(files={"type": "array", "items": FILE, "minItems": 1}),
)
async def predict(request: Request, service: Served) -> Answers:
    """Classify one or many image files. One that cannot be used gets an `error`; if that is all of them, the status is 422."""
    with Lease(service.room) as lease:
        files = await upload.read_files(request, service.settings, lease)
        predictor = service.current.model.predictor
        asked = asyncio.gather(*(service.batcher.answer(predictor, file.content) for file in files))
        given = await in_time(service, asked)
    answers = schemas.answers([file.name for file in files], given, predictor)
    if all(answer.error for answer in given):
        detail = f"{UNUSABLE}{'; '.join(sorted({answer.error for answer in given}))}"
        return JSONResponse(Unanswered(detail=detail, answers=answers.answers).model_dump(), 422)
    return answers


@keyed.post(
    "/explain",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {"schema": FILE}}, "description": "The picture, coloured"}
    }
    | REFUSED,
    openapi_extra=form(file=FILE),
)
async def explain(
    request: Request,
    service: Served,
    label: Annotated[
        str | None, Query(alias="class", description="by default the class that is predicted")
    ] = None,
) -> Response:
    """Colour what speaks for a class in one image (Grad-CAM). The headers `X-Class` and `X-Model`, percent-encoded, say which."""
    model = service.current.model
    if label is not None and label not in model.predictor.classes:
        known = ", ".join(model.predictor.classes[:20])
        raise HTTPException(
            422, f"expected a class of the model, such as {known}; received {label[:100]!r}"
        )
    with Lease(service.room) as lease:
        files = await upload.read_files(request, service.settings, lease)
        if len(files) > 1:
            raise HTTPException(
                422, f"expected one file, received {len(files)}: send each in a request of its own"
            )
        label, picture = await in_time(
            service, explained(service.batcher, model, files[0].content, label)
        )
    headers = {"X-Class": quote(label), "X-Model": quote(model.predictor.name)}
    return Response(picture, media_type="image/png", headers=headers)


@keyed.get("/model", responses={401: REFUSED[401]})
async def model_card(service: Served) -> ModelCard:
    """Say which version answers, its classes, hashes, thresholds and scores."""
    return schemas.model_card(service.current)


@anyone.get("/health")
async def health() -> State:
    """Say that the server runs."""
    return State(status="alive")


@anyone.get("/ready", responses={503: REFUSED[503]})
async def ready(service: Served) -> State:
    """Say whether a request would be taken now. A server without a model does not start."""
    Lease(service.room).check()
    return State(status="ready")


@anyone.get("/", include_in_schema=False)
@anyone.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Show the routes, without the scripts that FastAPI's own page loads from elsewhere."""
    schema = request.app.openapi()
    rows = [
        f"<h2>{verb.upper()} {path}</h2><p>{html.escape(route['description'])}</p><ul>"
        + "".join(
            f"<li>{status}: {html.escape(answer['description'])}</li>"
            for status, answer in route["responses"].items()
        )
        + "</ul>"
        for path, verbs in schema["paths"].items()
        for verb, route in verbs.items()
    ]
    curl = f'curl -F "files=@scan.jpg" {request.base_url}predict'
    page = (
        f"<!doctype html><title>{schema['info']['title']}</title><h1>{schema['info']['title']}</h1>"
        f"<p>{schema['info']['description']}</p><pre>{html.escape(curl)}</pre>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p>{"".join(rows)}'
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'"})


def create_app(chosen: Settings, current: Current) -> FastAPI:
    """Return the server of a model that is loaded; it follows the registry while it runs."""
    service = Service(
        chosen, current, Batcher(chosen.batch), Room(chosen.waiting_files, chosen.waiting_bytes)
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [
            asyncio.create_task(service.batcher.run()),
            asyncio.create_task(current.follow()),
        ]
        yield  # until the last request has its answer
        for task in running:
            task.cancel()

    app = FastAPI(
        title="Image classification",
        description="Image files in, classes out. This is research software: no output is a diagnosis.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(anyone)
    app.include_router(keyed, dependencies=[Depends(check_key)] if chosen.key else [])
    app.add_middleware(upload.Late)
    app.add_exception_handler(Exception, failed)
    return app


async def in_time(service: Service, work: Awaitable[Result]) -> Result:
    """Await an answer. Raises `HTTPException` 504 where it takes too long, and takes what still waits out of the queue."""
    seconds = service.settings.answer_seconds
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise HTTPException(
            504, f"no answer after {seconds:g} seconds: send fewer files at a time, or later"
        ) from None


async def explained(
    batcher: Batcher, model: Model, content: bytes, label: str | None
) -> tuple[str, bytes]:
    """Return the class and the coloured picture. Raises `HTTPException` 422 where there is none."""
    decoded = await batcher.decode(model.predictor.decode, content)
    if decoded.pixels is None:
        raise HTTPException(422, f"{UNUSABLE}{decoded.error}")
    if label is None:
        label = (await batcher.ask(model.predictor, decoded)).predicted
    heat = await batcher.between(model.heat, decoded.pixels, label)
    if isinstance(heat, str):
        raise HTTPException(422, f"this model has no heat maps: {heat}")
    return label, await batcher.decode(coloured, content, heat, model.predictor)


def coloured(content: bytes, heat: np.ndarray, predictor: Predictor) -> bytes:
    """Return the picture as the model sees it under its heat map (float32, 0 to 1) as a PNG file."""
    picture = predictor.picture(content).convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    Image.fromarray(gradcam.overlay(np.asarray(picture), heat)).save(buffer, "PNG")
    return buffer.getvalue()


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Answer a fault of ours; the server's log has its traceback."""
    return JSONResponse({"detail": "the server failed at this request; its log says why"}, 500)


def main() -> None:
    """Serve until interrupted, and finish what was accepted; a user's mistake ends in one message."""
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(message)s")
    for library in ("mlflow", "alembic", "absl", "h5py"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(
        logging.ERROR
    )  # it warns of what clients send; they are told
    machine.report_ignored(log.info)
    with exit_with_message():
        chosen = settings.read(os.environ, **vars(parse()))
        held = hold_port(chosen.host, chosen.port, "take another: --port 8001, or API_PORT")
        current = Current(chosen.model, chosen.name, chosen.limits, chosen.poll_seconds)
    address = f"http://{chosen.host}:{held.getsockname()[1]}"
    log.info("%s answers on %s (settings: %s)", current.model.predictor.name, address, chosen)
    if chosen.host not in LOOPBACK and chosen.key is None:
        log.warning("warn: whoever reaches %s may ask: API_KEY=… asks them for a key", chosen.host)
    patience = int(chosen.upload_seconds + chosen.answer_seconds) + 5
    listen.run(
        create_app(chosen, current), held, server_header=False, timeout_graceful_shutdown=patience
    )


def parse() -> argparse.Namespace:
    """Read the command line; what it leaves out is as the environment says."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.api", description="Answer image files over HTTP."
    )
    parser.add_argument(
        "--model",
        help="champion (default), another alias, a version, or a folder such as data/models/cnn_a",
    )
    parser.add_argument(
        "--name", help="of the registered model; default: register.model of params.yaml"
    )
    parser.add_argument("--host", help="default: 127.0.0.1, which this machine alone reaches")
    parser.add_argument("--port", type=int, help="default: 8000")
    return parser.parse_args()


if __name__ == "__main__":
    main()
