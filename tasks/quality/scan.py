"""Look at every file below a folder once: read it whole, decode it, measure it."""

import hashlib
import logging
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
from tasks.params.validate import Validate
from tasks.quality import folders
from tasks.quality.duplicates import perceptual_hash
from tasks.quality.layout import Layout, read_layout

DEFAULT = Validate()

COLUMNS = (
    "path", "subset", "label", "status", "reason", "detail", "bytes", "sha256", "format", "mode",
    "width", "height", "mean", "std", "hash",
)  # fmt: skip

log = logging.getLogger(__name__)


def scan(raw: Path, limits: Limits, validate: Validate = DEFAULT) -> pd.DataFrame:
    """Return one row per file under `raw` but litter, sorted by path, with the columns `COLUMNS`.

    Part and class are those of `read_layout`. Raises `UserError` where there is no file, or no clear layout.
    """
    paths = sorted(walk(raw), key=lambda path: path.as_posix())
    if not paths:
        raise UserError(f"{raw}: expected images in class folders, found no file; `make data FROM=<folder>` brings yours")
    layout = read_layout(raw, validate)
    for note in layout.notes:
        log.info("%s", note)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(
            tqdm(pool.map(lambda path: _row(path, raw, layout, limits), paths), total=len(paths), desc="files", unit=" files")
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"width": "Int64", "height": "Int64"})


def walk(root: Path) -> Iterator[Path]:
    """Yield every file below `root` but litter; folders that are links are followed by DVC, so they are folders here."""
    for folder, _, names in folders.walk(root):
        yield from (Path(folder, name) for name in names)


def _row(path: Path, raw: Path, layout: Layout, limits: Limits) -> dict[str, object]:
    relative = path.relative_to(raw).as_posix()
    part, label = layout.place(relative)
    row: dict[str, object] = {"path": relative, "subset": part, "label": label, "status": "usable"}
    if layout.is_aside(relative):
        return row | {"subset": "", "label": "", "status": "aside", "reason": "unlabelled", "detail": "it lies in no class folder"}
    try:
        content = read_file(path, limits)
        row |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(content).hexdigest()}
        if not label:
            raise ImageError("outside_class_folder", layout.expected)
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
