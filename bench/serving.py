"""Measure throughput and latency of the REST server, against Keras with one image at a time.

The servers are real (`python -m serving.api`). This process sends requests of one image over open
connections on the loopback interface. The usual way is `load_img`, `img_to_array` and
`model.predict` for each image, without HTTP. All sides take turns. Each reply is compared with the
predictor's own result.

    python -m bench.serving                        # a random cnn_a, drawn heads of 224 x 224
    python -m bench.serving --model data/models/resnet50 --images data/clean --endurance 1000

The output has images/s and latency by number of clients, each with and without micro-batching
(`API_BATCH=1`), requests of many files, the memory of a server over `--endurance` requests, and the
replies of a server with too many requests.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import keras
import numpy as np
import psutil

from bench.rounds import print_table, time_rounds
from tasks.inference.predictor import Answer, from_folder
from tasks.modeling import out_of_distribution as ood
from tasks.modeling import saved
from tasks.modeling.layers import build_model
from tasks.params.architectures import ARCHITECTURES, Cnn
from tasks.params.model_input import Form
from tests.support.draw import LABELS, draw_set

TOLERANCE = 1e-4  # difference of a probability: batches sum in another order than single images
FILES = 32  # files in a request of many files
BOUNDARY = b"boundary-of-the-benchmark"


@dataclass(frozen=True)
class Image:
    """An image file and its expected prediction."""

    path: Path
    content: bytes
    expected: Answer


@dataclass
class Replies:
    """The outcome of requests."""

    seconds: list[float] = field(default_factory=list)  # seconds of each reply with status 200
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0  # predictions that differ from the expected predictions

    def __str__(self) -> str:
        statuses = ", ".join(
            f"{count} x {status}" for status, count in sorted(self.statuses.items())
        )
        return f"{statuses}, {self.wrong} predictions wrong"

    def describe_latency(self) -> str:
        """Return percentiles of the latency in milliseconds."""
        p50, p95, p99 = 1000 * np.percentile(self.seconds, [50, 95, 99])
        return f"p50 {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f}"


def main() -> None:
    """Print all measurements."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or _make_model(Path(scratch, "cnn_a"))
        images = _load_images(model, arguments.images or _draw(Path(scratch, "heads")))
        kilobytes = np.mean([len(image.content) for image in images]) / 1000
        print(f"{model.name}, {len(images)} images of {kilobytes:.1f} kB on average")
        with (
            _server(model, arguments.port) as server,
            _server(model, arguments.port + 1, API_BATCH="1"),
        ):
            measure_speed(model, images, arguments)
            measure_memory(server, images, arguments)
        with _server(model, arguments.port, API_WAITING_FILES="16", API_REQUEST_FILES="16"):
            measure_overload(images, arguments)


