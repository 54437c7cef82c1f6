"""Whether every way to ask a registered model gives the same answers: to 1e-5, for images of the project it is run in.

    python -m bench.answers                     # 200 images of data/clean, the champion
    python -m bench.answers --model challenger --images 50

Each way is a function from a registered version and image files to a table of `predicted` and p_<class>, and a line of `WAYS`.
Ends with status 1 where two ways differ.
"""

import argparse
import base64
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from flows.process import start
from tasks.registry import load, versions
from tasks.results import find_folder
from tasks.tables import read_table
from tasks.tracking.hashes import folder_sha256
from tasks.tracking.servers import find_free_port

CLEAN, MODELS, RESULTS, ENSEMBLES = (
    Path("data/clean"),
    Path("data/models"),
    Path("data/results"),
    Path("data/ensembles"),
)
TOLERANCE = 1e-5
WORDS = ("predicted", "abstained", "unfamiliar")
PORTION = 50  # images in one request
STARTUP = 120  # seconds


def trained(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """What the training wrote into predictions.csv. Raises `ValueError` where it is another training's."""
    model = find_folder(version.tags["architecture"], MODELS, ENSEMBLES)
    if folder_sha256(model) != version.tags[versions.SHA256]:
        raise ValueError(
            f"{model} is not what version {version.version} was made of: take another version"
        )
    table = predictions(version).set_index("path")
    return table.loc[[file.relative_to(CLEAN).as_posix() for file in files]]


def predictions(version: ModelVersion) -> pd.DataFrame:
    """Return the table beside what the version was made of."""
    return read_table(
        find_folder(version.tags["architecture"], RESULTS, ENSEMBLES) / "predictions.csv"
    )


def command_line(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """`python -m serving.predict --output`."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "answers.csv")
        names = ["--model", str(version.version), "--name", version.name, "--output", str(output)]
        subprocess.run(
            [sys.executable, "-m", "serving.predict", *map(str, files), *names],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return read_table(output)


def pyfunc(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """`mlflow.pyfunc.load_model`."""
    model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
    return model.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))


def mlflow_serve(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """`mlflow models serve`, asked in portions."""
    port = find_free_port()
    model = f"models:/{version.name}/{version.version}"
    command = [
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        model,
        "--env-manager",
        "local",
        "--port",
        str(port),
    ]
    rows: list[dict[str, object]] = []
    with serving(command, f"http://127.0.0.1:{port}/ping"):
        for start in range(0, len(files), PORTION):
            records = [
                {"image": base64.b64encode(file.read_bytes()).decode()}
                for file in files[start : start + PORTION]
            ]
            address = f"http://127.0.0.1:{port}/invocations"
            response = httpx.post(
                address, json={"dataframe_records": records}, timeout=300, trust_env=False
            )
            rows += response.raise_for_status().json()["predictions"]
    return pd.DataFrame(rows)


def rest(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """`POST /predict` of `make api`, asked in portions."""
    port = find_free_port()
    command = [
        sys.executable,
        "-m",
        "serving.api",
        "--model",
        str(version.version),
        "--name",
        version.name,
        "--port",
        str(port),
    ]
    rows: list[dict[str, object]] = []
    with serving(command, f"http://127.0.0.1:{port}/ready"):
        for parts in portions(files):
            answers = httpx.post(
                f"http://127.0.0.1:{port}/predict", files=parts, timeout=300, trust_env=False
            )
            rows += answers.raise_for_status().json()["answers"]
    probabilities = pd.DataFrame([row["probabilities"] for row in rows]).add_prefix("p_")
    return pd.concat([pd.DataFrame(rows).drop(columns="probabilities"), probabilities], axis=1)


def page(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """The page of `make web`: the CSV that it offers for several files."""
    port = find_free_port()
    command = [
        sys.executable,
        "-m",
        "serving.web",
        "--model",
        str(version.version),
        "--name",
        version.name,
        "--port",
        str(port),
    ]
    tables: list[pd.DataFrame] = []
    with serving(command, f"http://127.0.0.1:{port}/"):
        for parts in portions(files):
            shown = httpx.post(
                f"http://127.0.0.1:{port}/ask", files=parts, timeout=300, trust_env=False
            ).raise_for_status()
            offered = re.search(r'href="data:text/csv[^,]*,(.*?)"', shown.text)
            if offered is None:
                raise ValueError(f"the page offers no CSV: {shown.text[:200]}")
            tables.append(pd.read_csv(io.BytesIO(base64.b64decode(offered[1]))))
    return pd.concat(tables)


def portions(files: Sequence[Path]) -> Iterator[list[tuple[str, tuple[str, bytes]]]]:
    """Yield the files as the parts of one multipart request after the other."""
    for first in range(0, len(files), PORTION):
        yield [("files", (file.name, file.read_bytes())) for file in files[first : first + PORTION]]


WAYS = {
    "predictions.csv": trained, "command line": command_line, "pyfunc": pyfunc, "mlflow models serve": mlflow_serve,
    "REST": rest, "page": page,
}  # fmt: skip


@contextmanager
def serving(command: Sequence[str], health: str) -> Iterator[None]:
    """Have a server while open, which answers at the address `health`. Raises `OSError` with its last words."""
    keeper = start(command)
    words: deque[str] = deque(maxlen=20)
    threading.Thread(target=words.extend, args=(keeper.process.stdout,), daemon=True).start()
    deadline = time.monotonic() + STARTUP
    try:
        while not _answers(health):
            if keeper.process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{' '.join(command)} did not start:\n{''.join(words)}")
            time.sleep(0.2)
        yield
    finally:
        keeper.end("asked enough")
        keeper.process.wait()


def compare(version: ModelVersion, files: Sequence[Path]) -> bool:
    """Ask in every way, print how far each is from the one before, and return whether all are equal."""
    tables = {name: ask(version, files).reset_index(drop=True) for name, ask in WAYS.items()}
    equal = True
    print(f"{len(files)} images, {version.name} version {version.version}")
    for (name, table), (other, before) in zip(
        list(tables.items())[1:], tables.items(), strict=False
    ):
        numbers = [column for column in before if column.startswith("p_") or column == "distance"]
        apart = np.abs(table[numbers].to_numpy(float) - before[numbers].to_numpy(float)).max()
        words = [column for column in WORDS if column in before]
        differ = int((_words(table[words]) != _words(before[words])).any(axis=1).sum())
        equal &= bool(apart <= TOLERANCE) and not differ
        print(
            f"{name} against {other}: numbers differ by at most {apart:.1e}, {', '.join(words)} in {differ} images"
        )
    return equal


def main() -> None:
    """Compare the images of predictions.csv, spread over it evenly."""
    parser = argparse.ArgumentParser(
        description="Compare the answers of every way to ask a registered model."
    )
    parser.add_argument(
        "--model", default=versions.CHAMPION, help="an alias or a version (champion)"
    )
    parser.add_argument("--name", help="of the registered model (register.model of params.yaml)")
    parser.add_argument("--images", type=int, default=200, help="how many (200)")
    arguments = parser.parse_args()
    version = load.find_version(arguments.model, arguments.name)
    paths = predictions(version).path.tolist()
    chosen = np.linspace(0, len(paths) - 1, min(arguments.images, len(paths))).astype(int)
    sys.exit(not compare(version, [CLEAN / paths[index] for index in chosen]))


def _words(table: pd.DataFrame) -> pd.DataFrame:
    """Return text in place of truth values, which a CSV file has as text."""
    return table.fillna("").astype(str).apply(lambda column: column.str.lower())


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
