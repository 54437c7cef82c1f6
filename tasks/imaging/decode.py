"""Image files to pixels: the one decoder, for validation, training and serving alike.

`decode` gives `uint8` pixels of shape (height, width, channels) or raises `ImageError` with a reason code. Orientation is
taken from EXIF, transparency is laid over white, animations and files of several pages give the first, CIELAB becomes sRGB.
Values of more than 8 bits keep their highest 8: of the bits that the file declares, or else of those that the training
images need (`Form.bits`). Metadata that cannot be read stops nothing. For DICOM see `dicom.py`.
"""

import io
import math
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, features

from tasks.imaging.kinds import AVIF, HEIC, TIFF, name_kind
from tasks.imaging.metadata import LARGE, PNM, cut, is_cut_short
from tasks.imaging.picture import FORMATS, NO_LIMITS, PARSER_ERRORS, Decoded, ImageError, Limits
from tasks.params.model_input import Form

VERSION = 3  # raise when the same bytes would give other pixels: caches are keyed by it
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")  # but those without bytes of their own
SPECKS = 0.02  # share of bright pixels, such as noise, that a dark row or column may have
RLE4 = 2  # of BMP's compressions
MAX_SCANS = (
    100  # as libtiff allows: every one may take as long as the whole picture, and needs few bytes
)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
METADATA = "metadata that cannot be read"
ORIENTATION = "an orientation that cannot be read: taken as upright"
EXIF = re.compile(rb"Exif\0\0|eXIf|EXIF")  # of JPEG, PNG and WebP
TURNED = (
    "AVIF",
    "HEIF",
)  # formats that keep the orientation apart from the EXIF block: their decoders apply it
MENDABLE = (
    "not_an_image",
    "truncated",
    "corrupt",
    "unsupported_mode",
)  # reasons that may lie in the metadata
SIGNIFICANT = re.compile(rb"\0\0\0[\x01\x03]sBIT(.)", re.DOTALL)  # of a PNG
PRECISION = re.compile(rb"\xff\x51.{38}(.)", re.DOTALL)  # of a JPEG 2000, less one
# Channels, bits, compression and photometric interpretation, with what a TIFF means that does not say.
TIFF_TAGS = ((277, 1), (258, 1), (259, 1), (262, 0))
# Pillow's names for the higher byte of values of 16 bits, by the order of the bytes, and of this machine (N): the lower byte.
OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
}
REDUCED, SUB_IFDS, DNG = 1, 330, 50706  # a bit of TIFF's NewSubfileType; tags


def decode(
    source: Path | bytes,
    channels: int,
    size: tuple[int, int] | None = None,
    limits: Limits = NO_LIMITS,
) -> np.ndarray:
    """Return the pixels of an image file as `uint8`, shape (height, width, channels).

    `channels` is 1 (ITU-R 601 luma) or 3 (RGB). `size` is (height, width): the picture is stretched to it with an
    antialiased bilinear filter. Raises `ImageError`.
    """
    return _to_pixels(decode_file(source, limits).picture, channels, size)


def decode_file(source: Path | bytes, limits: Limits = NO_LIMITS) -> Decoded:
    """Decode a whole file, given by path or as bytes. Raises `ImageError`."""
    return decode_bytes(source if isinstance(source, bytes) else read_file(source, limits), limits)


def render(decoded: Decoded, *forms: Form) -> np.ndarray:
    """Return a decoded picture as a model takes it: `uint8` of shape `shape_of(forms)`."""
    pixels = [
        _to_pixels(_reduced(show(decoded, form), form), form.channels, form.image_size)
        for form in forms
    ]
    return pixels[0] if len(pixels) == 1 else np.concatenate([array.ravel() for array in pixels])


def show(decoded: Decoded, form: Form) -> Image.Image:
    """Return the part of a picture that a model sees, on the model's scale of grey values, in its own size."""
    return cut_dark_border(decoded.as_taken_by(form), form.dark_border)


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
    """Decode a whole file, upright. Raises `ImageError`."""
    if not content:
        raise ImageError("empty", "0 bytes")
    if len(content) > limits.max_bytes:
        raise ImageError(
            "too_many_bytes", f"{len(content):,} bytes, allowed are {limits.max_bytes:,}"
        )
    if content[128:132] == b"DICM":
        return _decode_dicom(content, limits)
    lean = cut(content, keep_exif=True)
    given = lean if len(content) - len(lean) > LARGE else content
    try:
        return _decode(given, limits)
    except ImageError as error:
        if error.reason not in MENDABLE:
            raise
        told = ORIENTATION if EXIF.search(content) else METADATA
        for bare, note in ((lean, METADATA), (cut(content, keep_exif=False), told)):
            if bare != given and (decoded := _attempt(bare, limits)):
                return replace(decoded, note=decoded.note or note)
        raise


