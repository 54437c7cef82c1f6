"""Image files to pixels: the one decoder, for validation, training and serving alike.

The pixels are upright as EXIF says, and transparency is laid over white. Animations and files of
several pages give the first frame. CIELAB becomes sRGB. Values of more than 8 bits keep the
highest 8 of their bit depth. The file declares that depth, or else the training images decide it
(`Form.bits`). Unreadable metadata stops nothing. `dicom.py` decodes DICOM, `pillow.py` the rest.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.metadata import LARGE, cut_metadata
from tasks.imaging.picture import NO_LIMITS, Decoded, ImageError, Limits
from tasks.imaging.pillow import METADATA, ORIENTATION, decode_with_pillow
from tasks.imaging.render import to_pixels

VERSION = 3  # raise it when the same bytes would give other pixels: caches are keyed by it
EXIF = re.compile(rb"Exif\0\0|eXIf|EXIF")  # in JPEG, PNG and WebP
# Damaged metadata can cause these reasons.
MENDABLE = ("not_an_image", "truncated", "corrupt", "unsupported_mode")


def decode(
    source: Path | bytes,
    channels: int,
    size: tuple[int, int] | None = None,
    limits: Limits = NO_LIMITS,
) -> NDArray[np.uint8]:
    """Return the pixels of an image file as `uint8`, with the shape (height, width, channels).

    `channels` is 1 (ITU-R 601 luma) or 3 (RGB). `size` is (height, width): the image is stretched
    to it with an antialiased bilinear filter. Raises `ImageError`.
    """
    return to_pixels(decode_file(source, limits).picture, channels, size)


def decode_file(source: Path | bytes, limits: Limits = NO_LIMITS) -> Decoded:
    """Decode a whole file, given by path or as bytes. Raises `ImageError`."""
    return decode_bytes(source if isinstance(source, bytes) else read_file(source, limits), limits)


def read_file(path: Path, limits: Limits = NO_LIMITS) -> bytes:
    """Return the bytes of a file. Raises `ImageError`; a file that is too large is not read."""
    try:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise ImageError("too_many_bytes", f"{size:,} bytes, allowed are {limits.max_bytes:,}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error


def decode_bytes(content: bytes, limits: Limits = NO_LIMITS) -> Decoded:
    """Decode the content of a file. Raises `ImageError`."""
    if not content:
        raise ImageError("empty", "0 bytes")
    if len(content) > limits.max_bytes:
        detail = f"{len(content):,} bytes, allowed are {limits.max_bytes:,}"
        raise ImageError("too_many_bytes", detail)
    if content[128:132] == b"DICM":
        return _decode_dicom(content, limits)
    lean = cut_metadata(content, keep_exif=True)
    given = lean if len(content) - len(lean) > LARGE else content
    try:
        return decode_with_pillow(given, limits)
    except ImageError as error:
        if error.reason not in MENDABLE:
            raise
        lost = ORIENTATION if EXIF.search(content) else METADATA
        for bare, note in ((lean, METADATA), (cut_metadata(content, keep_exif=False), lost)):
            if bare != given and (decoded := _try_to_decode(bare, limits)):
                return replace(decoded, note=decoded.note or note)
        raise


def _try_to_decode(content: bytes, limits: Limits) -> Decoded | None:
    try:
        return decode_with_pillow(content, limits)
    except ImageError:
        return None


def _decode_dicom(content: bytes, limits: Limits) -> Decoded:
    try:
        from tasks.imaging.dicom import decode_dicom  # it imports pydicom, an optional package
    except ModuleNotFoundError as error:
        raise ImageError(
            "missing_package", "a DICOM file, and pydicom is not installed: `pip install pydicom`"
        ) from error
    return decode_dicom(content, limits)
