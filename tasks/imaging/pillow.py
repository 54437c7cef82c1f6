"""Image files that Pillow reads, and the cases in which Pillow is wrong or gives no message."""

import io
import math
import re
import struct

from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, features
from PIL.ImageFile import ImageFile

from tasks.imaging import kinds
from tasks.imaging.deep_values import (
    find_declared_bits,
    join_bytes,
    read_grey_values,
    read_lower_bytes,
)
from tasks.imaging.metadata import is_cut_short
from tasks.imaging.picture import FORMATS, PARSER_ERRORS, Decoded, ImageError, Limits, Values

JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")  # markers that have bytes of their own
MAX_SCANS = 100  # libtiff's limit: each scan needs few bytes, and may take as long as the image
RLE4 = 2  # a compression of BMP
# The turns that make an image upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
METADATA = "metadata that cannot be read"
ORIENTATION = "an orientation that cannot be read: taken as upright"
# These formats keep the orientation outside the EXIF block, and their decoders apply it.
TURNED = ("AVIF", "HEIF")
# Tags of TIFF with their defaults: channels, bits, compression and photometric interpretation.
TIFF_TAGS = ((277, 1), (258, 1), (259, 1), (262, 0))
WIDTH, SUBFILE_TYPE, SUB_IFDS, DNG = 256, 254, 330, 50706  # more tags of TIFF
REDUCED = 1  # a bit of the subfile type: the image is a thumbnail
BIG_TIFF = 43


def decode_with_pillow(content: bytes, limits: Limits) -> Decoded:
    """Decode a whole file, upright. Raises `ImageError`."""
    image = _open(_mend_bmp_runs(content) if content[:2] == b"BM" else content)
    _check(image, content, limits)
    try:
        return _load(image, content)
    except ImageError:
        raise
    except PARSER_ERRORS as error:
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise ImageError(reason, str(error) or type(error).__name__) from error


def find_max_pixels(limits: Limits) -> float:
    """Return how many pixels an image may have; Pillow has a limit of its own."""
    return min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or math.inf))


def _open(content: bytes) -> ImageFile:
    """Read the header of a file. Raises `ImageError` that says what the file is."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except PARSER_ERRORS as error:
        kind = kinds.name_kind(content)
        if kind == kinds.HEIC:
            return _open_heic(content)
        if kind == kinds.AVIF and not features.check("avif"):
            raise ImageError(
                "missing_package",
                "an AVIF image, and this build of Pillow has no AVIF: install another",
            ) from error
        if kind == kinds.TIFF and (found := _describe_tiff(content)):
            raise ImageError("unsupported_mode", found) from error
        raise ImageError("not_an_image", kind + _find_plugin_message(content)) from error


def _open_heic(content: bytes) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile  # an optional package
    except ModuleNotFoundError as error:
        remedy = "`pip install pillow-heif`, or convert it to JPEG"
        raise ImageError(
            "missing_package", f"{kinds.HEIC}, and pillow-heif is not installed: {remedy}"
        ) from error
    try:
        image: ImageFile = HeifImageFile(io.BytesIO(content))  # type: ignore[no-untyped-call]  # it has no types
    except PARSER_ERRORS as error:
        raise ImageError("corrupt", f"{kinds.HEIC} that cannot be read: {error}") from error
    return image


def _find_plugin_message(content: bytes) -> str:
    """Return why Pillow's plugin refuses a file: `Image.open` does not pass its message on."""
    for form in FORMATS:
        read, accepts = Image.OPEN[form]
        if accepts and accepts(content[:16]) is True:
            try:
                read(io.BytesIO(content), "").close()
            except PARSER_ERRORS as error:
                return f" ({error})" if str(error) else ""
    return ""


