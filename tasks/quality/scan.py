"""Look at every file below a folder once: read it whole, decode it, measure it."""

import hashlib
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
from tasks.quality.duplicates import perceptual_hash

SUBSETS = {
    "training": ("training", "train"),
    "validation": ("validation", "validate", "val", "valid"),
    "test": ("testing", "test"),
}
COLUMNS = (
    "path", "subset", "label", "status", "reason", "detail", "bytes", "sha256", "format", "mode",
    "width", "height", "mean", "std", "levels", "peak", "hash",
)  # fmt: skip

CLIPPED = "pixels brighter than in any image that is not given as test: they are white"


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
    bits = find_bits(pd.DataFrame(rows, columns=list(COLUMNS)))
    rows = [row | _detail(row, row["scales"][bits]) if "scales" in row else row for row in rows]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("width", "height", "levels", "peak"), "Int64"))


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
    found = {
        "detail": decoded.note or None,
        "format": decoded.format,
        "mode": decoded.mode,
        "width": width,
        "height": height,
        "peak": decoded.peak,
        "hash": perceptual_hash(grey),
    }
    return found | (_measure(grey.histogram()) if decoded.peak is None else {"scales": _scales(decoded)})


def _measure(histogram: Sequence[int]) -> dict[str, object]:
    """Return mean, standard deviation and number of the grey levels of a picture by how often each of 256 is used."""
    brightness = ImageStat.Stat(list(histogram))
    return {"mean": brightness.mean[0], "std": brightness.stddev[0], "levels": sum(map(bool, histogram))}


def _scales(decoded: Decoded) -> dict[int, dict[str, object]]:
    """Measure a picture of more than 8 bits on every scale that the set may turn out to have, by its bits."""
    return {
        bits: _measure(decoded.scale_to(bits).convert("L").histogram()) | {"clipped": decoded.clipped(bits)}
        for bits in range(8, 33, 2)
    }


def _detail(row: dict[str, object], measured: dict[str, object]) -> dict[str, object]:
    """Return what was measured, with the share of pixels that are too bright for the scale in words."""
    clipped = f"{CLIPPED} ({measured['clipped']:.2%})" if measured["clipped"] else ""
    return measured | {"detail": "; ".join(filter(None, (row["detail"], clipped))) or None}
