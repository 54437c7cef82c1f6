"""Metadata never decides whether an image can be read."""

import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from tasks.imaging.decode import decode_bytes
from tasks.imaging.picture import ImageError
from tasks.imaging.pillow import METADATA, ORIENTATION
from tests.imaging.test_decode import chunk, encode, picture

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # to the right
GARBAGE = b"Exif\0\0\x00\x08\x00\x02\x01\x12\x00\x03"
CUT_SHORT = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01"
PNG, JPEG, GIF = (encode(picture(), form) for form in ("PNG", "JPEG", "GIF"))
DATA, FIRST, LAST = PNG.index(b"IDAT") - 4, GIF.rindex(b",\0\0\0\0"), len(PNG) - 12


def with_chunk(kind: bytes, data: bytes, place: int = DATA) -> bytes:
    return PNG[:place] + chunk(kind, data) + PNG[place:]


def with_segment(marker: int, data: bytes, count: int = 1) -> bytes:
    return (
        JPEG[:2] + (bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2) + data) * count + JPEG[2:]
    )


def tiff(tag: int, kind: int, count: int, value: int) -> bytes:
    """Return a grey TIFF of 16 x 16 with one more entry."""
    entries = [
        (256, 3, 1, 16),
        (257, 3, 1, 16),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 200),
        (278, 3, 1, 16),
    ]
    entries = sorted([*entries, (277, 3, 1, 1), (279, 4, 1, 256), (tag, kind, count, value)])
    head = (
        b"II*\0"
        + struct.pack("<LH", 8, len(entries))
        + b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    )
    return head.ljust(200, b"\0") + bytes(range(256))


def check_same(content: bytes, original: bytes) -> str:
    """Check that a file gives the pixels of another, and return its note."""
    decoded, expected = decode_bytes(content), decode_bytes(original)
    assert decoded.format == expected.format
    assert np.array_equal(np.asarray(decoded.picture), np.asarray(expected.picture))
    return decoded.note


@pytest.mark.parametrize("exif", [GARBAGE, CUT_SHORT, b"Exif\0\0M"])
def test_an_orientation_that_cannot_be_read_counts_as_upright_and_is_told(exif: bytes) -> None:
    for form in ("JPEG", "PNG", "WEBP"):
        assert (
            check_same(encode(picture(), form, exif=exif), encode(picture(), form)) == ORIENTATION
        )
    if exif == CUT_SHORT:  # the AVIF encoder refuses the others
        assert (
            check_same(encode(picture(), "AVIF", exif=exif), encode(picture(), "AVIF")) == METADATA
        )  # these formats keep it elsewhere


@pytest.mark.parametrize(
    "kind",
    [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"cHRM", b"sRGB", b"acTL", b"sBIT", b"prVt"],
)
def test_chunks_of_a_png_that_are_damaged_stop_nothing(kind: bytes) -> None:
    for data in (b"", b"\xff" * 40, b"k\0\1\0\0\0\xff\xff", b"k\0\0garbage"):
        for place in (DATA, LAST):
            content = bytearray(with_chunk(kind, data, place))
            check_same(bytes(content), PNG)
            content[place + 8 + len(data)] ^= 1  # the checksum
            check_same(bytes(content), PNG)


def test_texts_that_unpack_to_megabytes_cost_neither_time_nor_memory() -> None:
    packer, zeros = zlib.compressobj(9), bytes(2**20)
    bomb = b"".join(packer.compress(zeros) for _ in range(50)) + packer.flush()
    started = time.process_time()
    for kind, head in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        for place in (DATA, LAST):
            assert check_same(with_chunk(kind, head + bomb, place), PNG) == METADATA
    assert time.process_time() - started < 2


def test_the_orientation_is_kept_where_a_text_cannot_be_read() -> None:
    turned = with_chunk(b"eXIf", TURNED[6:])
    broken = with_chunk(b"iTXt", b"\xff") + b""
    both = broken[:DATA] + chunk(b"eXIf", TURNED[6:]) + broken[DATA:]
    assert decode_bytes(turned).picture.size == (24, 32)
    assert check_same(both, turned) == ""


