"""Decoded images of one size as a memory-mapped array, made once for all architectures and epochs.

The file lies in `.cache/arrays`, keyed by the images' content, the size and the decoder's version. It may be deleted at
any time. `ARRAY_CACHE_GB` (20) caps the folder: the longest unused arrays go first.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from tasks.imaging import decode as decoder

CACHE = Path(".cache/arrays")
BLOCK = 256  # images held in memory while decoding

log = logging.getLogger(__name__)


def load_pixels(root: Path, paths: Sequence[str], hashes: Sequence[str], size: tuple[int, int], channels: int) -> np.ndarray:
    """Return read-only `uint8` pixels of shape (images, height, width, channels), in the order of `paths`.

    `hashes` are the files' SHA-256, which key the cache. Raises `ImageError` and `OSError`.
    """
    shape = (len(paths), *size, channels)
    content = "\n".join([str(decoder.VERSION), str(shape), *hashes])
    file = CACHE / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not _is_whole(file, shape):
            _make_room(int(np.prod(shape)))
            _write(file, shape, _decode(root, paths, size, channels))
    os.utime(file)
    return np.load(file, mmap_mode="r")


def _decode(root: Path, paths: Sequence[str], size: tuple[int, int], channels: int) -> Iterator[np.ndarray]:
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(paths), desc="decoding", unit=" images") as progress:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            yield np.stack(list(pool.map(lambda path: decoder.decode(root / path, channels, size), block)))
            progress.update(len(block))


def _write(file: Path, shape: tuple[int, ...], blocks: Iterator[np.ndarray]) -> None:
    """Write blocks one after the other: on a full disk that raises, where a memory map would crash."""
    part = file.with_suffix(".part")
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    try:
        with part.open("wb") as target:
            np.lib.format.write_array_header_1_0(target, header)
            for block in blocks:
                target.write(block.data)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(file, mmap_mode="r").shape == shape
    except FileNotFoundError:
        return False
    except (ValueError, EOFError):
        log.info("%s is damaged, making it again", file)
        return False


def _make_room(wanted: int) -> None:
    cap = float(os.environ.get("ARRAY_CACHE_GB", "20")) * 1e9
    if wanted > cap:
        raise ValueError(
            f"the decoded images need {wanted / 1e9:.1f} GB in {CACHE}, allowed are {cap / 1e9:.1f} GB: "
            "set ARRAY_CACHE_GB higher, or image_size lower"
        )
    files = sorted(CACHE.glob("*.npy"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        wanted += file.stat().st_size
        if wanted > cap:
            log.info("%s made room in the cache", file)
            file.unlink()