def _attempt(content: bytes, limits: Limits) -> Decoded | None:
    try:
        return _decode(content, limits)
    except ImageError:
        return None


def _decode_dicom(content: bytes, limits: Limits) -> Decoded:
    try:
        from tasks.imaging.dicom import decode_dicom  # imports pydicom, an extra
    except ModuleNotFoundError as error:
        raise ImageError(
            "missing_package", "a DICOM file, and pydicom is not installed: `pip install pydicom`"
        ) from error
    return decode_dicom(content, limits)


def _decode(content: bytes, limits: Limits) -> Decoded:
    image = _open(_pair_runs(content) if content[:2] == b"BM" else content)
    width, height = image.size
    allowed = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or math.inf))  # Pillow's own limit
    if width * height > allowed:
        raise ImageError(
            "too_many_pixels", f"{width:,} x {height:,} pixels, allowed are {allowed:,}"
        )
    if image.format in ("JPEG", "MPO") and (scans := _count_scans(content)) > MAX_SCANS:
        raise ImageError("corrupt", f"a JPEG of {scans:,} scans, allowed are {MAX_SCANS}")
    if image.format == "TIFF" and _is_raw(image):
        raise ImageError(
            "not_an_image",
            "a raw camera file (DNG, NEF, ARW or the like): develop it to TIFF or JPEG",
        )
    try:
        low = _low_bytes(image, content)
        image.load()
        upright, note = _turn_upright(image)
        if low is not None:
            values = np.asarray(upright).astype(np.uint16) << 8 | np.asarray(_turn_upright(low)[0])
            return Decoded(
                values, image.format, "RGB;16", _declared_bits(image, values, content), note
            )
        if image.mode.startswith("I"):
            values = _grey_values(upright, image)
            return Decoded(
                values, image.format, image.mode, _declared_bits(image, values, content), note
            )
        return Decoded(_to_grey_or_rgb(upright), image.format or "", image.mode, note=note)
    except ImageError:
        raise
    except PARSER_ERRORS as error:
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise ImageError(reason, str(error) or type(error).__name__) from error


def _open(content: bytes) -> Image.Image:
    """Read the header of a file. Raises `ImageError` that says what the file is instead of an image."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except PARSER_ERRORS as error:
        kind = name_kind(content)
        if kind == HEIC:
            return _open_heic(content)
        if kind == AVIF and not features.check("avif"):
            raise ImageError(
                "missing_package",
                "an AVIF image, and this build of Pillow has no AVIF: install another",
            ) from error
        if kind == TIFF and (found := _describe_tiff(content)):
            raise ImageError("unsupported_mode", found) from error
        raise ImageError("not_an_image", kind + _ask_plugins(content)) from error


def _ask_plugins(content: bytes) -> str:
    """Return what Pillow's plugin for the format of a file says of it, which `Image.open` keeps to itself."""
    for form in FORMATS:
        read, accepts = Image.OPEN[form]
        if accepts and accepts(content[:16]) is True:
            try:
                read(io.BytesIO(content), "").close()
            except PARSER_ERRORS as error:
                return f" ({error})" if str(error) else ""
    return ""


def _pair_runs(content: bytes) -> bytes:
    """Return a BMP of run lengths of 4 bits with its plain values as runs of two: Pillow 12 loses the last of an odd number."""
    size, _, _, _, _, compression = struct.unpack_from("<LllHHL", content.ljust(34, b"\0"), 14)
    if size < 40 or compression != RLE4:
        return content
    place = int.from_bytes(content[10:14], "little")
    parts = [content[:place]]
    while place + 2 <= len(content):
        count, value = content[place : place + 2]
        stop = place + (4 if (count, value) == (0, 2) else 2)  # 2: a step to the right and up
        if count or value < 3:
            parts.append(content[place:stop])
        else:
            stop = place + 2 + (value + 1) // 2
            plain = content[place + 2 : stop]
            parts += [
                bytes((2 if 2 * number + 2 <= value else 1, pair))
                for number, pair in enumerate(plain)
            ]
            stop += (stop - place) % 2
        place = stop
    return b"".join(parts)


def _open_heic(content: bytes) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile  # an extra
    except ModuleNotFoundError as error:
        remedy = "`pip install pillow-heif`, or convert it to JPEG"
        raise ImageError(
            "missing_package", f"{HEIC}, and pillow-heif is not installed: {remedy}"
        ) from error
    try:
        return HeifImageFile(io.BytesIO(content))
    except PARSER_ERRORS as error:
        raise ImageError("corrupt", f"{HEIC} that cannot be read: {error}") from error


def _is_raw(image: Image.Image) -> bool:
    """Say whether a TIFF holds a camera's raw picture, and what Pillow would read is its thumbnail."""
    tags = image.tag_v2
    is_reduced = isinstance(kind := tags.get(254), int) and bool(kind & REDUCED)
    return DNG in tags or (is_reduced and SUB_IFDS in tags)


