"""Look at every file once: `data/files.csv`, judged by Great Expectations.

Each file is read whole and fully decoded, whatever its name says; what cannot be used keeps its row, with a reason.
Fails when there is nothing to look at, or when an expectation of level `error` is not met: the files are named.
Run by hand: `dvc repro --single-item validate`.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from PIL import ImageStat
from tqdm import tqdm

from tasks.command import run
from tasks.imaging.decode import ImageError, Limits, decode_bytes, read_file
from tasks.imaging.duplicates import perceptual_hash
from tasks.params import load_params

SUBSETS = {
    "training": ("training", "train"),
    "validation": ("validation", "validate", "val", "valid"),
    "test": ("testing", "test"),
}
COLUMNS = (
    "path", "subset", "label", "status", "reason", "detail", "bytes", "sha256", "format", "mode",
    "width", "height", "mean", "std", "hash",
)  # fmt: skip

log = logging.getLogger(__name__)


def main(raw: Path, files_csv: Path, validation_json: Path, data_docs: Path) -> None:
    """Write the table of all files under `raw` and the verdict on it."""
    from tasks.imaging.expectations import judge  # Great Expectations costs seconds, which those who only scan do without

    params = load_params().validate_
    files = scan(raw, Limits(params.max_bytes, params.max_pixels))
    files_csv.parent.mkdir(parents=True, exist_ok=True)
    files.to_csv(files_csv, index=False, float_format="%.3f")
    tell(files)
    results = judge(files, params.expectations, data_docs)
    validation_json.write_text(json.dumps(results, indent=2) + "\n")
    stop_on_errors(results)


def scan(raw: Path, limits: Limits) -> pd.DataFrame:
    """Return one row per file under `raw`, sorted by path, with the columns `COLUMNS`.

    Folders named like a subset (Training, Testing, validate, …) hold class folders; without such a folder the class
    folders lie in `raw` itself. Raises `FileNotFoundError` where there is no file.
    """
    paths = sorted(walk(raw), key=lambda path: path.as_posix())
    if not paths:
        raise FileNotFoundError(f"{raw}: expected images in class folders, found no file; `make data FROM=<folder>` brings yours")
    subsets = find_subsets(raw)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(
            tqdm(pool.map(lambda path: _row(path, raw, subsets, limits), paths), total=len(paths), desc="files", unit=" files")
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"width": "Int64", "height": "Int64"})


def walk(root: Path) -> Iterator[Path]:
    """Yield every file below `root`; folders that are links are followed by DVC, so they are folders here."""
    for folder, _, names in os.walk(root, followlinks=True):
        yield from (Path(folder, name) for name in names)


def find_subsets(raw: Path) -> dict[str, str]:
    """Return {folder name: subset} of the top folders that hold a subset: named like one, with folders inside."""
    known = {name: subset for subset, names in SUBSETS.items() for name in names}
    folders = [folder for folder in raw.iterdir() if folder.is_dir()]
    return {
        folder.name: known[folder.name.lower()]
        for folder in folders
        if folder.name.lower() in known and any(inside.is_dir() for inside in folder.iterdir())
    }


def tell(files: pd.DataFrame) -> None:
    """Log what was found."""
    rejected = files[files.status == "rejected"]
    log.info("%d files, %d usable images, %d rejected", len(files), len(files) - len(rejected), len(rejected))
    for row in rejected.head(20).itertuples():
        log.info("  rejected %s: %s (%s)", row.path, row.reason, row.detail)
    if len(rejected) > 20:
        log.info("  … and %d more: see data/quarantine.csv", len(rejected) - 20)


def stop_on_errors(results: list[dict]) -> None:
    """Log every expectation that is not met. Raises `ValueError` when one of them is of level error."""
    failed = [result for result in results if not result["met"]]
    lines = [f"{result['level']}: {result['expectation']}: {result['message']}" for result in failed]
    for line in lines:
        log.info("  %s", line)
    errors = [line for line, result in zip(lines, failed, strict=True) if result["level"] == "error"]
    if errors:
        raise ValueError(
            "\n  ".join(["the images do not meet what params.yaml expects of them (validate.expectations):", *errors])
            + "\nMend the files at their source, or change the threshold or its level."
        )


def _row(path: Path, raw: Path, subsets: dict[str, str], limits: Limits) -> dict[str, object]:
    relative = path.relative_to(raw)
    parts = relative.parts
    subset = subsets.get(parts[0], "")
    label = parts[1 if subset else 0] if len(parts) > (2 if subset else 1) else ""
    row = {"path": relative.as_posix(), "subset": subset, "label": label, "status": "usable"}
    try:
        content = read_file(path, limits)
        row |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(content).hexdigest()}
        if not label or (subsets and not subset):
            raise ImageError("outside_class_folder", f"expected {'<subset>/' if subsets else ''}<class>/<file>")
        return row | _describe(content, limits)
    except ImageError as error:
        return row | {"status": "rejected", "reason": error.reason, "detail": error.detail}


def _describe(content: bytes, limits: Limits) -> dict[str, object]:
    decoded = decode_bytes(content, limits)
    width, height = decoded.picture.size
    grey = decoded.picture.convert("L")
    brightness = ImageStat.Stat(grey)
    return {
        "format": decoded.format,
        "mode": decoded.mode,
        "width": width,
        "height": height,
        "mean": brightness.mean[0],
        "std": brightness.stddev[0],
        "hash": perceptual_hash(grey),
    }


if __name__ == "__main__":
    run(main)
