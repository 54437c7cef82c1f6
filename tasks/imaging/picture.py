"""What a decoded image file is, and why one is refused."""

import math
import struct
import zlib
from dataclasses import dataclass

from PIL import Image

from tasks.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # JPEG covers MPO, the cameras' two-picture files
REASONS = {
    "empty": "the file holds no bytes",
    "too_many_bytes": "the file is larger than max_bytes",
    "not_an_image": "the content is in none of the image formats " + ", ".join((*FORMATS, "DICOM")),
    "too_many_pixels": "width times height is larger than max_pixels",
    "truncated": "the file ends before the picture does",
    "corrupt": "the picture cannot be decoded",
    "unsupported_mode": "the pixels are of a kind without a fixed meaning, such as 32-bit floats",
    "unsupported_compression": "the pixels are packed in a way that is not read here",
    "missing_package": "a package that this format needs is not installed",
    "outside_class_folder": "the file does not lie in the folder of a class",
    "unreadable": "the operating system refuses to read the file",
}
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
    struct.error,
    zlib.error,
)


class ImageError(UserError):
    """An image file that cannot be used; `reason` is a key of `REASONS`, `detail` what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail} ({REASONS[reason]})")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """What a file may cost before it is refused unread; without arguments, no limit of ours."""

    max_bytes: float = math.inf
    max_pixels: float = math.inf


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Decoded:
    """A picture in Pillow's mode L or RGB, and what its file said of it."""

    picture: Image.Image
    format: str
    mode: str
