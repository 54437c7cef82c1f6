"""The header of a DICOM file: only the elements in `TAGS` are read.

Names, dates and identifiers are never decoded, so no message can quote them. pydicom builds an
object for every item of every sequence: a file of a million empty items took 85 times its size in
memory. This reader builds nothing for the elements that it skips, and sequences may nest to any
depth.

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
# Kinds of elements (value representations) whose length takes 32 bits.
LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
# Transfer syntaxes.
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class Span:
    """A run of bytes in a file: the value of an element, a list of elements, or a list of items."""

    content: bytes
    start: int
    stop: int
    order: str  # the byte order, < or >
    explicit: bool  # whether elements name their kind
    kind: bytes = b""  # the value representation, such as OB or OW

    @property
    def value(self) -> bytes:
        """The bytes themselves."""
        return self.content[self.start : self.stop]


Elements = Mapping[str, Span]  # by the names in TAGS


def read_header(content: bytes, max_bytes: float) -> Elements:
    """Return the elements of a whole file with its preamble, `PixelData` included.

    A deflated file is unpacked up to `max_bytes`. Raises `ImageError`, `struct.error` and
    `zlib.error`.
    """
    meta, place = _read_elements(Span(content, 132, len(content), "<", True), END_OF_META)
    get_element(meta, "TransferSyntaxUID")
    syntax = read_text(meta, "TransferSyntaxUID")
    if syntax == DEFLATED:
        content, place = _inflate(content[place:], max_bytes), 0
    order = ">" if syntax == BIG_ENDIAN else "<"
    whole = Span(content, place, len(content), order, syntax != IMPLICIT)
    return meta | _read_elements(whole, PIXEL_DATA)[0]


def get_item(elements: Elements, name: str, index: int = 0) -> dict[str, Span]:
    """Return the elements of one item of a sequence; {} if there is no such item."""
    sequence = elements.get(name)
    place = sequence.start if sequence else 0
    while sequence and place + 8 <= sequence.stop:
        tag, _, start, length = _read_tag(sequence, place, sequence.explicit)
        if tag != ITEM:
            break
        stop = sequence.stop if length == UNDEFINED else start + length
        inside = Span(sequence.content, start, stop, sequence.order, sequence.explicit)
        found, place = _read_elements(inside, PIXEL_DATA)
        if index == 0:
            return found
        index, place = index - 1, place if length == UNDEFINED else stop
    return {}


def read_text(elements: Elements, name: str) -> str:
    """Return the first value of a text element; "" if the element is missing."""
    value = elements[name].value if name in elements else b""
    return value.decode("ascii", "replace").split("\\")[0].strip(" \0")


def read_decimal(elements: Elements, name: str) -> float | None:
    """Return the first number of a text element; None if it has no number.

    Raises `ImageError` if the text is no finite number.
    """
    try:
        number = float(read_text(elements, name) or "nan")
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ImageError("corrupt", f"a DICOM file whose {name} is no number")
    return None if math.isnan(number) else number


def read_integer(elements: Elements, name: str, default: int | None = None) -> int:
    """Return an unsigned number of 16 bits.

    Raises `ImageError` if the element is missing and there is no default.
    """
    if name not in elements and default is not None:
        return default
    found = get_element(elements, name)
    number: int = struct.unpack_from(f"{found.order}H", found.value)[0]
    return number


def get_element(elements: Elements, name: str) -> Span:
    """Return an element. Raises `ImageError` if it is missing."""
    if name not in elements:
        raise ImageError("corrupt", f"a DICOM file whose header lacks {name}")
    return elements[name]


def _inflate(packed: bytes, max_bytes: float) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacker.decompress(packed, int(min(max_bytes, 2**31)))
    if unpacker.unconsumed_tail:
        found = "a deflated DICOM file that is too large when it is unpacked"
        raise ImageError("too_many_bytes", found)
    return content


def _read_elements(span: Span, last: int) -> tuple[dict[str, Span], int]:
    """Return the elements in `TAGS` and the place behind them.

    Reading ends at the first tag above `last`, or at the end of the item.
    """
    found: dict[str, Span] = {}
    place = span.start
    while place + 8 <= span.stop:
        tag, kind, start, length = _read_tag(span, place, span.explicit)
        if tag > last:
            return found, start if tag == END_OF_ITEM else place
        inside = span.explicit and kind != b"UN"
        place = _skip_sequence(span, start, inside) if length == UNDEFINED else start + length
        if place > span.stop:
            raise ImageError(
                "truncated", "a DICOM file that ends within its header or within its pixel data"
            )
        if tag in TAGS:
            found[TAGS[tag]] = Span(span.content, start, place, span.order, inside, kind)
    return found, place


def _read_tag(span: Span, place: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """Return the tag, kind, value's place and length of the element or item at `place`."""
    order, content = span.order, span.content
    group, element, length = struct.unpack_from(f"{order}HHL", content, place)
    tag, kind = group << 16 | element, content[place + 4 : place + 6]
    if not explicit or group == 0xFFFE or not (kind.isalpha() and kind.isupper()):
        return tag, b"", place + 8, length
    if kind in LONG:
        return tag, kind, place + 12, struct.unpack_from(f"{order}L", content, place + 8)[0]
    return tag, kind, place + 8, struct.unpack_from(f"{order}H", content, place + 6)[0]


def _skip_sequence(span: Span, place: int, explicit: bool) -> int:
    """Return the place behind a sequence of undefined length, whatever is nested in it."""
    nested = [explicit]
    while nested:
        tag, kind, start, length = _read_tag(span, place, nested[-1])
        place = start if length == UNDEFINED else start + length
        if tag == END_OF_SEQUENCE:
            nested.pop()
        elif length == UNDEFINED and tag != ITEM:
            nested.append(nested[-1] and kind != b"UN")
    return place
