"""Scan the files below a folder: read each of them once, decode it, measure it."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import ImageStat
from tqdm import tqdm

from tasks.errors import UserError
from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import DEFAULT_BITS, Decoded, ImageError, Limits, fit_bits
from tasks.params.validate import Validate
from tasks.quality import folders
from tasks.quality.duplicates import perceptual_hash
from tasks.quality.layout import FolderLayout
from tasks.quality.read_layout import read_foreign_layout, read_layout

DEFAULT = Validate()

FILES_COLUMNS = {
    "path": "The path of the file below data/raw.",
    "subset": "The split that its folder means: training, validation, test, or empty.",
    "label": "Its class.",
    "status": "usable; rejected, with a reason; or aside, because it is in no class folder.",
    "reason": "Why the file is rejected or left aside, as a code.",
    "detail": "What was found in words, also for usable images with something to remark.",
    "bytes": "The size of the file in bytes.",
    "sha256": "The SHA-256 of its content.",
    "format": "The format of its content, whatever its name says.",
    "mode": "How its pixels are stored, in Pillow's words (L is grey, RGB is colour).",
    "width": "The width in pixels, after the image was turned upright.",
    "height": "The height in pixels, after the image was turned upright.",
    "mean": "The mean of its grey values, 0 to 255.",
    "std": "The standard deviation of its grey values, 0 to 255.",
    "levels": "How many of the 256 grey values occur in it.",
    "peak": "The largest stored value, if it has more than 8 bits a value and declares no depth.",
    "hash": "The perceptual hash, 60 hexadecimal digits; empty for an image of one grey value.",
}

CLIPPED = "pixels brighter than in any image that is not given as test: they are white"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """The table of all files, and what else a person should know of them."""

    files: pd.DataFrame  # one row a file, with the columns FILES_COLUMNS
    bits: int | None  # the bit depth of the set; None if no file has more than 8 bits a value
    remarks: dict[str, list[str]]  # {remark: paths of the usable images that it concerns}


def scan(raw: Path, limits: Limits, validate: Validate | None = DEFAULT) -> Scan:
    """Scan all files below `raw` except junk, sorted by path.

    `validate` None reads the folders as `read_foreign_layout` does. Raises `UserError` if there is
    no file, or if the layout of the folders is not clear.
    """
    paths = sorted(list_files(raw), key=lambda path: path.as_posix())
    if not paths:
        raise UserError(
            f"{raw}: expected images in class folders, found no file; "
            "`make data FROM=<folder>` imports yours"
        )
    layout = read_foreign_layout(raw) if validate is None else read_layout(raw, validate)
    for note in layout.notes:
        log.info("%s", note)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda path: _scan_file(path, raw, layout, limits), paths)
        rows = list(tqdm(found, total=len(paths), desc="files", unit=" files"))
    bits = _find_bit_depth(_make_table(rows))
    remarks: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] == "usable":
            for remark in _finish(row, bits):
                remarks.setdefault(remark, []).append(row["path"])
    return Scan(_make_table(rows), bits, dict(sorted(remarks.items())))


def list_files(root: Path) -> Iterator[Path]:
    """Yield every file below `root` except junk. Links to folders are followed, as DVC does."""
    for folder, _, names in folders.walk(root):
        yield from (Path(folder, name) for name in names)


def is_deep(files: pd.DataFrame) -> pd.Series:
    """Say for each file whether it has more than 8 bits a value."""
    return files["mode"].astype(str).str.startswith(("I", "RGB;16"))


def _make_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(FILES_COLUMNS))
    return table.astype(dict.fromkeys(("width", "height", "levels", "peak"), "Int64"))


def _scan_file(path: Path, raw: Path, layout: FolderLayout, limits: Limits) -> dict[str, Any]:
    """Return the row of a file. Deep images have the measurements for all `scales` in it."""
    relative = path.relative_to(raw).as_posix()
    row: dict[str, Any] = {"path": relative, "subset": "", "label": ""}
    if layout.is_aside(relative):
        remark = {"reason": "unlabelled", "detail": "it lies in no class folder"}
        return row | {"status": "aside"} | remark
    row["subset"], row["label"] = layout.find_place(relative)
    try:
        content = read_file(path, limits)
        row |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(content).hexdigest()}
        if not row["label"]:
            raise ImageError("outside_class_folder", layout.expected)
        return row | {"status": "usable"} | _describe(decode_bytes(content, limits))
    except ImageError as error:
        return row | {"status": "rejected", "reason": error.reason, "detail": error.detail}


def _describe(decoded: Decoded) -> dict[str, Any]:
    width, height = decoded.picture.size
    grey = decoded.picture.convert("L")
    found = {
        "note": decoded.note,
        "format": decoded.format,
        "mode": decoded.mode,
        "width": width,
        "height": height,
        "peak": decoded.peak,
        "hash": perceptual_hash(grey),
    }
    if decoded.peak is None:
        return found | _measure(grey.histogram())
    return found | {"scales": _measure_scales(decoded)}


def _measure(histogram: Sequence[int]) -> dict[str, Any]:
    """Return the mean, the standard deviation and the number of the 256 grey values in use."""
    brightness = ImageStat.Stat(list(histogram))
    return {
        "mean": brightness.mean[0],
        "std": brightness.stddev[0],
        "levels": sum(map(bool, histogram)),
    }


def _measure_scales(decoded: Decoded) -> dict[int, dict[str, Any]]:
    """Measure a deep image for each bit depth that the set may turn out to have."""
    return {
        bits: _measure(decoded.scale_to(bits).convert("L").histogram())
        | {"clipped": decoded.measure_clipped(bits)}
        for bits in range(8, 33, 2)
    }


def _find_bit_depth(files: pd.DataFrame) -> int | None:
    """Return the bit depth of the set; None if no file has more than 8 bits a value.

    It is enough for all files outside the test folder that declare no bit depth. Without such files
    it is 16.
    """
    if not is_deep(files).any():
        return None
    peak = files.peak[files.subset != "test"].max()
    return DEFAULT_BITS if pd.isna(peak) else fit_bits(int(peak))


def _finish(row: dict[str, Any], bits: int | None) -> list[str]:
    """Measure a usable image on the scale of the set, and return the remarks on it."""
    measured = row["scales"][bits] if "scales" in row else {"clipped": 0.0}
    row |= measured
    remarks = {row["note"]: row["note"]} if row["note"] else {}
    if measured["clipped"]:
        remarks[CLIPPED] = f"{CLIPPED} ({measured['clipped']:.2%})"
    row["detail"] = "; ".join(remarks.values()) or None
    return list(remarks)
