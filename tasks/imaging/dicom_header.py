"""The header of a DICOM file, walked: the elements in `TAGS` are read, and no others.

So names, dates and identifiers are never decoded, and no message can quote them. pydicom would build an object of every
item of every sequence (a file of a million empty ones took 85 times its size in memory); here nothing is built of what is
not read, and sequences may nest as deep as they like.

Source: DICOM PS3.5, chapter 7 (data elements and sequences) and annex A (transfer syntaxes).
"""

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.imaging.picture import ImageError

TAGS = {
    0x00020010: "TransferSyntaxUID",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
    0x00280006: "PlanarConfiguration",
    0x00280008: "NumberOfFrames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00281050: "WindowCenter",
    0x00281051: "WindowWidth",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00281056: "VOILUTFunction",
    0x00281101: "RedPaletteColorLookupTableDescriptor",
    0x00281201: "RedPaletteColorLookupTableData",
    0x00281202: "GreenPaletteColorLookupTableData",
    0x00281203: "BluePaletteColorLookupTableData",
    0x00283000: "ModalityLUTSequence",
    0x00283002: "LUTDescriptor",
    0x00283006: "LUTData",
    0x00283010: "VOILUTSequence",
    0x00286010: "RepresentativeFrameNumber",
    0x00289132: "FrameVOILUTSequence",
    0x00289145: "PixelValueTransformationSequence",
    0x52009229: "SharedFunctionalGroupsSequence",
    0x52009230: "PerFrameFunctionalGroupsSequence",
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
END_OF_META, PIXEL_DATA = 0x0002FFFF, 0x7FE00010
ITEM, END_OF_ITEM, END_OF_SEQUENCE, UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
IMPLICIT, DEFLATED, BIG_ENDIAN = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)


@dataclass(frozen=True)
class Part:
    """A run of bytes of a file, and how it is written: the value of an element, or elements, or items."""

    content: bytes
    start: int
    stop: int
    order: str  # < or >
    explicit: bool  # whether elements name their kind
    kind: bytes = b""  # OB, OW, …

    @property
    def value(self) -> bytes:
        return self.content[self.start : self.stop]


Elements = Mapping[str, Part]  # by the names of TAGS


def read_header(content: bytes, max_bytes: float) -> Elements:
    """Return the elements of a whole file with its preamble, `PixelData` among them.

    A deflated file is unpacked up to `max_bytes`. Raises `ImageError`, `struct.error` and `zlib.error`.
    """
    meta, place = _read(Part(content, 132, len(content), "<", True), END_OF_META)
    element(meta, "TransferSyntaxUID")
    syntax = text(meta, "TransferSyntaxUID")
    if syntax == DEFLATED:
        content, place = _inflate(content[place:], max_bytes), 0
    whole = Part(
        content, place, len(content), ">" if syntax == BIG_ENDIAN else "<", syntax != IMPLICIT
    )
    return meta | _read(whole, PIXEL_DATA)[0]


def item(elements: Elements, name: str, index: int = 0) -> dict[str, Part]:
    """Return the elements of one item of a sequence; none where there is no such item."""
    part = elements.get(name)
    place = part.start if part else 0
    while part and place + 8 <= part.stop:
        tag, _, start, length = _next(part, place, part.explicit)
        if tag != ITEM:
            break
        stop = part.stop if length == UNDEFINED else start + length
        found, place = _read(Part(part.content, start, stop, part.order, part.explicit), PIXEL_DATA)
        if index == 0:
            return found
        index, place = index - 1, place if length == UNDEFINED else stop
    return {}


def text(elements: Elements, name: str) -> str:
    """Return the first value of a text; empty where there is none."""
    value = elements[name].value if name in elements else b""
    return value.decode("ascii", "replace").split("\\")[0].strip(" \0")


def decimal(elements: Elements, name: str) -> float | None:
    """Return the first number of a text; none where there is none. Raises `ImageError` where it is no finite number."""
    try:
        number = float(text(elements, name) or "nan")
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ImageError("corrupt", f"a DICOM file whose {name} is no number")
    return None if math.isnan(number) else number


def integer(elements: Elements, name: str, default: int | None = None) -> int:
    """Return a number of 16 bits without sign. Raises `ImageError` where it is missing and there is no default."""
    if name not in elements and default is not None:
        return default
    part = element(elements, name)
    return struct.unpack_from(f"{part.order}H", part.value)[0]


def element(elements: Elements, name: str) -> Part:
    """Return an element. Raises `ImageError` where it is missing."""
    if name not in elements:
        raise ImageError("corrupt", f"a DICOM file whose header lacks {name}")
    return elements[name]


def _inflate(packed: bytes, max_bytes: float) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacker.decompress(packed, int(min(max_bytes, 2**31)))
    if unpacker.unconsumed_tail:
        raise ImageError(
            "too_many_bytes", "a deflated DICOM file that is too large when it is unpacked"
        )
    return content


def _read(part: Part, last: int) -> tuple[dict[str, Part], int]:
    """Return the elements in `TAGS`, up to the tag `last` or the end of the item, and the place behind them."""
    found, place = {}, part.start
    while place + 8 <= part.stop:
        tag, kind, start, length = _next(part, place, part.explicit)
        if tag > last:
            return found, start if tag == END_OF_ITEM else place
        inside = part.explicit and kind != b"UN"
        place = _end(part, start, inside) if length == UNDEFINED else start + length
        if place > part.stop:
            raise ImageError(
                "truncated", "a DICOM file that ends within its header or within its pixel data"
            )
        if tag in TAGS:
            found[TAGS[tag]] = Part(part.content, start, place, part.order, inside, kind)
    return found, place


def _next(part: Part, place: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """Return tag, kind, place of the value and its length, of the element or item at `place`."""
    group, element, length = struct.unpack_from(f"{part.order}HHL", part.content, place)
    tag, kind = group << 16 | element, part.content[place + 4 : place + 6]
    if not explicit or group == 0xFFFE or not (kind.isalpha() and kind.isupper()):
        return tag, b"", place + 8, length
    if kind in LONG:
        return (
            tag,
            kind,
            place + 12,
            struct.unpack_from(f"{part.order}L", part.content, place + 8)[0],
        )
    return tag, kind, place + 8, struct.unpack_from(f"{part.order}H", part.content, place + 6)[0]


def _end(part: Part, place: int, explicit: bool) -> int:
    """Return the place behind a sequence of undefined length, whatever nests in it."""
    nested = [explicit]
    while nested:
        tag, kind, start, length = _next(part, place, nested[-1])
        place = start if length == UNDEFINED else start + length
        if tag == END_OF_SEQUENCE:
            nested.pop()
        elif length == UNDEFINED and tag != ITEM:
            nested.append(nested[-1] and kind != b"UN")
    return place
