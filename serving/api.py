"""The REST server: image files in, classes out.

    python -m serving.api [--model champion] [--host 127.0.0.1] [--port 8000]        (make api)

Settings are environment variables (`serving/settings.py`). Uploads stay in memory: neither files
nor their names are written to disk or to a log. When the champion changes, the server follows and
drops no request.
"""

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import fastapi_offline
import numpy as np
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Security
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import APIKeyHeader
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from PIL import Image

from serving import explain as heatmaps
from serving import schemas, server, settings, upload
from serving.batching import Batcher
from serving.current import Current, Model, open_current
from serving.schemas import Answers, ModelCard, Refusal, State, Unanswered
from serving.settings import Settings
from serving.upload import Lease, Room
from tasks.errors import exit_with_message
from tasks.inference.predictor import Predictor
from tasks.tracking.servers import hold_port

SIDE = 768  # pixels of the longer side of a heat map, at most
UNUSABLE = "expected images that can be decoded, received: "
FILE = {"type": "string", "format": "binary"}
DOCS_PAGE = Path(__file__).parent / "docs_page"
SWAGGER_UI = Path(fastapi_offline.__file__).parent / "static"
POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:"
)
REFUSALS = {
    400: "The body is not a complete form",
    401: "The API key is missing or wrong",
    408: "The upload took too long",
    413: "One file, the number of files, or the whole request is too large",
    415: f"The body is not {upload.FORM}",
    422: "No file of the request can be used",
    503: "Too many images are waiting: try again after `Retry-After` seconds",
    504: "The answer took too long",
}
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Unanswered if status == 422 else Refusal, "description": text}
    for status, text in REFUSALS.items()
}
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": FILE}}, "description": "The image with its heat map"}
}

Result = TypeVar("Result")

public, protected = APIRouter(tags=["Server"]), APIRouter(tags=["Predictions"])


@dataclass(frozen=True)
class Service:
    """The objects that the routes use."""

    settings: Settings
    current: Current
    batcher: Batcher
    room: Room


def get_service(request: Request) -> Service:
    """Return the service of the application."""
    return request.app.state.service


Served = Annotated[Service, Depends(get_service)]
Key = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))]


def check_key(service: Served, key: Key) -> None:
    """Raise `HTTPException` 401 unless the key is right. The time that it takes reveals nothing."""
    expected = service.settings.key
    if expected is None:
        return
    given = (key or "").encode("latin-1")
    if not secrets.compare_digest(given, expected.get_secret_value().encode()):
        received = "none" if key is None else "another one"
        detail = f"expected the server's API key in the header X-API-Key, received {received}"
        raise HTTPException(401, detail, {"WWW-Authenticate": "X-API-Key"})


def describe_form(**properties: Any) -> dict[str, Any]:
    """Describe a form of files for OpenAPI: FastAPI does not parse it, `serving/upload.py` does."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"requestBody": {"required": True, "content": {upload.FORM: {"schema": schema}}}}


@protected.post(
    "/predict",
    response_model=Answers,
    responses=REFUSED,
    openapi_extra=describe_form(files={"type": "array", "items": FILE, "minItems": 1}),
)
async def predict(request: Request, service: Served) -> Answers | JSONResponse:
    """Classify one or many image files.

    A file that cannot be used has an `error`. The status is 422 if no file can be used.
    """
    with Lease(service.room) as lease:
        files = await upload.read_files(request, service.settings, lease)
        predictor = service.current.model.predictor
        batcher = service.batcher
        work = asyncio.gather(*(batcher.predict(predictor, file.content) for file in files))
        given = await answer_in_time(service, work)
    answers = schemas.make_answers([file.name for file in files], given, predictor)
    errors = sorted({answer.error for answer in given if answer.error})
    if all(answer.error for answer in given):
        detail = f"{UNUSABLE}{'; '.join(errors)}"
        return JSONResponse(Unanswered(detail=detail, answers=answers.answers).model_dump(), 422)
    return answers


@protected.post(
    "/explain",
    response_class=Response,
    responses=PICTURE | REFUSED,
    openapi_extra=describe_form(file=FILE),
)
async def explain(
    request: Request,
    service: Served,
    label: Annotated[
        str | None, Query(alias="class", description="default: the predicted class")
    ] = None,
) -> Response:
    """Draw the evidence for a class over one image (Grad-CAM).

    The headers `X-Class` and `X-Model` name the class and the model, percent-encoded.
    """
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
                422, f"expected one file, received {len(files)}: send one file in each request"
            )
        work = draw_evidence(service.batcher, model, files[0].content, label)
        shown, picture = await answer_in_time(service, work)
    headers = {"X-Class": quote(shown), "X-Model": quote(model.predictor.name)}
    return Response(picture, media_type="image/png", headers=headers)


@protected.get("/model", responses={401: REFUSED[401]})
async def model_card(service: Served) -> ModelCard:
    """Describe the model that answers: version, classes, hash, thresholds and scores."""
    return schemas.make_model_card(service.current)


@public.get("/health")
async def health() -> State:
    """Say that the server runs."""
    return State(status="alive")


@public.get("/ready", responses={503: REFUSED[503]})
async def ready(service: Served) -> State:
    """Say whether the server would accept a request now."""
    Lease(service.room).check()
    return State(status="ready")


@public.get("/", include_in_schema=False)
@public.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Show the routes in Swagger UI, where each can be tried out."""
    page = (DOCS_PAGE / "index.html").read_text()
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


