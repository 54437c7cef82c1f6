"""What a decoded image file is, and why one is refused."""

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from tasks.errors import UserError
from tasks.params.model_input import Form, Limits

# Pillow's names; JPEG covers MPO, the cameras' two-picture files.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
REASONS = {
    "empty": "the file holds no bytes",
    "too_many_bytes": "the file is larger than max_bytes",
    "not_an_image": "the content is in none of the image formats "
    + ", ".join((*FORMATS, "HEIC", "DICOM")),
    "too_many_pixels": "width times height is larger than max_pixels",
    "truncated": "the file ends before the picture does",
    "corrupt": "the picture cannot be decoded",
    "unsupported_mode": "the pixels are of a kind that is not read, such as 32-bit floats or five channels",
    "unsupported_compression": "the pixels are packed in a way that is not read here",
    "missing_package": "a package that this format needs is not installed",
    "outside_class_folder": "the file does not lie in the folder of a class",
    "unreadable": "the operating system refuses to read the file",
}
OLD_BITS = 16  # of grey values, for models from before their bits were found
# What Pillow's parsers raise on damaged files.
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
    RuntimeError,  # of the decoders of AVIF and HEIC
    struct.error,
    zlib.error,
)


class ImageError(UserError):
    """An image file that cannot be used; `reason` is a key of `REASONS`, `detail` what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail} ({REASONS[reason]})")
        self.reason = reason
        self.detail = detail


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Decoded:
    """A picture, and what its file said of it.

    `pixels` are a picture in Pillow's mode L or RGB, or, of more than 8 bits, the values (height, width) or (height, width, 3)
    as they are stored; `bits` says how many bits these have, where the file does.
    """

    pixels: Image.Image | np.ndarray
    format: str
    mode: str
    bits: int | None = None
    note: str = ""  # what could not be read beside the picture

    @cached_property
    def peak(self) -> int | None:
        """The largest value, where more than 8 bits are stored and the file does not say how many are used."""
        return int(self.pixels.max()) if self.is_deep and self.bits is None else None

    @property
    def is_deep(self) -> bool:
        """Whether the pixels have more than 8 bits."""
        return isinstance(self.pixels, np.ndarray)

    @property
    def picture(self) -> Image.Image:
        """The picture by itself, in mode L or RGB: grey values of more bits by their own range."""
        return self.scale_to(None if self.peak is None else fit_bits(self.peak))

    def scale_to(self, bits: int | None) -> Image.Image:
        """Return the picture in mode L or RGB; where the file does not say, grey values have so many `bits`."""
        if not self.is_deep:
            return self.pixels
        return Image.fromarray(scale(self.pixels, self.bits or bits or OLD_BITS))

    def as_taken_by(self, form: Form) -> Image.Image:
        """Return the picture in mode L or RGB on the scale of a model; one without bits takes all values as 16 bits."""
        if self.is_deep and form.bits is None:
            return Image.fromarray(scale(self.pixels, OLD_BITS))
        return self.scale_to(form.bits)

    def clipped(self, bits: int | None) -> float:
        """Return the share of the pixels that are brighter than `bits` can say."""
        if self.peak is None or self.peak < 2 ** (bits or OLD_BITS):
            return 0.0
        return float((self.pixels >= 2 ** (bits or OLD_BITS)).mean())


def fit_bits(peak: int) -> int:
    """Return the smallest of 8, 10, 12, 14, 16 … bits that hold a grey value."""
    return max(8, -(-peak.bit_length() // 2) * 2)


def scale(values: np.ndarray, bits: int) -> np.ndarray:
    """Return grey values of so many bits as `uint8`: the highest 8 bits; brighter ones are white."""
    brightest = min(2**bits - 1, np.iinfo(values.dtype).max)
    return (np.minimum(values, brightest) >> (bits - 8)).astype(np.uint8)
