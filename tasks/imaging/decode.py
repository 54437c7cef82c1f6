"""Image files to pixels: the one decoder, for validation, training and serving alike.

`decode` gives `uint8` pixels of shape (height, width, channels) or raises `ImageError` with a reason code. What an
image means never depends on other images: orientation is taken from EXIF, transparency is laid over white, 16-bit
grey is scaled by the full range of its type, animations give their first frame. For DICOM see `dicom.py`.
"""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tasks.imaging.picture import FORMATS, NO_LIMITS, PARSER_ERRORS, Decoded, ImageError, Limits
from tasks.params.model_input import Form

VERSION = 2  # raise when the same bytes would give other pixels: caches are keyed by it
JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")  # but those without bytes of their own
SPECKS = 0.02  # share of bright pixels, such as noise, that a dark row or column may have
MAX_SCANS = 100  # as libtiff allows: every one may take as long as the whole picture, and needs few bytes


def decode(source: Path | bytes, channels: int, size: tuple[int, int] | None = None, limits: Limits = NO_LIMITS) -> np.ndarray:
    """Return the pixels of an image file as `uint8`, shape (height, width, channels).

    `channels` is 1 (ITU-R 601 luma) or 3 (RGB). `size` is (height, width): the picture is stretched to it with an
    antialiased bilinear filter. Raises `ImageError`.
    """
    return _to_pixels(decode_file(source, limits).picture, channels, size)


def decode_file(source: Path | bytes, limits: Limits = NO_LIMITS) -> Decoded:
    """Decode a whole file, given by path or as bytes. Raises `ImageError`."""
    return decode_bytes(source if isinstance(source, bytes) else read_file(source, limits), limits)


def render(picture: Image.Image, *forms: Form) -> np.ndarray:
    """Return a decoded picture as a model takes it: `uint8` of shape `shape_of(forms)`."""
    pixels = [
        _to_pixels(_reduced(cut_dark_border(picture, form.dark_border), form), form.channels, form.image_size) for form in forms
    ]
    return pixels[0] if len(pixels) == 1 else np.concatenate([array.ravel() for array in pixels])


def cut_dark_border(picture: Image.Image, darkest: int | None) -> Image.Image:
    """Return the picture without the rows and columns around it that are dark: hardly a pixel has a grey value above `darkest`.

    A picture that is dark everywhere stays whole, and so does every picture where `darkest` is None.
    """
    if darkest is None:
        return picture
    bright = np.asarray(picture.convert("L")) > darkest
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > SPECKS) for axis in (1, 0))
    if not (len(rows) and len(columns)):
        return picture
    return picture.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def read_file(path: Path, limits: Limits = NO_LIMITS) -> bytes:
    """Return the bytes of a file, unread where it is too large. Raises `ImageError`."""
    try:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise ImageError("too_many_bytes", f"{size:,} bytes, allowed are {limits.max_bytes:,}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error


def decode_bytes(content: bytes, limits: Limits = NO_LIMITS) -> Decoded:
    """Decode a whole file, upright, to a picture of mode L or RGB. Raises `ImageError`."""
    if not content:
        raise ImageError("empty", "0 bytes")
    if len(content) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(content):,} bytes, allowed are {limits.max_bytes:,}")
    if content[128:132] == b"DICM":
        return _decode_dicom(content, limits)
    image = _identify(content, limits)
    return Decoded(_load(image), image.format or "", image.mode)


def _decode_dicom(content: bytes, limits: Limits) -> Decoded:
    try:
        from tasks.imaging.dicom import decode_dicom  # imports pydicom, an extra
    except ModuleNotFoundError as error:
        raise ImageError("missing_package", "a DICOM file, and pydicom is not installed: `pip install pydicom`") from error
    return decode_dicom(content, limits)


def _identify(content: bytes, limits: Limits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except PARSER_ERRORS as error:
        headless = content.startswith((b"\x08\x00", b"\x02\x00"))
        remedy = "; a DICOM file without its preamble? `dcmconv` adds it" if headless else ""
        raise ImageError("not_an_image", f"it begins with {content[:8]!r}{remedy}") from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError("too_many_pixels", f"{width:,} x {height:,} pixels, allowed are {limits.max_pixels:,}")
    if image.format in ("JPEG", "MPO") and (scans := _count_scans(content)) > MAX_SCANS:
        raise ImageError("corrupt", f"a JPEG of {scans:,} scans, allowed are {MAX_SCANS}")
    return image


def _count_scans(content: bytes) -> int:
    """Count how often a JPEG file goes over its picture, up to its end."""
    place, scans = 0, 0
    while (marker := JPEG_MARKER.search(content, place)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])  # behind the marker's own bytes
    return scans


def _load(image: Image.Image) -> Image.Image:
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # else it copies every picture
        return _to_grey_or_rgb(image)
    except ImageError:
        raise
    except PARSER_ERRORS as error:
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise ImageError(reason, str(error) or type(error).__name__) from error


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise ImageError("unsupported_mode", "32-bit floating point pixels")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("unsupported_mode", f"integer pixels from {values.min()} to {values.max()}")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _reduced(picture: Image.Image, form: Form) -> Image.Image:
    if form.detail is None:
        return picture
    height, width = (min(form.detail, side) for side in form.image_size)
    return picture.convert({1: "L", 3: "RGB"}[form.channels]).resize((width, height), Image.Resampling.BILINEAR)


def _to_pixels(picture: Image.Image, channels: int, size: tuple[int, int] | None) -> np.ndarray:
    picture = picture.convert({1: "L", 3: "RGB"}[channels])
    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if channels == 1 else pixels


def _over_white(image: Image.Image) -> Image.Image:
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
