"""The reason for an unreadable file names the kind of the file."""

import io
import sys
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from tasks.imaging.decode import decode_bytes
from tasks.imaging.kinds import name_kind
from tasks.imaging.picture import ImageError
from tests.imaging.test_decode import encode, picture
from tests.imaging.test_metadata import TURNED, tiff


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    with io.BytesIO() as buffer:
        write(buffer)
        return buffer.getvalue()


def zipped(name: str) -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, b"content")
        return buffer.getvalue()


KINDS = {
    "a PDF": encode(picture(), "PDF"),
    "an SVG": b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "an HTML page": b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "a text file": "Grüße aus der Aufnahme".encode(),
    "a JSON file": b'{"error": "not found"}',
    "an XML file": b"<annotation><object/></annotation>",
    "a settings file": b"[.ShellClassInfo]\r\nIconResource=x\r\n",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a ZIP archive": zipped("a.png"),
    "NumPy arrays": zipped("array.npy"),
    "an Office document": zipped("[Content_Types].xml"),
    "a gzip archive": b"\x1f\x8b\x08\0garbage",
    "a TAR archive": tarfile.TarInfo("a.png").tobuf(),
    "a Photoshop file": b"8BPS\0\1",
    "a video (MP4)": b"\0\0\0\x18ftypmp42\0\0\0\0",
    "a video (QuickTime)": b"\0\0\0\x14ftypqt  \0\0\0\0",
    "a video (AVI)": b"RIFF\0\0\0\0AVI LIST",
    "a raw camera file (Canon CR2)": b"II*\0\x10\0\0\0CR\2\0",
    "a raw camera file (Canon CR3)": b"\0\0\0\x18ftypcrx \0\0\0\1",
    "a raw camera file (Fujifilm RAF)": b"FUJIFILMCCD-RAW 0201",
    "a NumPy array": written(lambda buffer: np.save(buffer, np.zeros(3))),
    "a NIfTI volume": b"\x5c\1\0\0" + bytes(340) + b"n+1\0",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a MATLAB file": b"MATLAB 5.0 MAT-file",
    "an icon": encode(picture(), "ICO"),
    "a JPEG XL image": b"\0\0\0\x0cJXL \r\n\x87\n",
    "a TGA image": encode(picture(), "TGA"),
    "AppleDouble": b"\0\5\x16\7\0\2\0\0Mac OS X",
    "all zero": bytes(1000),
    "a PNG image whose header": b"\x89PNG\r\n\x1a\n",
    "it begins with": b"\x9b\xfe\xc1\x80\xff\x90",
}


@pytest.mark.parametrize("words", KINDS)
def test_the_reason_says_what_the_file_is(words: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_bytes(KINDS[words])
    assert caught.value.reason == "not_an_image"
    assert words in caught.value.detail


def test_what_pillow_says_of_a_file_is_handed_on() -> None:
    content = bytearray(encode(picture(), "BMP"))
    content[28] = 13  # bits
    with pytest.raises(
        ImageError,
        match=r"a BMP image whose header cannot be read \(Unsupported BMP pixel depth \(13\)\)",
    ):
        decode_bytes(bytes(content))


def test_a_tiff_of_channels_without_a_meaning_is_described() -> None:
    with pytest.raises(
        ImageError, match="unsupported_mode: a TIFF image of 5 channels of 8 bits"
    ) as caught:
        decode_bytes(tiff(277, 3, 1, 5))
    assert "save it in grey or RGB" in caught.value.detail


def test_the_thumbnail_of_a_raw_camera_file_is_not_taken_for_the_picture() -> None:
    with pytest.raises(ImageError, match="not_an_image: a raw camera file"):
        decode_bytes(tiff(50706, 1, 4, 0x00000401))


def test_a_raw_camera_file_that_is_a_tiff_too_is_called_by_its_maker() -> None:
    mosaic = tiff(277, 3, 1, 5)  # a TIFF that Pillow does not read
    moved = mosaic[:4] + (200).to_bytes(4, "little") + b"CR\2\0" + mosaic[12:200] + mosaic[8:200]
    with pytest.raises(ImageError, match="not_an_image: a raw camera file .Canon CR2.: develop it"):
        decode_bytes(moved)


def test_a_heic_file_is_read_or_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic()
    decoded = decode_bytes(content)
    assert (decoded.format, decoded.picture.size) == ("HEIF", (24, 32))  # turned as the file says
    upright = np.asarray(picture().rotate(-90, expand=True), dtype=int)
    assert np.abs(np.asarray(decoded.picture, dtype=int) - upright).mean() < 8
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match="missing_package: a HEIC image, .* `pip install pillow-heif`"
    ):
        decode_bytes(content)
    assert name_kind(content) == "a HEIC image"


def heic() -> bytes:
    """Return a HEIC file whose orientation is a turn to the right."""
    pillow_heif = pytest.importorskip("pillow_heif")
    with io.BytesIO() as buffer:
        pillow_heif.from_pillow(picture()).save(buffer, exif=TURNED)
        return buffer.getvalue()
