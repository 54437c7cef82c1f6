"""A page for people: drop pictures, see the classes, where the model looked, and when not to believe it.

`make web`, or `python -m serving.web --model 3 --port 8080`; then http://127.0.0.1:7860. The page loads nothing from elsewhere,
has no public link, and writes no names of files into logs. An upload lies in a private folder below the system's
temporary one until it has been read, and is deleted then; the answer is in the browser alone. An upload that nobody asked
about, as when its browser was closed meanwhile, is deleted within twice `FORGET` seconds, and the folder when the page ends.
"""

import argparse
import html
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import display
from serving.current import Current
from serving.upload import Late
from tasks.command import explain
from tasks.imaging.decode import Limits, decode_bytes
from tasks.params import load_params
from tasks.tables import read_table

MEGABYTE = 2**20
LIMITS = Limits(max_bytes=50 * MEGABYTE, max_pixels=64_000_000)  # of one file
FILES = 50  # at a time
UPLOAD = 200 * MEGABYTE  # of all files at a time
WAITING = 20  # questions in the queue; who comes later is told so
FORGET = 60  # seconds
EXAMPLES = 8  # of all classes, where they are not more than that
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CLEAN, SPLITS, REPORT = Path("data/clean"), Path("data/splits.csv"), Path("data/report/report.html")
STYLE = Path(__file__).parent / "templates/page.css"
HINT = (
    "Drop one image to see its classes and where the model looked, or several for a table. They are deleted as soon as they "
    "are read. **This is research software: no answer is a diagnosis.**"
)
PRESS = "element.onclick = (e) => { const b = e.target.closest('button'); if (b) trigger('click', {index: +b.dataset.index}); }"

log = logging.getLogger(__name__)


def answer(current: Current, files: Sequence[Path]) -> str:
    """Return what the model says of image files, as HTML: of one in full, of several as a table."""
    model = current.get()
    if len(files) > FILES:
        return display.refusal(f"{len(files)} files", f"expected at most {FILES} at a time; python -m serving.predict takes more")
    if len(files) > 1:
        return display.many(model.predictor, [file.name for file in files], model.predictor.predict(files))
    name, content = files[0].name, files[0].read_bytes()
    said = model.predictor.predict([content])[0]
    if said.error:
        return display.refusal(name, display.reason(said.error))
    heat = model.heat(model.predictor.decode(content).pixels, said.predicted)
    return display.one(model.predictor, name, said, decode_bytes(content, LIMITS).picture, heat)


def examples(splits_csv: Path, clean: Path) -> list[tuple[Path, str]]:
    """Return test images and the class of their folder: two of each class, or one where there are many; always the same."""
    if not splits_csv.exists() or not load_params().report.thumbnails:
        return []
    rows = read_table(splits_csv).query("split == 'test'").sort_values(["label", "sha256"]).drop_duplicates("group")
    each = 2 if 2 * rows.label.nunique() <= EXAMPLES else 1
    chosen = [(clean / row.path, row.label) for row in rows.groupby("label").head(each).itertuples()]
    return [(file, label) for file, label in chosen if file.exists()]


def build(current: Current, shown: Sequence[tuple[Path, str]]) -> gr.Blocks:
    """Lay the page out and say what its events call."""

    def ask(uploaded: list[str] | None) -> tuple[str, None]:
        files = [Path(file) for file in uploaded or []]
        try:
            return answer(current, files) if files else "", None
        finally:
            forget(files)

    def ask_example(event: gr.EventData) -> str:
        return answer(current, [shown[event.index][0]])

    def tell() -> str:
        return display.card(current.get().predictor, REPORT.exists())

    title = load_params().report.title
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(FORGET, FORGET)) as page:
        gr.Markdown(f"# {html.escape(title)}\n{HINT}")
        with gr.Tab("Ask"):
            upload = gr.File(file_count="multiple", label=f"Image files, up to {FILES}", height=150)
            result = gr.HTML(html_template='<div aria-live="polite">${value}</div>', apply_default_css=False)
            pressed = gr.HTML(display.examples(shown), js_on_load=PRESS, apply_default_css=False)
        with gr.Tab("About the model") as about:
            card = gr.HTML(apply_default_css=False)
        alike = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": result}
        upload.upload(ask, upload, [result, upload], api_name="ask", **alike)
        pressed.click(ask_example, None, result, api_visibility="private", **alike)
        about.select(tell, None, card, api_visibility="private")
    return page.queue(max_size=WAITING)


def forget(files: Sequence[Path]) -> None:
    """Delete uploads with their folders, and the empty files and folders of earlier ones that Gradio leaves."""
    for file in files:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # another upload of the same content
            file.parent.rmdir()
    for left in [left for folder in {file.parents[1] for file in files} for left in folder.iterdir()]:
        with suppress(OSError):  # not empty, or gone meanwhile
            status = left.stat()
            if time.time() - status.st_mtime > FORGET and (left.is_dir() or status.st_size == 0):
                left.rmdir() if left.is_dir() else left.unlink()


def serve(page: gr.Blocks) -> FastAPI:
    """Return the application: the page at /, the report of the last run at /report. Without `launch` there is no public link."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Bounded)
    app.add_middleware(Late)  # outside, so that who sends too much reads why

    @app.get("/report")
    def report() -> FileResponse:
        if not REPORT.exists():
            raise HTTPException(404, "there is no report: make run writes it")
        return FileResponse(REPORT)

    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return gr.mount_gradio_app(
        app, page, path="/", theme=theme, css_paths=STYLE, footer_links=[], run_history=False, enable_monitoring=False,
        ssr_mode=False, pwa=False, mcp_server=False, max_file_size=LIMITS.max_bytes, show_error=False,
    )  # fmt: skip


class Bounded:
    """Refuses a request whose body is larger than `UPLOAD` bytes, or that does not say how large it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, or let the application answer."""
        if scope["type"] == "http" and scope["method"] == "POST":
            length = Request(scope).headers.get("content-length", "")
            if not length.isdecimal() or int(length) > UPLOAD:
                told = f"Files exceed the maximum allowed size of {UPLOAD // MEGABYTE} MB together"
                await PlainTextResponse(told, 413)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def main() -> None:
    """Serve the page until it is interrupted; a user's mistake ends in one message."""
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(message)s")
    for library in ("mlflow", "alembic", "absl", "h5py", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder of uploads is removed
    try:
        run(parse())
    except KeyboardInterrupt:
        sys.exit(0)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def run(asked: argparse.Namespace) -> None:
    """Load the model and serve. Raises `ValueError` and `OSError` for a user's mistake."""
    with tempfile.TemporaryDirectory(prefix="page-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        current = Current(asked.model, asked.name, LIMITS)
        app = serve(build(current, examples(SPLITS, CLEAN)))
        log.info("%s answers on http://%s:%s until Ctrl-C", current.model.predictor.name, asked.host, asked.port)
        if asked.host not in LOOPBACK:
            log.warning("warn: whoever reaches %s may ask; the page asks for no password", asked.host)
        uvicorn.run(app, host=asked.host, port=asked.port, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m serving.web", description="Serve a page that answers image files.")
    parser.add_argument(
        "--model", default="champion", help="champion (default), another alias, a version, or a folder such as data/models/cnn_a"
    )
    parser.add_argument("--name", help="of the registered model; default: register.model of params.yaml")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which this machine alone reaches")
    parser.add_argument("--port", type=int, default=7860)
    return parser.parse_args()


if __name__ == "__main__":
    main()