def _describe_tiff(content: bytes) -> str | None:
    """Describe a TIFF that Pillow does not read; None if its directory cannot be read."""
    header = content[: 16 if BIG_TIFF in content[2:4] else 8]
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        file = io.BytesIO(content)
        file.seek(directory.next)
        directory.load(file)
        channels, bits, packing, colours = (directory.get(tag, other) for tag, other in TIFF_TAGS)
    except PARSER_ERRORS:
        return None
    if WIDTH not in directory:
        return None
    each = bits[0] if isinstance(bits, tuple) else bits
    return (
        f"a TIFF image of {channels} channel{'s' * (channels != 1)} of {each} bits "
        f"(photometric interpretation {colours}, compression {packing}), which is not read: "
        "save it in grey or RGB, of 8 or 16 bits"
    )


def _mend_bmp_runs(content: bytes) -> bytes:
    """Rewrite the plain values of a 4-bit run-length BMP as runs of two.

    Pillow 12 loses the last value if their number is odd.
    """
    size, _, _, _, _, compression = struct.unpack_from("<LllHHL", content.ljust(34, b"\0"), 14)
    if size < 40 or compression != RLE4:
        return content
    place = int.from_bytes(content[10:14], "little")
    pieces = [content[:place]]
    while place + 2 <= len(content):
        count, value = content[place : place + 2]
        stop = place + (4 if (count, value) == (0, 2) else 2)  # 0, 2: a step right and up
        if count or value < 3:
            pieces.append(content[place:stop])
        else:
            stop = place + 2 + (value + 1) // 2
            plain = content[place + 2 : stop]
            pieces += [
                bytes((2 if 2 * number + 2 <= value else 1, pair))
                for number, pair in enumerate(plain)
            ]
            stop += (stop - place) % 2
        place = stop
    return b"".join(pieces)


def _check(image: ImageFile, content: bytes, limits: Limits) -> None:
    """Refuse an image that costs too much to decode, and a raw camera file."""
    width, height = image.size
    allowed = find_max_pixels(limits)
    if width * height > allowed:
        found = f"{width:,} x {height:,} pixels, allowed are {allowed:,}"
        raise ImageError("too_many_pixels", found)
    if image.format in ("JPEG", "MPO") and (scans := _count_scans(content)) > MAX_SCANS:
        raise ImageError("corrupt", f"a JPEG of {scans:,} scans, allowed are {MAX_SCANS}")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and _is_raw(image):
        raise ImageError(
            "not_an_image",
            "a raw camera file (DNG, NEF, ARW or the like): develop it to TIFF or JPEG",
        )


def _count_scans(content: bytes) -> int:
    """Count the scans of a JPEG file up to its end; each scan goes over the whole image."""
    place, scans = 0, 0
    while (marker := JPEG_MARKER.search(content, place)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        length = int.from_bytes(content[marker.end() : marker.end() + 2])
        place = marker.end() + length
    return scans


def _is_raw(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Say whether a TIFF is a raw camera file, of which Pillow would read the thumbnail."""
    tags = image.tag_v2
    is_reduced = isinstance(kind := tags.get(SUBFILE_TYPE), int) and bool(kind & REDUCED)
    return DNG in tags or (is_reduced and SUB_IFDS in tags)


def _load(image: ImageFile, content: bytes) -> Decoded:
    low = read_lower_bytes(image, content)
    image.load()  # it may change the mode
    name, mode = image.format or "", image.mode
    upright, note = _turn_upright(image)
    values: Values
    if low is not None:
        mode, values = "RGB;16", join_bytes(upright, _turn_upright(low)[0])
    elif mode.startswith("I"):
        values = read_grey_values(upright, image)
    else:
        return Decoded(_to_grey_or_rgb(upright), name, mode, note=note)
    return Decoded(values, name, mode, find_declared_bits(image, values, content), note)


def _turn_upright(image: Image.Image) -> tuple[Image.Image, str]:
    """Turn an image upright as its EXIF block says; return a note if that cannot be read."""
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
        return _lay_over_white(image)
    if image.mode == "LAB":
        return _convert_lab(image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _lay_over_white(image: Image.Image) -> Image.Image:
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _convert_lab(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # it returns None only for `inPlace`
    return converted
