"""Small image files of every format and kind, for tests and benchmarks."""

import io
import zlib

import numpy as np
from PIL import Image

from tasks.imaging.picture import FORMATS

ORIENTATION = 0x0112


def picture(seed: int = 0, width: int = 32, height: int = 24) -> Image.Image:
    """Draw smooth random colours, which survive lossy formats."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def deep_png(values: np.ndarray) -> bytes:
    """Return a PNG of 16-bit colours, which Pillow does not write."""
    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([16, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def samples() -> dict[str, bytes]:
    """Return small files of every format and kind."""
    image = picture()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    others = {
        "animation": encode(
            image.convert("P"), "GIF", save_all=True, append_images=[picture(1).convert("P")]
        ),
        "palette": encode(image.convert("P"), "PNG", transparency=3),
        "cmyk": encode(image.convert("CMYK"), "JPEG"),
        "alpha": encode(image.convert("RGBA"), "PNG"),
        "sixteen bits": encode(
            Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)), "PNG"
        ),
        "one bit": encode(image.convert("1"), "PNG"),
        "float": encode(image.convert("F"), "TIFF"),
        "packed": encode(image, "TIFF", compression="tiff_lzw"),
        "mpo": encode(image, "MPO", save_all=True, append_images=[picture(1)]),
        "orientation": encode(image, "JPEG", exif=exif),
        "big": encode(image, "TIFF", big_tiff=True),
        "deep colours": deep_png(np.asarray(image, dtype=np.uint16) * 257),
    }
    return {form: encode(image, form) for form in FORMATS} | others
