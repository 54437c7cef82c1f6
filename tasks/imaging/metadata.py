"""Metadata of image files (EXIF, XMP, ICC, texts): how to cut it out.

Metadata must never decide whether an image can be read. Pillow reads all metadata before the
image, and refuses files whose metadata is damaged or large. `cut_metadata` returns such a file
without it. The bytes of the image itself stay as they are.

Sources: PNG (W3C) chapter 11; JPEG (ITU-T T.81) annex B; GIF89a; RFC 9649 (WebP); TIFF 6.0;
ISO 14496-12 (AVIF, HEIC) and 15444-1 (JPEG 2000).
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

# Bytes. Pillow takes minutes for 100 MB of comments, so more metadata than this is cut out first.
LARGE = 2**20

Span = tuple[int, int]  # start and stop

PNG_CHUNKS = {b"tRNS"}  # the image needs them, though the standard lets a reader skip them
PNG_FRAMES = {b"acTL", b"fcTL", b"fdAT"}
ADOBE = 0xEE  # a JPEG segment that names the colour space
# A JPEG segment before the image; \xff may be repeated.
SEGMENT = re.compile(rb"\xff++([^\xda])", re.DOTALL)
WEBP_METADATA = {b"EXIF", b"XMP ", b"ICCP"}
JP2_BOXES = {b"jP  ", b"ftyp", b"jp2h", b"jp2c"}
TIFF_TAGS = {  # the image needs them
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320,
    322, 323, 324, 325, 330, 332, 334, 338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529,
    530, 531, 532, 50706,
}  # fmt: skip
# An item of a HEIF file: version, flags, number, protection, then its kind.
ITEM = re.compile(rb"(infe.{8}(?:..)?)(Exif|mime)", re.DOTALL)
# Comments count as blanks. The quantifiers are possessive, so long comments cost no backtracking.
BLANKS = rb"(?:\s|#[^\r\n]*+[\r\n])++"
PNM_BITMAP = re.compile(rb"(P[14])" + 2 * (BLANKS + rb"(\d+)"))  # width and height
PNM = re.compile(rb"(P[2356])" + 3 * (BLANKS + rb"(\d+)"))  # width, height and largest value


def cut_metadata(content: bytes, keep_exif: bool) -> bytes:
    """Return an image file without its metadata, and any other file as it is.

    `keep_exif` keeps the EXIF block, and the frames of an animation or of a two-picture file.
    """
    for magic, cutter in CUTTERS.items():
        if re.match(magic, content, re.DOTALL):
            return cutter(content, keep_exif)
    return content


def is_cut_short(exif: bytes | None) -> bool:
    """Say whether an EXIF block ends within its first directory: Pillow takes it for empty."""
    block = (exif or b"").removeprefix(b"Exif\0\0")
    if not block:
        return False
    order = "<" if block[:1] == b"I" else ">"
    try:
        (start,) = struct.unpack_from(order + "L", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
    except struct.error:
        return True
    return start + 2 + 12 * count > len(block)


def _join(content: bytes, spans: Sequence[Span]) -> bytes:
    return b"".join(content[start:stop] for start, stop in spans)


def _cut_png(content: bytes, keep_exif: bool) -> bytes:
    kept, place = [(0, 8)], 8
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">L4s", content, place)
        stop = place + 12 + length
        is_optional = kind in PNG_FRAMES or (kind == b"eXIf" and length < LARGE)
        declares_bits = kind == b"sBIT" and zlib.crc32(
            content[place + 4 : stop - 4]
        ) == int.from_bytes(content[stop - 4 : stop])
        if not kind[0] & 0x20 or kind in PNG_CHUNKS or declares_bits or (keep_exif and is_optional):
            kept.append((place, stop))
        place = stop
    return _join(content, kept)


def _cut_jpeg(content: bytes, keep_exif: bool) -> bytes:
    kept, place, exif = [(0, 2)], 2, 0
    while found := SEGMENT.match(content, place):
        place, marker = found.end() - 2, found[1][0]
        has_length = marker != 0x01 and not 0xD0 <= marker <= 0xD9
        stop = place + 2 + (int.from_bytes(content[place + 2 : place + 4]) if has_length else 0)
        is_metadata = marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != ADOBE)
        is_exif = keep_exif and content.startswith((b"Exif\0\0", b"MPF\0"), place + 4)
        exif += stop - place if is_exif else 0
        if not is_metadata or (is_exif and exif < LARGE):
            kept.append((place, stop))
        place = stop
    return _join(content, [*kept, (place, len(content))])


def _cut_gif(content: bytes, keep_exif: bool) -> bytes:
    """Cut out the extensions before the first image, except its delay and transparent colour."""
    place = 13 + (3 * 2 ** (content[10] % 8 + 1) if len(content) > 10 and content[10] & 0x80 else 0)
    kept = [(0, place)]
    while content[place : place + 1] == b"!":
        start, is_control = place, content[place + 1 : place + 2] == b"\xf9"
        place += 2
        while place < len(content) and content[place]:
            place += 1 + content[place]
        place += 1
        if is_control:
            kept.append((start, place))
    return _join(content, [*kept, (place, len(content))])


def _cut_webp(content: bytes, keep_exif: bool) -> bytes:
    metadata = WEBP_METADATA - ({b"EXIF"} if keep_exif else set())
    kept, place = [], 12
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<4sL", content, place)
        stop = place + 8 + length + length % 2
        if kind not in metadata:
            kept.append((place, stop))
        place = stop
    chunks = bytearray(_join(content, kept))
    if chunks.startswith(b"VP8X") and len(chunks) > 8:
        chunks[8] &= ~(0x24 | (0 if keep_exif else 0x08))  # the flags for ICC, XMP and EXIF
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks


def _cut_jp2(content: bytes, keep_exif: bool) -> bytes:
    return _join(
        content, [(start, stop) for start, stop, kind in _find_boxes(content) if kind in JP2_BOXES]
    )


def _cut_heif(content: bytes, keep_exif: bool) -> bytes:
    """Rename metadata items so that no parser reads them; the orientation is no such item."""
    start, stop, _ = next((box for box in _find_boxes(content) if box[2] == b"meta"), (0, 0, b""))
    return content[:start] + ITEM.sub(rb"\1none", content[start:stop]) + content[stop:]


def _find_boxes(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the start, stop and kind of each box of a file."""
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">L4s", content, place)
        if length == 1:
            length = int.from_bytes(content[place + 8 : place + 16])
        stop = place + length if length >= 8 else len(content)
        yield place, stop, kind
        place = stop


