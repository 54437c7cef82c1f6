"""A page for people: drop pictures, see the classes, where the model looked, and when not to believe it.

`make web`, or `python -m serving.web --model 3 --port 8080`; then http://127.0.0.1:7860. The page loads nothing from elsewhere
and has no public link. Gradio lays it out; files do not go through its upload, which writes them to disk and, in a mounted
page, lets a request name any file of the machine, but through `serving/upload.py`: they stay in memory until they are
answered, and neither their names nor their content is written to disk or into a log.
"""

import argparse
import asyncio
import html
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse

from serving import display, listen
from serving.current import Current
from serving.settings import Settings
from serving.upload import File, Late, Lease, Room, read_files
from tasks import machine
from tasks.errors import exit_with_message
from tasks.params.whole import load_params
from tasks.tables import read_table
from tasks.tracking.servers import hold_port

SETTINGS = Settings(request_files=50)  # what one question, and all that wait, may bring
EXAMPLES = 8  # of all classes, where they are not more than that
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CLEAN, SPLITS, REPORT = Path("data/clean"), Path("data/splits.csv"), Path("data/report/report.html")
CLOSED = (
    "upload",
    "component_server",
    "file={path:path}",
    "proxy={path:path}",
)  # what Gradio would take, serve and fetch
HINT = (
    "Drop one image to see its classes and where the model looked, or several for a table. None of them is kept. "
    "**This is research software: no answer is a diagnosis.**"
)

log = logging.getLogger(__name__)


def answer(current: Current, files: Sequence[File]) -> str:
    """Return what the model says of image files, as HTML: of one in full, of several as a table."""
    model = current.get()
    said = model.predictor.predict([file.content for file in files])
    if len(files) > 1:
        return display.many(model.predictor, [file.name for file in files], said)
    file = files[0]
    if said[0].error:
        return display.refusal(file.name, display.reason(said[0].error))
    heat = model.heat(model.predictor.decode(file.content).pixels, said[0].predicted)
    picture = model.predictor.picture(file.content)
    return display.one(model.predictor, file.name, said[0], picture, heat)


def examples(splits_csv: Path, clean: Path) -> list[tuple[Path, str]]:
    """Return test images and the class of their folder: two of each class, or one where there are many; always the same."""
    if not splits_csv.exists() or not load_params().report.thumbnails:
        return []
    rows = (
        read_table(splits_csv)
        .query("split == 'test'")
        .sort_values(["label", "sha256"])
        .drop_duplicates("group")
    )
    each = 2 if 2 * rows.label.nunique() <= EXAMPLES else 1
    chosen = [
        (clean / row.path, row.label) for row in rows.groupby("label").head(each).itertuples()
    ]
    return [(file, label) for file, label in chosen if file.exists()]


def layout(current: Current, shown: Sequence[tuple[Path, str]]) -> gr.Blocks:
    """Return what the browser shows; it asks by the routes of `serve`."""

    def tell() -> str:
        return display.card(current.get().predictor, REPORT.exists())

    title = load_params().report.title
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {html.escape(title)}\n{HINT}")
        with gr.Tab("Ask"):
            script = (display.FOLDER / "page.js").read_text()
            gr.HTML(
                display.ask(shown, SETTINGS.request_files),
                js_on_load=script,
                apply_default_css=False,
            )
        with gr.Tab("About the model") as about:
            card = gr.HTML(apply_default_css=False)
        about.select(tell, None, card, api_visibility="private")
    return page.queue(max_size=20)


def serve(current: Current, shown: Sequence[tuple[Path, str]]) -> FastAPI:
    """Return the application: the page at /, answers at /ask, the report of the last run at /report. It has no public link."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Late)
    room, turn = Room(SETTINGS.waiting_files, SETTINGS.waiting_bytes), asyncio.Lock()

    async def in_turn(files: Sequence[File]) -> HTMLResponse:
        async with turn:
            return HTMLResponse(await asyncio.to_thread(answer, current, files))

    @app.post("/ask")
    async def ask(request: Request) -> HTMLResponse:
        try:
            with Lease(room) as lease:
                return await in_turn(await read_files(request, SETTINGS, lease))
        except HTTPException as error:
            return HTMLResponse(display.refusal("These files", error.detail), error.status_code)

    @app.post("/ask/{number}")
    async def ask_example(number: int) -> HTMLResponse:
        if number >= len(shown):
            raise HTTPException(404)
        return await in_turn([File(shown[number][0].name, shown[number][0].read_bytes())])

    @app.get("/report")
    async def report() -> FileResponse:
        if not REPORT.exists():
            raise HTTPException(404, "there is no report: make run writes it")
        return FileResponse(REPORT)

    for path in CLOSED:
        app.add_api_route(f"/gradio_api/{path}", closed, methods=["GET", "HEAD", "POST"])
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return gr.mount_gradio_app(
        app, layout(current, shown), path="/", theme=theme, css_paths=display.FOLDER / "page.css", footer_links=[],
        run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False, show_error=False,
    )  # fmt: skip


async def closed() -> None:
    """Refuse a route of Gradio's that this page does without."""
    raise HTTPException(404)


def main() -> None:
    """Serve the page until it is interrupted; a user's mistake ends in one message."""
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(message)s")
    for library in ("mlflow", "alembic", "absl", "h5py", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    asked = parse()
    machine.report_ignored(log.info)
    with exit_with_message():
        held = hold_port(asked.host, asked.port, f"take another: --port {asked.port + 1}")
        current = Current(asked.model, asked.name, SETTINGS.limits)
        app = serve(current, examples(SPLITS, CLEAN))
    address = f"http://{asked.host}:{held.getsockname()[1]}"
    log.info("%s answers on %s until Ctrl-C", current.model.predictor.name, address)
    if asked.host not in LOOPBACK:
        log.warning("warn: whoever reaches %s may ask; the page asks for no password", asked.host)
    listen.run(app, held, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.web", description="Serve a page that answers image files."
    )
    parser.add_argument(
        "--model",
        default="champion",
        help="champion (default), another alias, a version, or a folder such as data/models/cnn_a",
    )
    parser.add_argument(
        "--name", help="of the registered model; default: register.model of params.yaml"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, which this machine alone reaches"
    )
    parser.add_argument("--port", type=int, default=7860)
    return parser.parse_args()


if __name__ == "__main__":
    main()