def measure_speed(model: Path, images: Sequence[Image], arguments: argparse.Namespace) -> None:
    """Print images/s and latencies of every kind of request."""
    batches, single = arguments.port, arguments.port + 1
    clients = sorted(arguments.clients, reverse=True)
    ways = {f"REST, {count} clients": (batches, count, 1) for count in clients}
    ways |= {f"REST, {count} clients, no batches": (single, count, 1) for count in clients}
    ways |= {f"REST, {FILES} files a request": (batches, max(1, clients[0] // 8), FILES)}
    work: dict[str, Callable[[], Replies]] = {
        name: partial(_send, images, arguments.requests, *way) for name, way in ways.items()
    }
    work["Keras, one by one"] = partial(_predict_by_keras, model, images, arguments.requests)
    replies: dict[str, list[Replies]] = defaultdict(list)
    sides = {name: _as_side(one, replies[name]) for name, one in work.items()}
    seconds = time_rounds(sides, arguments.rounds)
    title = "Images/s; x: seconds against the first line"
    print_table(title, seconds, arguments.requests, "images")
    print("\nMilliseconds of a request")
    for name, rounds in replies.items():
        every = _merge(rounds[1:])  # the first call of a side does not count
        print(f"  {name:28} {every.describe_latency()}  {every}")


def measure_memory(
    server: psutil.Process, images: Sequence[Image], arguments: argparse.Namespace
) -> None:
    """Print the memory of a server over many requests."""
    print(f"\nMemory of the server over {arguments.endurance} requests")
    for part in range(10):
        replies = _send(
            images, arguments.endurance // 10, arguments.port, max(arguments.clients), 1
        )
        requests = (part + 1) * (arguments.endurance // 10)
        print(f"  after {requests:6} requests {server.memory_info().rss / 1e6:7.0f} MB  {replies}")


def measure_overload(images: Sequence[Image], arguments: argparse.Namespace) -> None:
    """Print the replies to 64 clients if 16 images may wait, and whether the server still works."""
    many = _send(images, arguments.requests, arguments.port, 64, 1)
    print(f"\nOverload, 64 clients, 16 images may wait: {many}")
    print(f"  afterwards, one client: {_send(images, 100, arguments.port, 1, 1)}")


def _as_side(work: Callable[[], Replies], replies: list[Replies]) -> Callable[[], float]:
    def side() -> float:
        start = time.perf_counter()
        replies.append(work())
        return time.perf_counter() - start

    return side


def _merge(rounds: Sequence[Replies]) -> Replies:
    seconds = [one for replies in rounds for one in replies.seconds]
    statuses = sum((replies.statuses for replies in rounds), Counter())
    return Replies(seconds, statuses, sum(replies.wrong for replies in rounds))


def _predict_by_keras(model: Path, images: Sequence[Image], requests: int) -> Replies:
    """Predict with Keras as notebooks do."""
    network, replies = keras.saving.load_model(model / "model.keras", compile=False), Replies()
    size, channels = network.input_shape[1:3], network.input_shape[3]
    for number in range(requests):
        start = time.perf_counter()
        colours = "grayscale" if channels == 1 else "rgb"
        picture = keras.utils.load_img(
            images[number % len(images)].path, target_size=size, color_mode=colours
        )
        network.predict(keras.utils.img_to_array(picture)[np.newaxis], verbose=0)
        replies.seconds.append(time.perf_counter() - start)
    return replies


def _send(images: Sequence[Image], total: int, port: int, clients: int, files: int) -> Replies:
    """Send `total` images, `files` in a request, over the connections of some clients."""
    replies = Replies()
    numbers = iter(range(0, total, files))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            sent = [images[(number + place) % len(images)] for place in range(files)]
            start = time.perf_counter()
            writer.write(_request(sent))
            status, body = await _response(reader)
            replies.statuses[status] += 1
            if status == 200:
                replies.seconds.append(time.perf_counter() - start)
                replies.wrong += sum(
                    not _is_expected(*pair)
                    for pair in zip(json.loads(body)["answers"], sent, strict=True)
                )
        writer.close()

    async def run_clients() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    asyncio.run(run_clients())
    return replies


def _request(sent: Sequence[Image]) -> bytes:
    head = b'Content-Disposition: form-data; name="files"; filename="scan.jpg"'
    body = (
        b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY, head, image.content) for image in sent)
        + b"--%s--\r\n" % BOUNDARY
    )
    kind = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY
    return b"POST /predict HTTP/1.1\r\nHost: bench\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (
        kind,
        len(body),
        body,
    )


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def _is_expected(answer: dict, image: Image) -> bool:
    if image.expected.error:
        return answer["error"] is not None
    expected = image.expected.probabilities
    near = all(
        abs(answer["probabilities"][label] - probability) < TOLERANCE
        for label, probability in expected.items()
    )
    return near and answer["sha256"] == image.expected.sha256


def _make_model(folder: Path) -> Path:
    keras.utils.set_random_seed(0)
    structure = ARCHITECTURES["cnn_a"]
    assert isinstance(structure, Cnn)
    model = build_model(structure, (224, 224, 3), len(LABELS))
    grey = np.full((1, 224, 224, 3), 99, np.uint8)
    saved.describe(folder, list(LABELS), Form((224, 224), 3))
    saved.save(model, None, folder)
    statistics = ood.build_statistics_model(model).predict(grey, verbose=0)
    saved.complete(folder, 1.0, ood.describe(grey, statistics))
    return folder


def _draw(folder: Path) -> Path:
    draw_set(folder, {"": dict.fromkeys(LABELS, 64)}, size=224)
    return folder


def _load_images(model: Path, folder: Path) -> list[Image]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())[:1000]
    contents = [path.read_bytes() for path in paths]
    answers = from_folder(model, "expected", "").predict(contents)
    found = [
        Image(path, content, answer)
        for path, content, answer in zip(paths, contents, answers, strict=True)
        if not answer.error
    ]
    if not found:
        raise SystemExit(f"{folder} holds no image that can be decoded")
    return found


@contextlib.contextmanager
def _server(model: Path, port: int, **environment: str) -> Iterator[psutil.Process]:
    options = ["--model", str(model.resolve()), "--port", str(port)]
    command = [sys.executable, "-m", "serving.api", *options]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(120):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            time.sleep(1)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.serving", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--model", type=Path, help="folder of a Keras model (default: a random cnn_a)"
    )
    parser.add_argument("--images", type=Path, help="folder of image files (default: drawn heads)")
    parser.add_argument("--requests", type=int, default=512, help="images of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--endurance", type=int, default=20_000, help="requests of the memory test")
    parser.add_argument("--port", type=int, default=8110, help="first of two ports")
    return parser.parse_args()


if __name__ == "__main__":
    main()
