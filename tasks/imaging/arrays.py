"""Arrays that are made once and kept on disk as memory-mapped files: decoded images, and what is computed from them.

The files lie in `.cache/`, keyed by what they are made of, each with its checksum at the end: one that is damaged or
half written is noticed and made again. They may be deleted at any time. `ARRAY_CACHE_GB` (20) caps each folder: the
longest unused arrays go first.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from tasks.errors import UserError
from tasks.imaging import decode as decoder
from tasks.params.model_input import Form

CACHE = Path(".cache/arrays")
BLOCK = 256  # images held in memory while decoding
DIGEST = 32  # bytes of SHA-256 behind the array

log = logging.getLogger(__name__)


def load_pixels(root: Path, paths: Sequence[str], hashes: Sequence[str], form: Form) -> np.ndarray:
    """Return read-only `uint8` pixels of shape (images, *form.shape), in the order of `paths`.

    `hashes` are the files' SHA-256, which key the cache. Raises `ImageError` and `OSError`.
    """
    shape = (len(paths), *form.shape)
    content = [decoder.VERSION, form, *hashes]
    return kept(CACHE, content, shape, np.dtype(np.uint8), lambda: _decode(root, paths, form))


def kept(
    folder: Path,
    content: Sequence[object],
    shape: tuple[int, ...],
    dtype: np.dtype,
    make: Callable[[], Iterator[np.ndarray]],
) -> np.ndarray:
    """Return the read-only array of this `content` from `folder`, after making it block by block where it is not there."""
    key = chr(10).join(map(str, [shape, dtype, *content]))
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not _is_whole(file, shape, dtype):
            _make_room(folder, math.prod(shape) * dtype.itemsize)
            _write(file, shape, dtype, make())
    os.utime(file)
    return np.load(file, mmap_mode="r")


def _decode(root: Path, paths: Sequence[str], form: Form) -> Iterator[np.ndarray]:
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="decoding", unit=" images") as progress,
    ):
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            yield np.stack(
                list(
                    pool.map(
                        lambda path: decoder.render(decoder.decode_file(root / path), form), block
                    )
                )
            )
            progress.update(len(block))


def _write(
    file: Path, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterator[np.ndarray]
) -> None:
    """Write blocks one after the other: on a full disk that raises, where a memory map would crash."""
    part = file.with_suffix(".part")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    digest = hashlib.sha256()
    try:
        with part.open("wb") as target:
            np.lib.format.write_array_header_1_0(target, header)
            for block in blocks:
                content = np.ascontiguousarray(block, dtype)
                digest.update(content)
                target.write(content)
            target.write(digest.digest())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _is_whole(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    try:
        array = np.load(file, mmap_mode="r")
        with file.open("rb") as source:
            source.seek(-DIGEST, os.SEEK_END)
            if (array.shape, array.dtype) == (shape, dtype) and hashlib.sha256(
                array
            ).digest() == source.read():
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
            f"an array of the images needs {wanted / 1e9:.1f} GB in {folder}, allowed are {cap / 1e9:.1f} GB: "
            "set ARRAY_CACHE_GB higher, or image_size lower"
        )
    files = sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        wanted += file.stat().st_size
        if wanted > cap:
            log.info("%s made room in the cache", file)
            file.unlink()
