"""Look at every file below a folder once: read it whole, decode it, measure it."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from PIL import ImageStat
from tqdm import tqdm

from tasks.errors import UserError
from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import ImageError, Limits
from tasks.quality.duplicates import perceptual_hash

SUBSETS = {
    "training": ("training", "train"),
    "validation": ("validation", "validate", "val", "valid"),
    "test": ("testing", "test"),
}
COLUMNS = (
    "path", "subset", "label", "status", "reason", "detail", "bytes", "sha256", "format", "mode",
    "width", "height", "mean", "std", "hash",
)  # fmt: skip


def scan(raw: Path, limits: Limits) -> pd.DataFrame:
    """Return one row per file under `raw`, sorted by path, with the columns `COLUMNS`.

    Folders named like a subset (Training, Testing, validate, …) hold class folders; without such a folder the class
    folders lie in `raw` itself. Raises `UserError` where there is no file.
    """
    paths = sorted(walk(raw), key=lambda path: path.as_posix())
    if not paths:
        raise UserError(f"{raw}: expected images in class folders, found no file; `make data FROM=<folder>` brings yours")
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