def create_app(chosen: Settings, current: Current) -> FastAPI:
    """Return the server of a loaded model, which follows the registry while it runs."""
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
        description="Image files in, classes out. Research software: no output is a diagnosis.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.mount("/docs-files", StaticFiles(directory=SWAGGER_UI))
    app.mount("/docs-page", StaticFiles(directory=DOCS_PAGE))
    app.include_router(protected, dependencies=[Depends(check_key)] if chosen.key else [])
    app.include_router(public)
    app.add_middleware(upload.DrainUpload)
    app.add_exception_handler(Exception, answer_failure)
    return app


async def answer_in_time(service: Service, work: Awaitable[Result]) -> Result:
    """Await an answer. After the time limit, cancel it and raise `HTTPException` 504."""
    seconds = service.settings.answer_seconds
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise HTTPException(
            504, f"no answer after {seconds:g} seconds: send fewer files at a time, or send later"
        ) from None


async def draw_evidence(
    batcher: Batcher, model: Model, content: bytes, label: str | None
) -> tuple[str, bytes]:
    """Return a class, by default the predicted one, and a PNG of the evidence for it.

    Raises `HTTPException` 422 if the file cannot be used, or the model has no heat maps.
    """
    predictor = model.predictor
    decoded = await batcher.run_in_decoder(predictor.decode, content)
    if decoded.pixels is None:
        raise HTTPException(422, f"{UNUSABLE}{decoded.error}")
    if label is None:
        label = str((await batcher.predict_decoded(predictor, decoded)).predicted)
    heat = await batcher.run_on_model(model.find_heat, decoded.pixels, label)
    if heat is None:
        raise HTTPException(422, f"this model has no heat maps: {model.no_heat_map}")
    return label, await batcher.run_in_decoder(encode_heat, predictor, content, heat)


def encode_heat(predictor: Predictor, content: bytes, heat: NDArray[np.float32]) -> bytes:
    """Return an image under its heat map as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(heatmaps.overlay_heat(predictor, content, heat, SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Answer after an error of ours; the server's log has its traceback."""
    return JSONResponse({"detail": "the server failed at this request; its log says why"}, 500)


def main() -> None:
    """Serve until interrupted, and finish the accepted requests."""
    server.set_up_logging("%(asctime)s %(message)s")
    parser = server.make_parser(
        "python -m serving.api", "Classify image files by REST.", None, 8000
    )
    with exit_with_message():
        chosen = settings.read(os.environ, **vars(parser.parse_args()))
        held = hold_port(chosen.host, chosen.port, "choose another: --port 8001, or API_PORT")
        current = open_current(chosen.model, chosen.name, chosen.limits, chosen.poll_seconds)
    remedy = "API_KEY=… protects it with a key"
    server.announce(current.model.predictor.name, held, chosen.key is not None, remedy)
    config = uvicorn.Config(
        create_app(chosen, current),
        server_header=False,
        timeout_graceful_shutdown=int(chosen.upload_seconds + chosen.answer_seconds) + 5,
    )
    server.run(config, held)


if __name__ == "__main__":
    main()
