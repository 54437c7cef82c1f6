"""The page as a browser gets it: a real server, real uploads, a registered model."""

import base64
import csv
import html
import io
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn

from serving import web
from serving.current import Current, open_current
from serving.upload import File
from tasks.tables import escape_controls
from tests.support.pipeline import CLASSES, enter

pytestmark = pytest.mark.slow

TEST = "data/clean/Testing"


@pytest.fixture(scope="module")
def root(pipeline: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(pipeline, monkeypatch)
        yield pipeline


@pytest.fixture(scope="module")
def current(root: Path) -> Current:
    return open_current("1", None, web.SETTINGS.limits)


@pytest.fixture(scope="module")
def address(
    root: Path, current: Current, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        app = web.create_app(current, web.choose_examples(web.SPLITS, web.CLEAN))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def ask(address: str, *files: tuple[str, bytes]) -> str:
    return httpx.post(f"{address}/ask", files=[("files", file) for file in files], timeout=60).text


def images(root: Path) -> list[Path]:
    return sorted((root / TEST).rglob("*.jpg"))


def named(file: Path) -> tuple[str, bytes]:
    return file.name, file.read_bytes()


def huge_png() -> bytes:
    """Return the start of a PNG of 30,000 by 30,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
        + b"\0\0\0\x09IDAT"
    )


def bars(shown: str) -> dict[str, float]:
    found = re.findall(r'<span>(.*?)</span> <data value="(.*?)">', shown)
    return {html.unescape(label): float(value) for label, value in found}


def test_one_image_gets_the_predictors_answer(address: str, root: Path, current: Current) -> None:
    for file in images(root)[::6]:
        shown = ask(address, named(file))
        expected = current.model.predictor.predict([file])[0]
        assert bars(shown) == pytest.approx(dict(expected.probabilities), abs=1e-5)
        assert (
            html.unescape(re.search(r'class="verdict">.*?<strong>(.*?)</strong>', shown)[1])
            == expected.predicted
        )
        assert current.model.predictor.name in shown
        assert 'class="heat"' in shown


def test_many_images_get_a_table(address: str, root: Path, current: Current) -> None:
    files = [*map(named, images(root)[:5]), ("notes.txt", b"No picture.")]
    shown = ask(address, *files)
    written = base64.b64decode(re.search(r'href="data:text/csv[^,]*,(.*?)"', shown)[1]).decode()
    expected = current.model.predictor.predict([content for _, content in files])
    for row, (name, _), answer in zip(
        csv.DictReader(io.StringIO(written)), files, expected, strict=True
    ):
        assert row["path"] == name
        assert row["predicted"] == escape_controls(answer.predicted or "")
        received = {
            label: float(row[escape_controls(f"p_{label}")])
            for label in CLASSES
            if not row["error"]
        }
        assert received == pytest.approx(dict(answer.probabilities), abs=1e-5)
    assert re.search("6 files: .*1 without a prediction", shown)


def test_people_at_the_same_time_get_their_own_answers(
    address: str, root: Path, current: Current
) -> None:
    files = [*images(root)[:8], *images(root)[:8]]
    with ThreadPoolExecutor(8) as pool:
        shown = list(pool.map(lambda file: ask(address, named(file)), files))
    for file, page in zip(files, shown, strict=True):
        assert bars(page) == pytest.approx(
            dict(current.model.predictor.predict([file])[0].probabilities), abs=1e-5
        )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.txt", b"No picture.", "in none of the image formats"),
        ("empty.png", b"", "has no bytes"),
        ("huge.png", huge_png(), "larger than max_pixels"),
        ("<img src=x>", b"No picture.", "&lt;img src=x&gt;: no prediction"),
    ],
)
def test_a_file_that_is_no_image_gets_a_reason(
    address: str, name: str, content: bytes, told: str
) -> None:
    shown = ask(address, (name, content))
    assert told in shown
    assert 'role="alert"' in shown
    assert "Traceback" not in shown


def test_the_page_names_an_exceeded_limit(address: str) -> None:
    many = ask(address, *[(f"{number}.jpg", b"x") for number in range(51)])
    assert "These files: no prediction.</strong> Expected at most 50 files" in many
    large = ask(address, ("large.jpg", b"x" * (web.SETTINGS.file_bytes + 1)))
    assert "Expected files of at most 25,000,000 bytes" in large


def test_gradio_accepts_serves_and_downloads_no_file(address: str, root: Path) -> None:
    """A mounted Gradio 6.31 lets a request name any file of the machine: no event accepts one."""
    api = f"{address}/gradio_api"
    assert httpx.post(f"{api}/upload", files={"files": ("scan.jpg", b"x")}).status_code == 404
    assert httpx.get(f"{api}/file={root / 'params.yaml'}").status_code == 404
    assert httpx.get(f"{api}/file=http://127.0.0.1/").status_code == 404
    config = httpx.get(f"{address}/config").json()
    assert [event["inputs"] for event in config["dependencies"]] == [[]]


def test_the_page_names_no_other_host(address: str) -> None:
    page = httpx.get(address).text
    style = httpx.get(f"{address}/theme.css").text
    found = re.findall(r"""(?:src|href)=["'](.*?)["']""", page) + re.findall(
        r"""url\(["']?(.*?)["']?\)""", page + style
    )
    assert found
    assert [
        name for name in found if "//" in name and not name.startswith((address, "data:"))
    ] == []
    assert "A &lt;tiny&gt; set" in page


def test_examples_are_test_images_and_always_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = web.choose_examples(web.SPLITS, web.CLEAN)
    assert [label for _, label in shown] == [label for label in sorted(CLASSES) for _ in range(2)]
    assert all(file.is_relative_to(TEST) and file.parent.name == label for file, label in shown)
    assert shown == web.choose_examples(web.SPLITS, web.CLEAN)
    params = (root / "params.yaml").read_text().replace("report: {", "report: {thumbnails: false, ")
    (tmp_path / "params.yaml").write_text(params)
    monkeypatch.chdir(tmp_path)
    assert web.choose_examples(root / web.SPLITS, root / web.CLEAN) == []


def test_an_example_is_answered_like_an_upload(address: str, root: Path, current: Current) -> None:
    file, _ = web.choose_examples(web.SPLITS, web.CLEAN)[3]
    assert httpx.post(f"{address}/ask/3", timeout=60).text == web.predict(
        current, [File(*named(root / file))]
    )
    assert httpx.post(f"{address}/ask/99").status_code == 404


def test_the_page_speaks_the_language_of_the_browser(address: str, root: Path) -> None:
    french = {"Accept-Language": "fr-CH, fr;q=0.9, en;q=0.8"}
    assert "Déposez ici des fichiers" in httpx.get(address, headers=french).text
    assert "Drop image files here" in httpx.get(address, headers={"Accept-Language": "de"}).text
    files = [("files", named(file)) for file in images(root)[:1]]
    shown = httpx.post(f"{address}/ask", files=files, headers=french, timeout=60).text
    assert re.search(
        r"Probabilité de chaque classe.*<data value=\"0\.\d+\">[<> \d]+,\d %", shown, re.S
    )
    refused = httpx.post(f"{address}/ask", files=[("files", b"")] * 51, headers=french).text
    assert "Ces fichiers" in refused and "au plus 50 fichiers" in refused


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        ("en-GB,en;q=0.9,fr;q=0.8", "en"),
        ("en;q=0.5, fr;q=0.7", "fr"),
        ("de, fr;q=0", "en"),
        ("*, ;q=x,,", "en"),
    ],
)
def test_the_language_is_the_best_of_the_header(accepted: str, language: str) -> None:
    assert web.choose_language(accepted, ["en", "fr"]) == language