def _describe_tiff(content: bytes) -> str | None:
    """Say what a TIFF holds that Pillow does not read; None where its directory cannot be read."""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(
            content[: 16 if 43 in content[2:4] else 8]
        )  # 43: BigTIFF
        file = io.BytesIO(content)
        file.seek(directory.next)
        directory.load(file)
        channels, bits, packing, colours = (directory.get(tag, other) for tag, other in TIFF_TAGS)
    except PARSER_ERRORS:
        return None
    if 256 not in directory:
        return None
    each = bits[0] if isinstance(bits, tuple) else bits
    return (
        f"a TIFF image of {channels} channel{'s' * (channels != 1)} of {each} bits (photometric interpretation {colours}, "
        f"compression {packing}), which is not read: save it in grey or RGB, of 8 or 16 bits"
    )


def _count_scans(content: bytes) -> int:
    """Count how often a JPEG file goes over its picture, up to its end."""
    place, scans = 0, 0
    while (marker := JPEG_MARKER.search(content, place)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        place = marker.end() + int.from_bytes(
            content[marker.end() : marker.end() + 2]
        )  # behind the marker's own bytes
    return scans


def _low_bytes(image: Image.Image, content: bytes) -> Image.Image | None:
    """Return the lower 8 bits of a PNG or TIFF whose colours have 16: Pillow reads the higher ones alone. None of others."""
    if (
        image.format not in ("PNG", "TIFF")
        or image.mode != "RGB"
        or image.has_transparency_data
        or len(image.tile) < 1
    ):
        return None
    modes = [tile.args if isinstance(tile.args, str) else tile.args[0] for tile in image.tile]
    if not set(modes) <= set(OTHER_BYTE):
        return None
    low = Image.open(io.BytesIO(content), formats=[image.format])
    low.tile = [
        tile._replace(
            args=OTHER_BYTE[mode]
            if isinstance(tile.args, str)
            else (OTHER_BYTE[mode], *tile.args[1:])
        )
        for tile, mode in zip(low.tile, modes, strict=True)
    ]
    low.load()
    return low


def _turn_upright(image: Image.Image) -> tuple[Image.Image, str]:
    """Return the picture as its EXIF block says it was taken, and a note where that cannot be read."""
    unread = METADATA if image.format in TURNED else ORIENTATION
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except PARSER_ERRORS:
        return image, unread
    if orientation is None and is_cut_short(image.info.get("exif")):
        return image, unread
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return (image if turn is None else image.transpose(turn)), ""


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError(
            "unsupported_mode",
            "32-bit floating point pixels: save them as integers of 8 or 16 bits",
        )
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode == "LAB":
        return _from_lab(image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    return ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )


def _grey_values(upright: Image.Image, image: Image.Image) -> np.ndarray:
    """Return the grey values of more than 8 bits as they are stored, `uint16` or `uint32`."""
    values = np.asarray(upright)
    if (
        image.format == "TIFF"
        and image.tag_v2.get(339) in (None, 1, (1,))
        and values.dtype == np.int32
    ):
        values = values.view(np.uint32)
    if values.min() < 0:
        raise ImageError(
            "unsupported_mode",
            f"integer pixels from {values.min()} to {values.max()}, expected none below 0",
        )
    return values.astype(np.uint16 if values.max() < 2**16 else np.uint32)


def _declared_bits(image: Image.Image, values: np.ndarray, content: bytes) -> int | None:
    """Return how many bits the grey values have, where the file says: that they take 16 or 32 in the file says nothing."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (16,))[0]
        return bits if bits < 16 else None
    if image.format == "PNG":
        found = SIGNIFICANT.search(content, 0, content.find(b"IDAT"))
        return _significant_bits(found[1][0], values) if found else None
    found = PNM.match(content) if image.format == "PPM" else PRECISION.search(content)
    says_nothing = found is None or found[found.lastindex] in (b"65535", b"\x0f")
    return None if says_nothing else 16  # Pillow has scaled the others to 16 bits


def _significant_bits(bits: int, values: np.ndarray) -> int:
    """Return the bits of a PNG's values that has so many significant ones: these are the highest of 16, as the standard says.

    Some programs store the values as they are: then none is larger than its bits, and the lowest bits of 16 are in use.
    """
    spare = 16 - bits
    stored_as_is = (
        8 <= bits < 16 and values.max() < 2**bits and bool((values & (2**spare - 1)).any())
    )
    return bits if stored_as_is else 16


def _reduced(picture: Image.Image, form: Form) -> Image.Image:
    if form.detail is None:
        return picture
    height, width = (min(form.detail, side) for side in form.image_size)
    return picture.convert({1: "L", 3: "RGB"}[form.channels]).resize(
        (width, height), Image.Resampling.BILINEAR
    )


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
