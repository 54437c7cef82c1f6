"""A web page for people: drop images, see the predicted classes and where the model looked.

`make web`, or `python -m serving.web --model 3 --port 8080`; then open http://127.0.0.1:7860. The
page loads nothing from other hosts and has no public link. Gradio draws the page, but files do not
use Gradio's upload: it writes them to disk and lets a request name any file of the machine. They
use `serving/upload.py`, stay in memory, and neither they nor their names reach a disk or a log.
"""

import asyncio
import html
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import gradio as gr
import uvicorn
from babel import negotiate_locale
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from serving import display, server
from serving.current import Current, open_current
from serving.settings import Settings
from serving.upload import DrainUpload, File, Lease, Room, read_files
from tasks.errors import exit_with_message
from tasks.params.whole import load_params
from tasks.reporting.language import ENGLISH, _, list_languages, speak
from tasks.tables import read_table
from tasks.tracking.servers import hold_port

SETTINGS = Settings(request_files=50)  # the limits are those of the REST server's defaults
EXAMPLES = 8  # two test images per class if that makes no more than this, otherwise one
CLEAN, SPLITS, REPORT = Path("data/clean"), Path("data/splits.csv"), Path("data/report/report.html")
# Routes with which Gradio accepts, serves and downloads files.
CLOSED = ("upload", "component_server", "file={path:path}", "proxy={path:path}")


def predict(current: Current, files: Sequence[File]) -> str:
    """Return predictions as HTML: one file in detail, several as a table."""
    model = current.get()
    predictor = model.predictor
    answers = predictor.predict([file.content for file in files])
    if len(files) > 1:
        return display.render_table(predictor, [file.name for file in files], answers)
    file, answer = files[0], answers[0]
    if answer.error:
        return display.render_refusal(file.name, display.describe_error(answer.error))
    pixels = predictor.decode(file.content).pixels
    heat = None if pixels is None else model.find_heat(pixels, str(answer.predicted))
    return display.render_answer(model, file.name, answer, predictor.picture(file.content), heat)


def choose_examples(splits_csv: Path, clean: Path) -> list[tuple[Path, str]]:
    """Return some test images of each class with their label, always the same ones."""
    if not splits_csv.exists() or not load_params().report.thumbnails:
        return []
    test = read_table(splits_csv).query("split == 'test'")
    rows = test.sort_values(["label", "sha256"]).drop_duplicates("group")
    each = 2 if 2 * rows.label.nunique() <= EXAMPLES else 1
    chosen = [
        (clean / row.path, row.label) for row in rows.groupby("label").head(each).itertuples()
    ]
    return [(file, label) for file, label in chosen if file.exists()]


def build_page(current: Current, examples: Sequence[tuple[Path, str]], language: str) -> gr.Blocks:
    """Return Gradio's page in a language. Its script uses the routes of `create_page`."""

    def show_card() -> str:
        with speak(language):
            return display.render_card(current.get().predictor, REPORT.exists())

    name_class = current.get().predictor.name_class
    named = [(file, name_class(label)) for file, label in examples]
    title = load_params().report.title
    hint = _(
        "Drop one image to see its classes and where the model looked, or several images for a "
        "table. No image is stored."
    )
    warning = _("This is research software: no answer is a diagnosis.")
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {html.escape(title)}\n{hint} **{warning}**")
        with gr.Tab(_("Predict")):
            gr.HTML(
                display.render_form(named, SETTINGS.request_files, language),
                js_on_load=(display.FOLDER / "page.js").read_text(),
                apply_default_css=False,
            )
        with gr.Tab(_("About the model")) as about:
            card = gr.HTML(apply_default_css=False)
        about.select(show_card, None, card, api_visibility="private")
    return page.queue(max_size=20)


def create_app(current: Current, examples: Sequence[tuple[Path, str]]) -> FastAPI:
    """Return the application. It has a page for each language, and the browser chooses one."""
    pages = {language: create_page(current, examples, language) for language in list_languages()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for page in pages.values():
                await stack.enter_async_context(page.router.lifespan_context(page))
            yield

    async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
        accepted = Headers(scope=scope).get("accept-language", "")
        await pages[choose_language(accepted, list(pages))](scope, receive, send)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.mount("/", pass_on)
    return app


def choose_language(accepted: str, known: Sequence[str]) -> str:
    """Return the best known language for an `Accept-Language` header, English by default."""
    weights = {}
    for part in accepted.split(","):
        tag, __, weight = part.partition(";q=")
        with suppress(ValueError):
            weights[tag.strip()] = float(weight or 1)
    wanted = sorted((tag for tag in weights if weights[tag] > 0), key=lambda tag: -weights[tag])
    return negotiate_locale(wanted, known, sep="-") or ENGLISH


def create_page(current: Current, examples: Sequence[tuple[Path, str]], language: str) -> FastAPI:
    """Return the page at /, predictions at /ask and the last report at /report, in a language."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(DrainUpload)
    add_prediction_routes(app, current, examples, language)
    with speak(language):
        page = build_page(current, examples, language)

    @app.get("/report")
    async def report() -> FileResponse:
        if not REPORT.exists():
            raise HTTPException(404, "there is no report yet: `make run` writes it")
        return FileResponse(REPORT)

    for path in CLOSED:
        app.add_api_route(f"/gradio_api/{path}", refuse_route, methods=["GET", "HEAD", "POST"])
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ),
        css_paths=display.FOLDER / "page.css",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        show_error=False,
    )


def add_prediction_routes(
    app: FastAPI, current: Current, examples: Sequence[tuple[Path, str]], language: str
) -> None:
    """Add /ask for uploads and /ask/<number> for examples. The model predicts one at a time."""
    room, turn = Room(SETTINGS.waiting_files, SETTINGS.waiting_bytes), asyncio.Lock()

    async def predict_in_turn(files: Sequence[File]) -> HTMLResponse:
        async with turn:
            with speak(language):  # the thread has it too
                return HTMLResponse(await asyncio.to_thread(predict, current, files))

    @app.post("/ask")
    async def ask(request: Request) -> HTMLResponse:
        with speak(language):
            try:
                with Lease(room) as lease:
                    return await predict_in_turn(await read_files(request, SETTINGS, lease))
            except HTTPException as error:
                shown = display.render_refusal(_("These files"), error.detail)
                return HTMLResponse(shown, error.status_code)

    @app.post("/ask/{number}")
    async def ask_example(number: int) -> HTMLResponse:
        if number >= len(examples):
            raise HTTPException(404)
        file, __ = examples[number]
        return await predict_in_turn([File(file.name, file.read_bytes())])


async def refuse_route() -> None:
    """Refuse a route of Gradio that this page does not use."""
    raise HTTPException(404)


def main() -> None:
    """Serve the page until interrupted."""
    server.set_up_logging("%(message)s")
    parser = server.make_parser(
        "python -m serving.web", "Serve a web page that classifies images.", "127.0.0.1", 7860
    )
    chosen = parser.parse_args()
    with exit_with_message():
        held = hold_port(chosen.host, chosen.port, f"choose another: --port {chosen.port + 1}")
        current = open_current(chosen.model, chosen.name, SETTINGS.limits)
        app = create_app(current, choose_examples(SPLITS, CLEAN))
    server.announce(current.model.predictor.name, held, False, "the page has no password")
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    server.run(config, held)


if __name__ == "__main__":
    main()
