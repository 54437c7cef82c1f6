"""A cache of large arrays on disk: decoded images, and arrays that are computed from them.

Each file in `.cache/` is keyed by the content of its array, and ends in a checksum. A damaged or
half-written file is noticed and made again. The files may be deleted at any time.
`ARRAY_CACHE_GB` (default 20) limits each folder: the arrays that were unused longest are deleted.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from tasks.errors import UserError
from tasks.imaging import decode as decoder
from tasks.imaging.render import render
from tasks.params.model_input import Form

CACHE = Path(".cache/arrays")
BLOCK = 256  # images that are in memory while decoding
DIGEST = 32  # bytes of SHA-256 behind the array

Shape = tuple[int, ...]

log = logging.getLogger(__name__)


def load_pixels(
    root: Path, paths: Sequence[str], hashes: Sequence[str], form: Form
) -> NDArray[np.uint8]:
    """Return read-only `uint8` pixels of shape (images, *form.shape), in the order of `paths`.

    `hashes` are the SHA-256 of the files, and key the cache. Raises `ImageError` and `OSError`.
    """
    shape = (len(paths), *form.shape)
    content = [decoder.VERSION, form, *hashes]
    return load_or_make(CACHE, content, shape, np.uint8, lambda: _decode(root, paths, form))


def load_or_make(
    folder: Path,
    content: Sequence[object],
    shape: Shape,
    dtype: DTypeLike,
    make: Callable[[], Iterator[NDArray[Any]]],
) -> NDArray[Any]:
    """Return the read-only array with this content; `make` yields its blocks if it is missing."""
    dtype = np.dtype(dtype)
    key = "\n".join(map(str, [shape, dtype, *content]))
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not _is_whole(file, shape, dtype):
            _make_room(folder, math.prod(shape) * dtype.itemsize)
            _write(file, shape, dtype, make())
    os.utime(file)
    return np.load(file, mmap_mode="r")


def _decode(root: Path, paths: Sequence[str], form: Form) -> Iterator[NDArray[np.uint8]]:
    def read(path: str) -> NDArray[np.uint8]:
        return render(decoder.decode_file(root / path), form)

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="decoding", unit=" images") as progress,
    ):
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            yield np.stack(list(pool.map(read, block)))
            progress.update(len(block))


def _is_whole(file: Path, shape: Shape, dtype: np.dtype[Any]) -> bool:
    try:
        array = np.load(file, mmap_mode="r")
        with file.open("rb") as source:
            source.seek(-DIGEST, os.SEEK_END)
            fits = (array.shape, array.dtype) == (shape, dtype)
            if fits and hashlib.sha256(array).digest() == source.read():
                return True
    except FileNotFoundError:
        return False
    except (ValueError, EOFError, OSError):
        pass
    log.info("%s is damaged, making it again", file)
    return False


def _make_room(folder: Path, wanted: int) -> None:
    cap = float(os.environ.get("ARRAY_CACHE_GB", "20")) * 1e9
    if wanted > cap:
        raise UserError(
            f"an array of the images needs {wanted / 1e9:.1f} GB in {folder}, allowed are "
            f"{cap / 1e9:.1f} GB: set ARRAY_CACHE_GB higher, or image_size lower"
        )
    files = sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        wanted += file.stat().st_size
        if wanted > cap:
            log.info("%s made room in the cache", file)
            file.unlink()


def _write(file: Path, shape: Shape, dtype: np.dtype[Any], blocks: Iterator[NDArray[Any]]) -> None:
    """Write the blocks one after the other.

    This raises an error on a full disk, where a memory map would crash.
    """
    part = file.with_suffix(".part")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    digest = hashlib.sha256()
    try:
        with part.open("wb") as target:
            np.lib.format.write_array_header_1_0(target, header)
            for block in blocks:
                content = np.ascontiguousarray(block, dtype).data
                digest.update(content)
                target.write(content)
            target.write(digest.digest())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