@pytest.mark.parametrize(
    ("content", "original"),
    [
        (with_segment(0xFE, b"a" * 65_000, 300), JPEG),
        (with_segment(0xE1, b"Exif\0\0MM\0*" + bytes(65_000), 300), JPEG),
        (with_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000), 300), JPEG),
        (with_chunk(b"tEXt", b"k\0" + b"a" * 20_000_000), PNG),
        (GIF[:FIRST] + b"!\xfe" + (b"\xff" + b"a" * 255) * 80_000 + b"\0" + GIF[FIRST:], GIF),
        (
            b"P5 16#" + b"a" * 20_000_000 + b"\n16 255 " + bytes(range(256)),
            b"P5 16 16 255 " + bytes(range(256)),
        ),
    ],
    ids=["JPEG comments", "JPEG EXIF", "JPEG ICC", "PNG", "GIF", "PGM"],
)
def test_megabytes_of_comments_take_no_time(content: bytes, original: bytes) -> None:
    started = time.process_time()
    check_same(content, original)
    assert time.process_time() - started < 3  # without us Pillow takes minutes


def hostile() -> Iterator[bytes]:
    """Yield files that would take a backtracking pattern forever."""
    for run in (b" ", b"1", b"1 ", b"#", b"#\n", b"# a\n", b"\r\n", b"P5#", b"\xff", b"\xff\0"):
        many = run * (2**17 // len(run))
        yield from (
            head + many + tail
            for head in (b"P5", b"P5 1 ", b"")
            for tail in (b"", b"1_0 10 4095\n" + bytes(200))
        )
        yield JPEG[:2] + many + JPEG[2:]
        yield JPEG[:-2] + many + b"\0" + JPEG[-2:]


def test_much_of_anything_in_a_header_takes_no_time() -> None:
    started = time.process_time()
    with suppress(ImageError):
        decode_bytes(b"P5" + b" " * 60 + b"1_0 10 4095\n" + bytes(200))
    for content in hostile():
        with suppress(ImageError):
            decode_bytes(content)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED])
def test_segments_of_a_jpeg_that_are_damaged_stop_nothing(marker: int) -> None:
    several = (
        b"MPF\0II*\0\x08\0\0\0\x02\0\1\xb0\4\0\1\0\0\0\2\0\0\0"
        b"\2\xb0\7\0\x20\0\0\0\xff\xff\0\0\0\0\0\0"
    )
    for data in (
        b"",
        TURNED[:8],
        several,
        b"ICC_PROFILE\0",
        b"Photoshop 3.0\x008BIM\3\xed\0\0\xff\xff\xff\xff",
    ):
        check_same(with_segment(marker, data), JPEG)


def test_entries_of_a_tiff_that_are_damaged_stop_nothing() -> None:
    expected = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for tag in (270, 305, 700, 33723, 34377, 34665, 34675, 34853):
        for kind, count, value in (
            (4, 1, 0xFFFFFFFF),
            (4, 1, 8),
            (2, 0xFFFFFFF, 1),
            (13, 1, 4),
            (7, 99, 100_000),
        ):
            assert np.array_equal(
                np.asarray(decode_bytes(tiff(tag, kind, count, value)).picture), expected
            ), (tag, kind)


def test_a_tiff_whose_directory_lies_beyond_every_address_is_refused() -> None:
    for start in (2**32, 2**63, 2**64 - 1):
        with pytest.raises(ImageError):
            decode_bytes(b"II+\0\x08\0\0\0" + start.to_bytes(8, "little") + bytes(64))


def test_a_picture_that_is_damaged_is_refused_with_metadata_or_without() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode_bytes(with_chunk(b"iTXt", b"\xff")[:-400])
    with pytest.raises(ImageError, match="truncated"):
        decode_bytes(encode(picture(width=320, height=240), "JPEG", exif=GARBAGE)[:-200])


def test_an_orientation_of_a_tiff_is_applied_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_bytes(
        encode(picture(), "TIFF", exif=exif, compression="tiff_lzw")
    ).picture.size == (24, 32)
