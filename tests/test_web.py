"""The page as a browser has it: a real server, real uploads, a registered model."""

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
from pathlib import Path

import gradio_client
import httpx
import pytest
import uvicorn

from serving import web
from serving.current import Current
from tests.conftest import CLASSES, enter

TEST = "data/clean/Testing"


@pytest.fixture(scope="module")
def root(pipeline: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(pipeline, monkeypatch)
        yield pipeline


@pytest.fixture(scope="module")
def current(root: Path) -> Current:
    return Current("1", None, web.LIMITS)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(root: Path, current: Current, uploads: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
        app = web.serve(web.build(current, web.examples(web.SPLITS, web.CLEAN)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def client(address: str) -> gradio_client.Client:
    return gradio_client.Client(address, verbose=False, analytics_enabled=False)


def ask(client: gradio_client.Client, *files: Path) -> str:
    shown, left = client.predict([gradio_client.handle_file(file) for file in files], api_name="/ask")
    assert not left  # the place for files is free again
    return shown


def images(root: Path) -> list[Path]:
    return sorted((root / TEST).rglob("*.jpg"))


def huge_png() -> bytes:
    """The beginning of a picture of 30,000 by 30,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\x09IDAT"


def test_one_image_gets_the_predictors_answer(client: gradio_client.Client, root: Path, current: Current) -> None:
    for file in images(root)[::6]:
        shown = ask(client, file)
        bars = re.findall(r'<span>(.*?)</span> <data value="(.*?)">', shown)
        expected = current.model.predictor.predict([file])[0]
        assert {html.unescape(label): float(value) for label, value in bars} == pytest.approx(expected.probabilities, abs=1e-5)
        assert html.unescape(re.search(r'class="verdict">.*?<strong>(.*?)</strong>', shown)[1]) == expected.predicted
        assert current.model.predictor.name in shown


def test_many_images_get_a_table(client: gradio_client.Client, root: Path, current: Current, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("No picture.")
    files = [*images(root)[:5], tmp_path / "notes.txt"]
    shown = ask(client, *files)
    written = base64.b64decode(re.search(r'href="data:text/csv[^,]*,(.*?)"', shown)[1]).decode()
    for row, file, answer in zip(
        csv.DictReader(io.StringIO(written)), files, current.model.predictor.predict(files), strict=True
    ):  # fmt: skip
        assert row["path"] == file.name
        assert row["predicted"] == (answer.predicted or "")
        received = {label: float(row[f"p_{label}"]) for label in CLASSES if row[f"p_{label}"]}
        assert received == pytest.approx(dict(answer.probabilities), abs=1e-5)
    assert "6 files: 5 answered, 1 without an answer" in shown


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.txt", b"No picture.", "in none of the image formats"),
        ("empty.png", b"", "holds no bytes"),
        ("huge.png", huge_png(), "larger than max_pixels"),
    ],
)
def test_what_is_no_picture_is_told_in_words(
    client: gradio_client.Client, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    shown = ask(client, tmp_path / name)
    assert f"<strong>{name}: no answer.</strong>" in shown
    assert told in shown


def test_no_upload_stays(client: gradio_client.Client, root: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FORGET", -1)
    (uploads / "left").mkdir()
    ask(client, *images(root)[:3])
    assert list(uploads.iterdir()) == []


def test_limits_of_count_and_size(
    address: str, client: gradio_client.Client, root: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "FILES", 2)
    assert "3 files: no answer.</strong> Expected at most 2 at a time" in ask(client, *images(root)[:3])
    monkeypatch.setattr(web, "UPLOAD", 1000)
    refused = httpx.post(f"{address}/gradio_api/upload", files={"files": ("scan.jpg", b"x" * 1001)})
    assert (refused.status_code, refused.text) == (413, "Files exceed the maximum allowed size of 0 MB together")
    assert not [path for path in uploads.rglob("*") if path.is_file() and path.stat().st_size]


def test_the_page_names_no_other_machine(address: str) -> None:
    page = httpx.get(address).text
    style = httpx.get(f"{address}/theme.css").text
    named = re.findall(r"""(?:src|href)=["'](.*?)["']""", page) + re.findall(r"""url\(["']?(.*?)["']?\)""", page + style)
    assert named
    assert [name for name in named if "//" in name and not name.startswith((address, "data:"))] == []
    assert "A &lt;tiny&gt; set" in page


def test_examples_are_test_images_and_always_the_same(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = web.examples(web.SPLITS, web.CLEAN)
    assert [label for _, label in shown] == [label for label in sorted(CLASSES) for _ in range(2)]
    assert all(file.is_relative_to(TEST) and file.parent.name == label for file, label in shown)
    assert shown == web.examples(web.SPLITS, web.CLEAN)
    params = (root / "params.yaml").read_text().replace("report: {", "report: {thumbnails: false, ")
    (tmp_path / "params.yaml").write_text(params)
    monkeypatch.chdir(tmp_path)
    assert web.examples(root / web.SPLITS, root / web.CLEAN) == []


def test_names_are_text(current: Current, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "<img src=x>.jpg"
    file.write_bytes(images(root)[0].read_bytes())
    assert "&lt;img src=x&gt;.jpg" in web.answer(current, [file])
