"""Small pictures of image files, as text that a page can hold."""

import base64
import io
from pathlib import Path

from PIL import Image

from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import ImageError, Limits

SIDE = 144  # pixels of the longer side
QUALITY = 80
LIMITS = Limits(max_bytes=100_000_000, max_pixels=100_000_000)


def thumbnail(path: Path, side: int = SIDE) -> str:
    """Return a `data:` address of the picture as a JPEG of at most `side` pixels; "" where it cannot be decoded."""
    try:
        picture = decode_bytes(read_file(path, LIMITS), LIMITS).picture
    except ImageError:
        return ""
    picture.info.clear()  # Pillow would hand on comments, which may name a patient
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
