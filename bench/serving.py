"""How many images a second the REST server answers, and how soon, against asking Keras image by image.

Real servers (`python -m serving.api`) on loopback, asked by this process over connections that stay open, one image in a
request; the usual way is `load_img`, `img_to_array` and `model.predict` of one image after the other, without any HTTP.
All take turns. Every answer is compared with what the predictor says of that file by itself.

    python -m bench.serving                                     # cnn_a with random weights on drawn heads of 224 x 224
    python -m bench.serving --model data/models/resnet50 --images data/clean --endurance 1000

Printed: images/s by number of clients, each with and without micro-batching (`API_BATCH=1`), and their latencies; many
files in one request; a server's memory while it answers `--endurance` requests; what happens to more than it takes.
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
from pathlib import Path

import httpx
import keras
import numpy as np
import psutil

from bench.rounds import tell, time_rounds
from tasks.inference.predictor import Answer, from_folder
from tasks.modeling import out_of_distribution as ood
from tasks.modeling import saved
from tasks.modeling.layers import build_model
from tasks.params.architectures import ARCHITECTURES
from tasks.params.model_input import Form
from tests.support.draw import LABELS, draw_set

TOLERANCE = 1e-4  # of a probability: a batch adds up in another order than one image
FILES = 32  # in a request of many
BOUNDARY = b"boundary-of-the-benchmark"


@dataclass(frozen=True)
class Image:
    path: Path
    content: bytes
    expected: Answer


@dataclass
class Asked:
    """What became of requests."""

    seconds: list[float] = field(default_factory=list)  # of each that was answered with 200
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0  # answers that are not what was expected

    def __str__(self) -> str:
        statuses = ", ".join(
            f"{count} x {status}" for status, count in sorted(self.statuses.items())
        )
        return f"{statuses}, {self.wrong} answers wrong"

    def latency(self) -> str:
        p50, p95, p99 = 1000 * np.percentile(self.seconds, [50, 95, 99])
        return f"p50 {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f}"


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or _random_model(Path(scratch, "cnn_a"))
        images = _images(model, arguments.images or _drawn(Path(scratch, "heads")))
        print(
            f"{model.name}, {len(images)} images of {np.mean([len(image.content) for image in images]) / 1000:.1f} kB on average"
        )
        with (
            _server(model, arguments.port) as server,
            _server(model, arguments.port + 1, API_BATCH="1"),
        ):
            speed(model, images, arguments)
            endurance(server, images, arguments)
        with _server(model, arguments.port, API_WAITING_FILES="16", API_REQUEST_FILES="16"):
            overload(images, arguments)


def speed(model: Path, images: Sequence[Image], arguments: argparse.Namespace) -> None:
    """Print images/s and latencies of every way of asking."""
    batches, single, most = arguments.port, arguments.port + 1, max(arguments.clients)
    ways = {
        f"REST, {clients} clients": (batches, clients, 1)
        for clients in sorted(arguments.clients, reverse=True)
    }
    ways |= {
        f"REST, {clients} clients, no batches": (single, clients, 1)
        for clients in sorted(arguments.clients, reverse=True)
    }
    ways |= {f"REST, {FILES} files a request": (batches, max(1, most // 8), FILES)}
    asked: dict[str, list[Asked]] = defaultdict(list)
    sides = {
        name: _timed(lambda way=way: _ask(images, arguments.requests, *way), asked[name])
        for name, way in ways.items()
    }
    sides["Keras, one by one"] = _timed(
        lambda: _keras(model, images, arguments.requests), asked["Keras, one by one"]
    )
    tell(
        "Images/s; x: seconds against the first line",
        time_rounds(sides, arguments.rounds),
        arguments.requests,
        "images",
    )
    print("\nMilliseconds of a request")
    for name, rounds in asked.items():
        every = _together(rounds[1:])  # the first call of a side does not count
        print(f"  {name:28} {every.latency()}  {every}")


def endurance(
    server: psutil.Process, images: Sequence[Image], arguments: argparse.Namespace
) -> None:
    """Print the memory of a server between many requests."""
    print(f"\nMemory of the server over {arguments.endurance} requests")
    for part in range(10):
        asked = _ask(images, arguments.endurance // 10, arguments.port, max(arguments.clients), 1)
        requests = (part + 1) * (arguments.endurance // 10)
        print(f"  after {requests:6} requests {server.memory_info().rss / 1e6:7.0f} MB  {asked}")


def overload(images: Sequence[Image], arguments: argparse.Namespace) -> None:
    """Print what 64 clients get of a server that takes 16 images at a time, and whether it answers afterwards."""
    print(
        f"\nOverload, 64 clients where 16 images may wait: {_ask(images, arguments.requests, arguments.port, 64, 1)}"
    )
    print(f"  afterwards, one client: {_ask(images, 100, arguments.port, 1, 1)}")


def _timed(work: Callable[[], Asked], asked: list[Asked]) -> Callable[[], float]:
    def side() -> float:
        start = time.perf_counter()
        asked.append(work())
        return time.perf_counter() - start

    return side


def _together(rounds: Sequence[Asked]) -> Asked:
    seconds = [one for asked in rounds for one in asked.seconds]
    statuses = sum((asked.statuses for asked in rounds), Counter())
    return Asked(seconds, statuses, sum(asked.wrong for asked in rounds))


def _keras(model: Path, images: Sequence[Image], requests: int) -> Asked:
    """Ask Keras as notebooks do."""
    network, asked = keras.saving.load_model(model / "model.keras", compile=False), Asked()
    size, channels = network.input_shape[1:3], network.input_shape[3]
    for number in range(requests):
        start = time.perf_counter()
        colours = "grayscale" if channels == 1 else "rgb"
        picture = keras.utils.load_img(
            images[number % len(images)].path, target_size=size, color_mode=colours
        )
        network.predict(keras.utils.img_to_array(picture)[np.newaxis], verbose=0)
        asked.seconds.append(time.perf_counter() - start)
    return asked


def _ask(images: Sequence[Image], total: int, port: int, clients: int, files: int) -> Asked:
    """Ask for `total` images, `files` in a request, over some connections at a time."""
    asked = Asked()
    numbers = iter(range(0, total, files))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            sent = [images[(number + place) % len(images)] for place in range(files)]
            start = time.perf_counter()
            writer.write(_request(sent))
            status, body = await _response(reader)
            asked.statuses[status] += 1
            if status == 200:
                asked.seconds.append(time.perf_counter() - start)
                asked.wrong += sum(
                    not _as_expected(*pair)
                    for pair in zip(json.loads(body)["answers"], sent, strict=True)
                )
        writer.close()

    async def crowd() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    asyncio.run(crowd())
    return asked


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


def _as_expected(answer: dict, image: Image) -> bool:
    if image.expected.error:
        return answer["error"] is not None
    expected = image.expected.probabilities
    near = all(
        abs(answer["probabilities"][label] - probability) < TOLERANCE
        for label, probability in expected.items()
    )
    return near and answer["sha256"] == image.expected.sha256


def _random_model(folder: Path) -> Path:
    keras.utils.set_random_seed(0)
    model, grey = (
        build_model(ARCHITECTURES["cnn_a"], (224, 224, 3), len(LABELS)),
        np.full((1, 224, 224, 3), 99, np.uint8),
    )
    saved.describe(folder, list(LABELS), Form((224, 224), 3))
    saved.save(model, None, folder)
    statistics = ood.only_statistics(model).predict(grey, verbose=0)
    saved.complete(folder, 1.0, ood.describe(grey, statistics))
    return folder


def _drawn(folder: Path) -> Path:
    draw_set(folder, {"": dict.fromkeys(LABELS, 64)}, size=224)
    return folder


def _images(model: Path, folder: Path) -> list[Image]:
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
    command = [
        sys.executable,
        "-m",
        "serving.api",
        "--model",
        str(model.resolve()),
        "--port",
        str(port),
    ]
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
        prog="python -m bench.serving", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--model", type=Path, help="folder of a Keras model; default: cnn_a with random weights"
    )
    parser.add_argument("--images", type=Path, help="folder of image files; default: drawn heads")
    parser.add_argument("--requests", type=int, default=512, help="images of one round of a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument(
        "--endurance", type=int, default=20_000, help="requests over which memory is watched"
    )
    parser.add_argument("--port", type=int, default=8110, help="and the next one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
