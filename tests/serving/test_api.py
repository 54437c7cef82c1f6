"""The REST server answers like the predictor, refuses in plain words, and stores nothing."""

import io
import logging
import re
import socket
import struct
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import hypothesis
import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from PIL import Image
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving import settings
from serving.api import create_app, main
from serving.settings import Settings
from tasks.errors import UserError
from tests.support import toy_server
from tests.support.toy_server import CLASSES, brightness, picture

SMALL = Settings(
    file_bytes=20_000,
    file_pixels=100_000,
    request_files=5,
    request_bytes=60_000,
    waiting_files=10,
    waiting_bytes=100_000,
    upload_seconds=1,
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(
        create_app(SMALL, toy_server.current(settings=SMALL)), raise_server_exceptions=False
    ) as client:
        yield client


def files(*contents: bytes) -> list:
    return [
        ("files", (f"{number}.png", content, "image/png"))
        for number, content in enumerate(contents)
    ]


def test_files_are_answered_in_order_and_like_the_predictor(client: TestClient) -> None:
    response = client.post("/predict", files=files(picture(0), picture(100), picture(255, "JPEG")))
    said = response.json()
    assert response.status_code == 200 and (said["model"], said["model_sha256"]) == (
        "toy version 1",
        "a" * 64,
    )
    assert [answer["file"] for answer in said["answers"]] == ["0.png", "1.png", "2.png"]
    expected = toy_server.predictor().predict([picture(0), picture(100), picture(255, "JPEG")])
    for answer, one in zip(said["answers"], expected, strict=True):
        assert answer["error"] is None and answer["sha256"] == one.sha256
        assert (answer["predicted"], answer["confidence"], answer["distance"]) == (
            one.predicted,
            one.confidence,
            one.distance,
        )
        assert (answer["abstained"], answer["unfamiliar"]) == (one.abstained, one.unfamiliar)
        assert answer["probabilities"] == one.probabilities
    assert [answer["abstained"] for answer in said["answers"]] == [False, True, False]


def test_a_bad_file_does_not_affect_the_others(client: TestClient) -> None:
    response = client.post("/predict", files=files(picture(255), b"no picture", picture(0)))
    assert response.status_code == 200
    first, bad, last = response.json()["answers"]
    assert (first["predicted"], last["predicted"]) == (CLASSES[1], CLASSES[0])
    assert (
        bad["predicted"] is None
        and bad["probabilities"] == {}
        and bad["error"]["reason"] == "not_an_image"
    )


def huge() -> bytes:
    """Return a PNG of 65 bytes whose header claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("run.sh", "echo hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"This is a text.", "not_an_image"),
        (picture(9, "JPEG", 200)[:-300], "truncated"),
        (b"", "empty"),
        (huge(), "too_many_pixels"),
        (
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
            "not_an_image",
        ),
        (archive(), "not_an_image"),
    ],
    ids=["text", "truncated", "no bytes", "30,000 x 30,000", "SVG with a script", "ZIP"],
)
def test_a_bad_file_alone_is_refused_with_its_reason(
    client: TestClient, content: bytes, reason: str
) -> None:
    for route in ("/predict", "/explain"):
        response = client.post(route, files=[("files", ("scan.jpg", content, "image/jpeg"))])
        assert response.status_code == 422
        assert response.json()["detail"].startswith(
            "expected images that can be decoded, received: " + reason
        )
    assert (
        client.post("/predict", files=files(content)).json()["answers"][0]["error"]["reason"]
        == reason
    )


@pytest.mark.parametrize(
    "tail", [archive(), b"<html><script>alert(1)</script></html>"], ids=["ZIP", "HTML"]
)
def test_only_the_image_of_a_file_with_two_formats_is_read(client: TestClient, tail: bytes) -> None:
    response = client.post("/predict", files=files(picture(255, "JPEG") + tail))
    assert response.status_code == 200 and response.json()["answers"][0]["predicted"] == CLASSES[1]
    assert (
        response.headers["content-type"] == "application/json" and b"script" not in response.content
    )


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (
            {"json": {"image": "scan.jpg"}},
            415,
            "expected the content type multipart/form-data, received application/json: curl",
        ),
        ({}, 415, "received none"),
        (
            {"content": picture(0), "headers": {"content-type": "image/png"}},
            415,
            "received image/png",
        ),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "names no boundary",
        ),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "is not the multipart/form-data",
        ),
        (
            {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "ends before its last boundary",
        ),
        (
            {"content": b"--x--", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            422,
            "at least one file",
        ),
        ({"files": {"a": (None, "text")}}, 422, "received a field without a file name"),
        (
            {"files": files(bytes(20_001))},
            413,
            "expected files of at most 20,000 bytes, received a larger one (file 1 of",
        ),
        ({"files": files(*[bytes(15_000)] * 4)}, 413, "expected a request of at most 60,000 bytes"),
        (
            {"files": files(*[b""] * 6)},
            413,
            "expected at most 5 files in one request, received more: send them in several",
        ),
    ],
)
def test_a_refusal_says_what_to_do(
    client: TestClient, request_: dict, status: int, words: str
) -> None:
    for route in ("/predict", "/explain"):
        response = client.post(route, **request_)
        assert response.status_code == status and words in response.json()["detail"], response.text


def test_ten_thousand_files_are_refused_and_the_next_request_is_answered() -> None:
    chosen = Settings()
    with TestClient(create_app(chosen, toy_server.current())) as client:
        response = client.post("/predict", files=files(*[picture(1)] * 10_000))
        assert (
            response.status_code == 413
            and "expected at most 100 files" in response.json()["detail"]
        )
        assert client.post("/predict", files=files(*[picture(1)] * 100)).status_code == 200


def test_a_server_with_a_key_refuses_requests_without_it() -> None:
    chosen = Settings(key="geheim ü")
    with TestClient(create_app(chosen, toy_server.current())) as client:
        for headers, received in (
            ({}, "none"),
            ({"X-API-Key": "geheim"}, "another one"),
            ({"X-API-Key": b"\xff"}, "another one"),
        ):
            for answer in (
                client.post("/predict", files=files(picture(1)), headers=headers),
                client.get("/model", headers=headers),
            ):
                assert answer.status_code == 401 and answer.json()["detail"].endswith(
                    f"X-API-Key, received {received}"
                )
        assert client.get("/model", headers={"X-API-Key": "geheim ü".encode()}).status_code == 200
        assert client.get("/health").json() == {"status": "alive"} and client.get(
            "/ready"
        ).json() == {"status": "ready"}


def test_the_model_says_what_it_is(client: TestClient) -> None:
    said = client.get("/model").json()
    assert (
        said["classes"] == CLASSES
        and said["height"] == said["width"] == 8
        and said["problem"] is None
    )
    assert said["thresholds"] == {"confidence": 0.7, "distance": 0.49}


def test_a_model_without_feature_maps_has_no_explanation(client: TestClient) -> None:
    response = client.post("/explain", files=files(picture(1)))
    assert (
        response.status_code == 422
        and response.json()["detail"]
        == "this model has no heat maps: it only looks at the brightness"
    )
    assert (
        "expected one file, received 2"
        in client.post("/explain", files=files(picture(1), picture(2))).json()["detail"]
    )
    unknown = client.post("/explain?class=green", files=files(picture(1)))
    assert (
        unknown.status_code == 422
        and "such as dark, bright née; received 'green'" in unknown.json()["detail"]
    )


def test_the_docs_load_their_files_from_this_server_by_relative_addresses(
    client: TestClient,
) -> None:
    page = client.get("/docs")
    addresses = re.findall(r'(?:src|href)="(.*?)"', page.text)
    assert len(addresses) == 5
    assert [found for found in addresses if ":" in found or found.startswith("/")] == []
    assert {client.get(f"/{found}").status_code for found in addresses} == {200}
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    assert client.get("/redoc").status_code == 404


class Gate:
    """A model that waits until it may answer."""

    def __init__(self) -> None:
        self.open, self.batches = threading.Event(), []

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(len(pixels))
        assert self.open.wait(20)
        return brightness(pixels)


@pytest.mark.parametrize(("batch", "calls"), [(32, 2), (1, 9)])
def test_images_that_wait_for_a_busy_model_are_one_batch(batch: int, calls: int) -> None:
    gate = Gate()
    with (
        TestClient(create_app(Settings(batch=batch), toy_server.current(gate))) as client,
        ThreadPoolExecutor(9) as threads,
    ):
        first = threads.submit(client.post, "/predict", files=files(picture(0)))
        wait_for(lambda: gate.batches)
        others = [
            threads.submit(client.post, "/predict", files=files(picture(30 * number)))
            for number in range(8)
        ]
        room = client.app.state.service.room
        wait_for(
            lambda: (
                room.files == Settings().waiting_files - 9
                and len(client.app.state.service.batcher._waiting) == 8
            )
        )
        gate.open.set()
        assert first.result().status_code == 200
        confidences = [
            other.result().json()["answers"][0]["probabilities"][CLASSES[1]] for other in others
        ]
        assert confidences == pytest.approx([30 * number / 255 for number in range(8)], abs=1e-6)
    assert len(gate.batches) == calls and sum(gate.batches) == 9


def test_a_full_server_refuses_requests_and_then_goes_on() -> None:
    gate = Gate()
    chosen = SMALL.model_copy(update={"waiting_files": 6})
    with (
        TestClient(create_app(chosen, toy_server.current(gate))) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        held = threads.submit(client.post, "/predict", files=files(*[picture(0)] * 5))
        wait_for(lambda: client.app.state.service.room.files == 1)
        busy = client.post("/predict", files=files(picture(0), picture(1)))
        assert (
            busy.status_code == 503
            and busy.headers["retry-after"] == "1"
            and "too many images are waiting" in busy.text
        )
        last = threads.submit(client.post, "/predict", files=files(picture(0)))
        wait_for(lambda: client.app.state.service.room.files == 0)
        assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200
        gate.open.set()
        assert held.result().status_code == last.result().status_code == 200
        assert client.get("/ready").status_code == 200
        assert client.post("/predict", files=files(picture(0), picture(1))).status_code == 200
        room = client.app.state.service.room
        assert (room.files, room.size) == (chosen.waiting_files, chosen.waiting_bytes)


def test_a_late_answer_is_cancelled_and_leaves_the_queue() -> None:
    gate = Gate()
    with TestClient(create_app(Settings(answer_seconds=0.3), toy_server.current(gate))) as client:
        for _ in range(2):
            response = client.post("/predict", files=files(picture(0)))
            assert (
                response.status_code == 504
                and "no answer after 0.3 seconds" in response.json()["detail"]
            )
        gate.open.set()
        assert client.post("/predict", files=files(picture(0))).status_code == 200
        assert sum(gate.batches) == 2  # the cancelled image never reached the model


def test_an_error_of_the_model_fails_one_request() -> None:
    def fragile(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if pixels.max() > 200:
            raise RuntimeError("out of memory")
        return brightness(pixels)

    app = create_app(Settings(), toy_server.current(fragile))
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.post("/predict", files=files(picture(255)))
        assert response.status_code == 500 and response.json() == {
            "detail": "the server failed at this request; its log says why"
        }
        assert client.post("/predict", files=files(picture(0))).status_code == 200


@pytest.mark.slow
def test_nothing_is_written_and_no_name_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Python's audit events show every file that is opened for writing, by libraries too."""
    opened: list = []
    watching = True

    def watch(event: str, arguments: tuple) -> None:
        if watching and event == "open" and isinstance(arguments[2], int) and arguments[2] & 3:
            opened.append(arguments[0])

    noise = np.random.default_rng(1).integers(0, 255, (2000, 1500), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2_500_000  # Starlette's own parser would make a temporary file
    caplog.set_level(logging.DEBUG)
    with TestClient(create_app(Settings(), toy_server.current())) as client:
        sys.addaudithook(watch)
        for content in (buffer.getvalue(), b"text", buffer.getvalue()[:-9]):
            upload = [("files", ("Jane Doe 1970.png", content, "image/png"))]
            assert (
                client.post("/predict", files=upload).json()["answers"][0]["file"]
                == "Jane Doe 1970.png"
            )
            client.post("/explain", files=upload)
        watching = False
    assert opened == [] and "Jane" not in caplog.text


def test_audit_events_show_temporary_files() -> None:
    seen: list = []
    sys.addaudithook(
        lambda event, arguments: seen.append(arguments[2]) if event == "open" and not seen else None
    )
    import tempfile

    with tempfile.TemporaryFile():
        pass
    assert seen and seen[0] & 3


@pytest.mark.slow
def test_a_slow_upload_is_ended() -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 9000\r\n\r\n--b\r\n"
    )
    with (
        toy_server.running(SMALL, toy_server.current()) as (_, port),
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow.sendall(head)
        slow.settimeout(10)
        start = time.monotonic()
        said = read_all(slow)
        assert (
            said.startswith(b"HTTP/1.1 408")
            and b"the request was not complete after 1 seconds" in said
            and b"connection: close" in said
        )
        assert 1 <= time.monotonic() - start < 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chunked", "by length"])
def test_an_endless_upload_is_refused_while_it_arrives(kind: str) -> None:
    """Only a little of a body of 1 GB is read before the answer."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    head += (
        b"Content-Length: 1000000000\r\n\r\n"
        if kind == "by length"
        else b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chosen = Settings(request_bytes=2_000_000, file_bytes=2_000_000)
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    chunk = bytes(10_000)
    with (
        toy_server.running(chosen, toy_server.current()) as (_, port),
        socket.create_connection(("127.0.0.1", port)) as endless,
    ):
        endless.settimeout(10)
        endless.sendall(head)
        if kind != "by length":
            endless.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        for _ in range(300):
            endless.sendall(chunk if kind == "by length" else b"%x\r\n%s\r\n" % (len(chunk), chunk))
        said = read_all(endless)
        assert (
            said.startswith(b"HTTP/1.1 413")
            and b"expected a request of at most 2,000,000 bytes" in said
        )


@pytest.mark.slow
def test_accepted_requests_are_finished_when_the_server_ends() -> None:
    gate = Gate()
    with (
        ThreadPoolExecutor(1) as threads,
        toy_server.running(Settings(), toy_server.current(gate)) as (server, port),
    ):
        asked = threads.submit(
            httpx.post, f"http://127.0.0.1:{port}/predict", files=files(picture(255)), timeout=20
        )
        wait_for(lambda: gate.batches)
        server.should_exit = True
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/health")
        gate.open.set()
        assert asked.result().json()["answers"][0]["predicted"] == CLASSES[1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_answers_as_the_schema_says(
    mode: GenerationMode,
) -> None:
    """Valid and invalid ones. Files of random bytes may be refused: acceptance is not checked."""
    asked, chosen, key = [], SMALL.model_copy(update={"key": SecretStr("k")}), {"X-API-Key": "k"}
    with toy_server.running(chosen, toy_server.current(settings=SMALL)) as (_, port):
        description = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        for found in description.get_all_operations():
            operation = found.ok()
            if (
                mode is GenerationMode.NEGATIVE
                and operation.method == "get"
                and not list(operation.iter_parameters())
            ):
                continue  # it has nothing that can be invalid

            @given(operation.as_strategy(generation_mode=mode))
            @hypothesis.settings(
                max_examples=8,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                asked.append(
                    case.call_and_validate(
                        headers=key, excluded_checks=[positive_data_acceptance]
                    ).status_code
                )

            ask()
        assert (
            httpx.post(
                f"http://127.0.0.1:{port}/predict", files=files(picture(255)), headers=key
            ).status_code
            == 200
        )
    assert len(asked) > 15 and not [status for status in asked if status >= 500]


def test_settings_come_from_the_environment_and_errors_name_them() -> None:
    chosen = settings.read(
        {"API_PORT": "81", "API_KEY": "k", "PORT": "9", "API_BATCH": "7"}, port=None, batch=8
    )
    assert (chosen.port, chosen.batch, chosen.host) == (81, 8, "127.0.0.1") and "k" not in repr(
        chosen
    ).split("key=")[1][:12]
    with pytest.raises(UserError, match=r"(?s)API_PORT: .*received 'x'.*API_KEY: ") as error:
        settings.read({"API_PORT": "x", "API_KEY": ""})
    assert "Traceback" not in str(error.value)
    with pytest.raises(UserError, match="API_REQUEST_FILES is larger than API_WAITING_FILES"):
        settings.read({"API_REQUEST_FILES": "1000"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "99999"], "error: API_PORT: "),
        (["--model", "data/models/none"], "error: data/models/none is not a folder"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["api", *words])
    with pytest.raises(SystemExit, match=said):
        main()


def wait_for(truth: Callable[[], object]) -> None:
    end = time.monotonic() + 15
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.005)


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends until its answer is complete."""
    said = b""
    try:
        while more := connection.recv(65536):
            said += more
            if b'"}' in said:
                break
    except ConnectionResetError:
        pass
    return said
