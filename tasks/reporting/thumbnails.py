"""Make thumbnails of image files, as text that a page can hold."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import ImageError, Limits

SIDE = 144  # pixels of the longer side
QUALITY = 80
LIMITS = Limits(max_bytes=100_000_000, max_pixels=100_000_000)


@dataclass(frozen=True)
class Images:
    """A folder of images, and whether a report may show them."""

    folder: Path
    shown: bool

    def show(self, path: str) -> str:
        """Return the thumbnail of an image. Empty if images may not be shown."""
        return make_thumbnail(self.folder / path) if self.shown else ""


def make_thumbnail(path: Path, side: int = SIDE) -> str:
    """Return a small JPEG as a `data:` address. Empty if the file cannot be decoded."""
    try:
        picture = decode_bytes(read_file(path, LIMITS), LIMITS).picture
    except ImageError:
        return ""
    picture.info.clear()  # Pillow would copy comments, which may name a patient
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
