"""Look at every file below a folder once: read it whole, decode it, measure it."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from PIL import ImageStat
from tqdm import tqdm

from tasks.errors import UserError
from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import OLD_BITS, Decoded, ImageError, Limits, fit_bits
from tasks.params.validate import Validate
from tasks.quality import folders
from tasks.quality.duplicates import perceptual_hash
from tasks.quality.layout import Layout, read_foreign_layout, read_layout

DEFAULT = Validate()

COLUMNS = (
    "path", "subset", "label", "status", "reason", "detail", "bytes", "sha256", "format", "mode",
    "width", "height", "mean", "std", "levels", "peak", "hash",
)  # fmt: skip

CLIPPED = "pixels brighter than in any image that is not given as test: they are white"

log = logging.getLogger(__name__)


def scan(raw: Path, limits: Limits, validate: Validate | None = DEFAULT) -> pd.DataFrame:
    """Return one row per file under `raw` but litter, sorted by path, with the columns `COLUMNS`.

    Part and class are those of `read_layout`, or, with None for `validate`, of `read_foreign_layout`.
    Raises `UserError` where there is no file, or no clear layout.
    """
    paths = sorted(walk(raw), key=lambda path: path.as_posix())
    if not paths:
        raise UserError(
            f"{raw}: expected images in class folders, found no file; `make data FROM=<folder>` brings yours"
        )
    layout = read_foreign_layout(raw) if validate is None else read_layout(raw, validate)
    for note in layout.notes:
        log.info("%s", note)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(
            tqdm(
                pool.map(lambda path: _row(path, raw, layout, limits), paths),
                total=len(paths),
                desc="files",
                unit=" files",
            )
        )
    bits = find_bits(pd.DataFrame(rows, columns=list(COLUMNS)))
    rows = [row | _detail(row, row["scales"][bits]) if "scales" in row else row for row in rows]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        dict.fromkeys(("width", "height", "levels", "peak"), "Int64")
    )


def find_bits(files: pd.DataFrame) -> int | None:
    """Return the bits that hold the grey values of all files that are not given as test; None where no file has more than 8.

    Files that say how many bits they have do not count; where there are no others, it is 16.
    """
    if not is_deep(files).any():
        return None
    peak = files.peak[files.subset != "test"].max()
    return OLD_BITS if pd.isna(peak) else fit_bits(int(peak))


def is_deep(files: pd.DataFrame) -> pd.Series:
    """Say of each file whether its values have more than 8 bits."""
    return files["mode"].fillna("").str.startswith(("I", "RGB;16"))


def walk(root: Path) -> Iterator[Path]:
    """Yield every file below `root` but litter; folders that are links are followed by DVC, so they are folders here."""
    for folder, _, names in folders.walk(root):
        yield from (Path(folder, name) for name in names)


def _row(path: Path, raw: Path, layout: Layout, limits: Limits) -> dict[str, object]:
    relative = path.relative_to(raw).as_posix()
    part, label = layout.place(relative)
    row: dict[str, object] = {"path": relative, "subset": part, "label": label, "status": "usable"}
    if layout.is_aside(relative):
        return row | {
            "subset": "",
            "label": "",
            "status": "aside",
            "reason": "unlabelled",
            "detail": "it lies in no class folder",
        }
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
    found = {
        "detail": decoded.note or None,
        "format": decoded.format,
        "mode": decoded.mode,
        "width": width,
        "height": height,
        "peak": decoded.peak,
        "hash": perceptual_hash(grey),
    }
    return found | (
        _measure(grey.histogram()) if decoded.peak is None else {"scales": _scales(decoded)}
    )


def _measure(histogram: Sequence[int]) -> dict[str, object]:
    """Return mean, standard deviation and number of the grey levels of a picture by how often each of 256 is used."""
    brightness = ImageStat.Stat(list(histogram))
    return {
        "mean": brightness.mean[0],
        "std": brightness.stddev[0],
        "levels": sum(map(bool, histogram)),
    }


def _scales(decoded: Decoded) -> dict[int, dict[str, object]]:
    """Measure a picture of more than 8 bits on every scale that the set may turn out to have, by its bits."""
    return {
        bits: _measure(decoded.scale_to(bits).convert("L").histogram())
        | {"clipped": decoded.clipped(bits)}
        for bits in range(8, 33, 2)
    }


def _detail(row: dict[str, object], measured: dict[str, object]) -> dict[str, object]:
    """Return what was measured, with the share of pixels that are too bright for the scale in words."""
    clipped = f"{CLIPPED} ({measured['clipped']:.2%})" if measured["clipped"] else ""
    return measured | {"detail": "; ".join(filter(None, (row["detail"], clipped))) or None}