def _cut_tiff(content: bytes, keep_exif: bool) -> bytes:
    """Remove metadata entries from the first directory in place: nothing else moves."""
    order, is_big = "<" if content[:1] == b"I" else ">", 43 in content[2:4]
    count_format, entry, pointer = ("Q", 20, 8) if is_big else ("H", 12, 4)
    kept_tags = TIFF_TAGS | ({34665} if keep_exif else set())
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "L"), content, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + count_format, content, start)
    except (struct.error, OverflowError):
        return content
    first = start + struct.calcsize(count_format)
    stop = first + entry * count
    entries = [
        content[place : place + entry] for place in range(first, min(stop, len(content)), entry)
    ]
    kept = [
        one
        for one in entries
        if len(one) == entry and struct.unpack_from(order + "H", one)[0] in kept_tags
    ]
    directory = (
        struct.pack(order + count_format, len(kept))
        + b"".join(kept)
        + content[stop : stop + pointer]
    )
    return content[:start] + directory + content[start + len(directory) :]


def _cut_ppm(content: bytes, keep_exif: bool) -> bytes:
    header = (PNM_BITMAP if content[1:2] in b"14" else PNM).match(content)
    if header is None or b"#" not in header[0]:
        return content
    return b" ".join(header.groups()) + content[header.end() :]


CUTTERS: dict[bytes, Callable[[bytes, bool], bytes]] = {
    rb"\x89PNG\r\n\x1a\n": _cut_png,
    rb"\xff\xd8": _cut_jpeg,
    rb"GIF8[79]a": _cut_gif,
    rb"RIFF....WEBP": _cut_webp,
    rb"....jP  \r\n\x87\n": _cut_jp2,
    rb"....ftyp": _cut_heif,
    rb"II[*+]\0|MM\0[*+]": _cut_tiff,
    rb"P[1-6]\s": _cut_ppm,
}
