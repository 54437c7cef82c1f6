"""Check that every way to use a registered model gives the same predictions, up to 1e-5.

    python -m bench.answers                     # 200 images of data/clean, the champion
    python -m bench.answers --model challenger --images 50

Run it in a project. Each way is a function from a registered version and image files to a table of
`predicted` and p_<class>, and a line of `WAYS`. Exits with 1 if two ways differ.
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

CLEAN, MODELS = Path("data/clean"), Path("data/models")
RESULTS, ENSEMBLES = Path("data/results"), Path("data/ensembles")
TOLERANCE = 1e-5
TEXTS = ("predicted", "abstained", "unfamiliar")
PER_REQUEST = 50  # images
STARTUP = 120  # seconds


def read_trained(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """Read the training's predictions. Raises `ValueError` if the model was trained again."""
    model = find_folder(version.tags["architecture"], MODELS, ENSEMBLES)
    if folder_sha256(model) != version.tags[versions.SHA256]:
        raise ValueError(
            f"{model} differs from the files of version {version.version}: take another version"
        )
    table = read_predictions(version).set_index("path")
    return table.loc[[file.relative_to(CLEAN).as_posix() for file in files]]


def read_predictions(version: ModelVersion) -> pd.DataFrame:
    """Read predictions.csv of the model that became the version."""
    return read_table(
        find_folder(version.tags["architecture"], RESULTS, ENSEMBLES) / "predictions.csv"
    )


def predict_by_command(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """Predict by `python -m serving.predict --output`."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "answers.csv")
        names = ["--model", str(version.version), "--name", version.name, "--output", str(output)]
        subprocess.run(
            [sys.executable, "-m", "serving.predict", *map(str, files), *names],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return read_table(output)


def predict_by_pyfunc(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """Predict by `mlflow.pyfunc.load_model`."""
    model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
    return model.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))


def predict_by_mlflow(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """Predict by requests to `mlflow models serve`."""
    port = find_free_port()
    model = f"models:/{version.name}/{version.version}"
    command = f"mlflow models serve --env-manager local --port {port} --model-uri".split()
    rows: list[dict[str, object]] = []
    with serving([*command, model], f"http://127.0.0.1:{port}/ping"):
        for start in range(0, len(files), PER_REQUEST):
            records = [
                {"image": base64.b64encode(file.read_bytes()).decode()}
                for file in files[start : start + PER_REQUEST]
            ]
            address = f"http://127.0.0.1:{port}/invocations"
            response = httpx.post(
                address, json={"dataframe_records": records}, timeout=300, trust_env=False
            )
            rows += response.raise_for_status().json()["predictions"]
    return pd.DataFrame(rows)


def predict_by_rest(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """Predict by `POST /predict` of `make api`."""
    port = find_free_port()
    command = serving_command("serving.api", version, port)
    rows: list[dict[str, object]] = []
    with serving(command, f"http://127.0.0.1:{port}/ready"):
        for parts in split_requests(files):
            answers = httpx.post(
                f"http://127.0.0.1:{port}/predict", files=parts, timeout=300, trust_env=False
            )
            rows += answers.raise_for_status().json()["answers"]
    probabilities = pd.DataFrame([row["probabilities"] for row in rows]).add_prefix("p_")
    return pd.concat([pd.DataFrame(rows).drop(columns="probabilities"), probabilities], axis=1)


def predict_by_page(version: ModelVersion, files: Sequence[Path]) -> pd.DataFrame:
    """Predict by the page of `make web`, and read the CSV file that it offers."""
    port = find_free_port()
    command = serving_command("serving.web", version, port)
    tables: list[pd.DataFrame] = []
    with serving(command, f"http://127.0.0.1:{port}/"):
        for parts in split_requests(files):
            shown = httpx.post(
                f"http://127.0.0.1:{port}/ask", files=parts, timeout=300, trust_env=False
            ).raise_for_status()
            offered = re.search(r'href="data:text/csv[^,]*,(.*?)"', shown.text)
            if offered is None:
                raise ValueError(f"the page offers no CSV: {shown.text[:200]}")
            tables.append(pd.read_csv(io.BytesIO(base64.b64decode(offered[1]))))
    return pd.concat(tables)


def serving_command(module: str, version: ModelVersion, port: int) -> list[str]:
    """Return the command of one of our servers for a registered version."""
    options = ["--model", str(version.version), "--name", version.name, "--port", str(port)]
    return [sys.executable, "-m", module, *options]


def split_requests(files: Sequence[Path]) -> Iterator[list[tuple[str, tuple[str, bytes]]]]:
    """Yield the parts of one multipart request after the other."""
    for first in range(0, len(files), PER_REQUEST):
        yield [
            ("files", (file.name, file.read_bytes())) for file in files[first : first + PER_REQUEST]
        ]


WAYS = {
    "predictions.csv": read_trained,
    "command line": predict_by_command,
    "pyfunc": predict_by_pyfunc,
    "mlflow models serve": predict_by_mlflow,
    "REST": predict_by_rest,
    "page": predict_by_page,
}


@contextmanager
def serving(command: Sequence[str], health: str) -> Iterator[None]:
    """Run a server until the block ends, and wait until the address `health` answers.

    Raises `OSError` with the last lines of a server that does not start.
    """
    keeper = start(command)
    lines: deque[str] = deque(maxlen=20)
    threading.Thread(target=lines.extend, args=(keeper.lines,), daemon=True).start()
    deadline = time.monotonic() + STARTUP
    try:
        while not _is_answering(health):
            if keeper.process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{' '.join(command)} did not start:\n{''.join(lines)}")
            time.sleep(0.2)
        yield
    finally:
        keeper.end("no more requests")
        keeper.process.wait()


def compare(version: ModelVersion, files: Sequence[Path]) -> bool:
    """Predict in every way, print the differences of each from the one before, and compare.

    Returns whether all are equal.
    """
    tables = {name: way(version, files).reset_index(drop=True) for name, way in WAYS.items()}
    equal = True
    print(f"{len(files)} images, {version.name} version {version.version}")
    for (name, table), (other, before) in zip(
        list(tables.items())[1:], tables.items(), strict=False
    ):
        numbers = [column for column in before if column.startswith("p_") or column == "distance"]
        apart = np.abs(table[numbers].to_numpy(float) - before[numbers].to_numpy(float)).max()
        texts = [column for column in TEXTS if column in before]
        differ = int((_as_text(table[texts]) != _as_text(before[texts])).any(axis=1).sum())
        equal &= bool(apart <= TOLERANCE) and not differ
        print(
            f"{name} against {other}: numbers differ by at most {apart:.1e}, "
            f"{', '.join(texts)} in {differ} images"
        )
    return equal


def main() -> None:
    """Compare images that are spread evenly over predictions.csv."""
    parser = argparse.ArgumentParser(
        description="Compare the predictions of every way to use a registered model."
    )
    parser.add_argument(
        "--model", default=versions.CHAMPION, help="an alias or a version (default: champion)"
    )
    parser.add_argument("--name", help="name of the registered model (default: register.model)")
    parser.add_argument("--images", type=int, default=200, help="number of images (default: 200)")
    arguments = parser.parse_args()
    version = load.find_version(arguments.model, arguments.name)
    paths = read_predictions(version).path.tolist()
    chosen = np.linspace(0, len(paths) - 1, min(arguments.images, len(paths))).astype(int)
    sys.exit(not compare(version, [CLEAN / paths[index] for index in chosen]))


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return the values as text, since a CSV file holds truth values as text."""
    return table.fillna("").astype(str).apply(lambda column: column.str.lower())


def _is_answering(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
