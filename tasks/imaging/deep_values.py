"""Values of more than 8 bits: read all of their bits, and find the bit depth that a file declares.

Pillow drops the lower byte of 16-bit colours, and does not report the bits that a file declares.
Sources: PNG (W3C), sBIT; TIFF 6.0, BitsPerSample; ITU-T T.800, SIZ marker.
"""

import io
import re
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from PIL.ImageFile import ImageFile

from tasks.imaging.metadata import PNM
from tasks.imaging.picture import ImageError, Values

SIGNIFICANT = re.compile(rb"\0\0\0[\x01\x03]sBIT(.)", re.DOTALL)  # the significant bits of a PNG
PRECISION = re.compile(rb"\xff\x51.{38}(.)", re.DOTALL)  # the bits of a JPEG 2000, minus one
BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # tags of TIFF
# Pillow's decoders of 16-bit colours keep one byte. Each key keeps the higher byte of a value, and
# its entry keeps the lower one: B, L and N stand for big, little and this machine's byte order.
LOWER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
}


def read_lower_bytes(image: ImageFile, content: bytes) -> Image.Image | None:
    """Return the lower bytes of 16-bit colours in a PNG or TIFF; None for other images."""
    if (
        image.format not in ("PNG", "TIFF")
        or image.mode != "RGB"
        or image.has_transparency_data
        or not image.tile
    ):
        return None
    modes = [
        tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0] for tile in image.tile
    ]
    if not set(modes) <= set(LOWER_BYTE):
        return None
    low = Image.open(io.BytesIO(content), formats=[image.format])
    low.tile = [
        tile._replace(
            args=(LOWER_BYTE[mode], *tile.args[1:])
            if isinstance(tile.args, tuple)
            else LOWER_BYTE[mode]
        )
        for tile, mode in zip(low.tile, modes, strict=True)
    ]
    low.load()
    return low


def join_bytes(high: Image.Image, low: Image.Image) -> NDArray[np.uint16]:
    """Return 16-bit values from their higher and lower bytes."""
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def read_grey_values(upright: Image.Image, image: ImageFile) -> Values:
    """Return the stored grey values as `uint16` or `uint32`. Raises `ImageError` below zero."""
    values: Values = np.asarray(upright)
    if (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.tag_v2.get(SAMPLE_FORMAT) in (None, 1, (1,))
        and values.dtype == np.int32
    ):
        values = values.view(np.uint32)
    if values.min() < 0:
        found = f"integer pixels from {values.min()} to {values.max()}, expected none below 0"
        raise ImageError("unsupported_mode", found)
    return values.astype(np.uint16 if values.max() < 2**16 else np.uint32)


def find_declared_bits(image: ImageFile, values: Values, content: bytes) -> int | None:
    """Return the bit depth that the file declares; None if it only says how values are stored."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]
        return bits if bits < 16 else None
    if image.format == "PNG":
        found = SIGNIFICANT.search(content, 0, content.find(b"IDAT"))
        return _find_png_bits(found[1][0], values) if found else None
    found = PNM.match(content) if image.format == "PPM" else PRECISION.search(content)
    if found is None or found.groups()[-1] in (b"65535", b"\x0f"):
        return None
    return 16  # Pillow has scaled the values to 16 bits


def _find_png_bits(significant: int, values: Values) -> int:
    """Return the bit depth of PNG values that declare fewer than 16 significant bits.

    The standard shifts the significant bits to the top of the 16. Some programs store the values
    unshifted. These values fit into the significant bits, and use the lowest bits of the 16.
    """
    if not 8 <= significant < 16:
        return 16
    fits = values.max() < 2**significant
    uses_lowest = bool((values & (2 ** (16 - significant) - 1)).any())
    return significant if fits and uses_lowest else 16
