"""A decoded image, the formats that are read, and the reasons why a file is refused."""

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.errors import UserError
from tasks.params.model_input import Form, Limits

# Pillow's names. JPEG includes MPO, the two-picture files of cameras.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
REASONS = {
    "empty": "the file has no bytes",
    "too_many_bytes": "the file is larger than max_bytes",
    "not_an_image": "the content is in none of the image formats "
    + ", ".join((*FORMATS, "HEIC", "DICOM")),
    "too_many_pixels": "width times height is larger than max_pixels",
    "truncated": "the file ends before the image does",
    "corrupt": "the image cannot be decoded",
    "unsupported_mode": "pixels of this kind are not read, such as 32-bit floats or five channels",
    "unsupported_compression": "pixels that are compressed in this way are not read",
    "missing_package": "a package that this format needs is not installed",
    "outside_class_folder": "the file is in no class folder",
    "unreadable": "the operating system refuses to read the file",
}
DEFAULT_BITS = 16  # the bit depth of models that were saved before bit depths were recorded
# Pillow's parsers raise these on damaged files.
PARSER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    NotImplementedError,
    MemoryError,
    RuntimeError,  # from the decoders of AVIF and HEIC
    struct.error,
    zlib.error,
)

Values = NDArray[np.integer]


class ImageError(UserError):
    """An image file that cannot be used: `reason` is a key of `REASONS`, `detail` the finding."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail} ({REASONS[reason]})")
        self.reason = reason
        self.detail = detail


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Decoded:
    """A decoded image file.

    `pixels` is a Pillow image in mode L or RGB. A file of more than 8 bits a value has its stored
    values there instead, with the shape (height, width) or (height, width, 3).
    """

    pixels: Image.Image | Values
    format: str
    mode: str
    bits: int | None = None  # the bit depth, if the file declares it
    note: str = ""  # names metadata that could not be read

    @cached_property
    def peak(self) -> int | None:
        """The largest stored value of a deep image whose file declares no bit depth."""
        if isinstance(self.pixels, Image.Image) or self.bits is not None:
            return None
        return int(self.pixels.max())

    @property
    def is_deep(self) -> bool:
        """Whether the file has more than 8 bits a value."""
        return not isinstance(self.pixels, Image.Image)

    @property
    def picture(self) -> Image.Image:
        """The image in mode L or RGB; deep values are scaled by the image's own range."""
        return self.scale_to(None if self.peak is None else fit_bits(self.peak))

    def scale_to(self, bits: int | None) -> Image.Image:
        """Return the image in mode L or RGB; `bits` is the bit depth if the file declares none."""
        return self._scale(self.bits or bits or DEFAULT_BITS)

    def scale_for(self, form: Form) -> Image.Image:
        """Return the image in mode L or RGB as a model scales it.

        A model without a bit depth reads all values as 16 bits, even if the file declares fewer.
        """
        return self._scale(DEFAULT_BITS) if form.bits is None else self.scale_to(form.bits)

    def measure_clipped(self, bits: int | None) -> float:
        """Return the share of the pixels whose value exceeds `bits` bits."""
        limit = 2 ** (bits or DEFAULT_BITS)
        if isinstance(self.pixels, Image.Image) or self.peak is None or self.peak < limit:
            return 0.0
        return float((self.pixels >= limit).mean())

    def _scale(self, bits: int) -> Image.Image:
        if isinstance(self.pixels, Image.Image):
            return self.pixels
        return Image.fromarray(scale(self.pixels, bits))


def fit_bits(peak: int) -> int:
    """Return the smallest even bit depth, at least 8, that holds a value."""
    return max(8, -(-peak.bit_length() // 2) * 2)


def scale(values: Values, bits: int) -> NDArray[np.uint8]:
    """Return the highest 8 of `bits` bits as `uint8`; larger values become white."""
    brightest = min(2**bits - 1, np.iinfo(values.dtype).max)
    return (np.minimum(values, brightest) >> (bits - 8)).astype(np.uint8)
