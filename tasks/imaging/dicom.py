"""Decode one frame of a DICOM file to an image.

Grey values go through the rescale slope and intercept of the file, or its modality table. The VOI
table follows, or the first window. Without either, values of up to 8 bits are shown as stored.
Larger ones are stretched from the smallest to the largest value of the frame, without its pixel
padding. MONOCHROME1 is inverted, and colours become RGB. The Representative Frame Number chooses
among several frames; without it the first counts. Overlays and the shape of pixels are ignored.

pydicom unpacks the pixels, and `dicom_header` reads the header.
Source: DICOM PS3.3 C.7.6.3 (pixels), C.7.6.16 (frames), C.11.1 and C.11.2 (tables and windows);
PS3.5 annex G (run lengths).
"""

import io
import logging
import struct
import warnings
from collections import ChainMap
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, UID_dictionary
from scipy.special import expit

from tasks.imaging.dicom_header import (
    BIG_ENDIAN,
    DEFLATED,
    IMPLICIT,
    Elements,
    get_element,
    get_item,
    read_decimal,
    read_header,
    read_integer,
    read_text,
)
from tasks.imaging.picture import PARSER_ERRORS, Decoded, ImageError, Limits, Values
from tasks.imaging.pillow import find_max_pixels

GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
SAMPLES = dict.fromkeys((*GREY, PALETTE), 1) | dict.fromkeys(
    ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3
)
# Transfer syntaxes.
PLAIN = {IMPLICIT, ExplicitVRLittleEndian, BIG_ENDIAN, DEFLATED}
RLE = "1.2.840.10008.1.2.5"
JPEG = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"}  # only up to 8 bits
JPEG2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}

Floats = NDArray[np.floating]
Integers = NDArray[np.int_]


def decode_dicom(content: bytes, limits: Limits) -> Decoded:
    """Decode a DICOM file with its preamble to an image in mode L or RGB. Raises `ImageError`."""
    _silence_pydicom()
    try:
        # A header may hold absurd numbers: the checks below look at the result.
        with np.errstate(all="ignore"):
            return _decode(read_header(content, limits.max_bytes), limits)
    except ImageError:
        raise
    except PARSER_ERRORS as error:
        ends = isinstance(error, struct.error) or "truncated" in str(error).lower()
        raise ImageError(
            "truncated" if ends else "corrupt",
            "a DICOM file whose header or pixel data cannot be read",
        ) from None


@cache
def _silence_pydicom() -> None:
    """Stop pydicom's tracebacks for damaged files, and its warnings of harmless faults."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")


def _decode(header: Elements, limits: Limits) -> Decoded:
    _check(header, limits)
    frames = max(int(read_decimal(header, "NumberOfFrames") or 1), 1)
    chosen = read_integer(header, "RepresentativeFrameNumber", 1) - 1
    frame = chosen if 0 <= chosen < frames else 0
    values, colours = _read_values(header, frame, frames)
    width = values.itemsize
    stored = np.arange(256**width, dtype=f"u{width}").view(values.dtype).astype(int)
    values = values.view(f"u{width}")
    if colours == "RGB":
        shades: Floats = stored / (2 ** read_integer(header, "BitsStored") - 1)
    elif colours == PALETTE:
        shades = _apply_palette(header, stored)
    elif colours in GREY:
        shades = _find_brightness(header, frame, stored, values)
        shades = 1 - shades if colours == "MONOCHROME1" else shades
    else:
        found = "a DICOM file whose colours cannot be converted to RGB"
        raise ImageError("unsupported_mode", found)
    if not np.isfinite(shades).all():
        raise ImageError("corrupt", "a DICOM file whose numbers for brightness are too large")
    table = np.rint(np.clip(shades, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(_translate(values, table))
    return Decoded(picture, "DICOM", read_text(header, "PhotometricInterpretation"))


def _check(header: Elements, limits: Limits) -> None:
    """Refuse a file that cannot be unpacked or is too large, before anything is unpacked."""
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise ImageError("unsupported_mode", "a DICOM file of floating point pixels")
    if "PixelData" not in header:
        raise ImageError(
            "truncated" if "Rows" in header else "not_an_image", "a DICOM file without pixel data"
        )
    bits = read_integer(header, "BitsAllocated")
    _check_syntax(header)
    rows, columns = read_integer(header, "Rows"), read_integer(header, "Columns")
    allowed = find_max_pixels(limits)
    if rows * columns > allowed:
        found = f"{columns:,} x {rows:,} pixels, allowed are {allowed:,}"
        raise ImageError("too_many_pixels", found)
    if bits not in (1, 8, 16):
        raise ImageError(
            "unsupported_mode", f"a DICOM file of {bits} bits for a value, expected are 1, 8 or 16"
        )
    samples = SAMPLES.get(read_text(header, "PhotometricInterpretation"))
    if samples != read_integer(header, "SamplesPerPixel"):
        raise ImageError(
            "unsupported_mode", f"a DICOM file whose colours are none of {', '.join(SAMPLES)}"
        )


def _check_syntax(header: Elements) -> None:
    syntax = read_text(header, "TransferSyntaxUID")
    is_known = syntax in {*PLAIN, RLE, *JPEG, *JPEG2000}
    if not is_known or (syntax in JPEG and read_integer(header, "BitsStored") > 8):
        known = UID_dictionary.get(syntax)
        name = known[0] if known else "an unknown transfer syntax"
        remedy = "unpack it first, for example with `dcmdjpeg`, `dcmdjpls` or `gdcmconv --raw`"
        raise ImageError("unsupported_compression", f"a DICOM file in {name}: {remedy}")


def _read_values(header: Elements, frame: int, frames: int) -> tuple[Values, str]:
    """Return the stored values of a frame and their photometric interpretation.

    The values have the shape (rows, columns) or (rows, columns, 3).
    """
    options = _make_options(header, frames)
    syntax = read_text(header, "TransferSyntaxUID")
    source: bytes | memoryview
    if syntax in JPEG | JPEG2000:
        source = header["PixelData"].value
        packed = get_frame(source, frame, number_of_frames=frames)
        _check_size(packed, (options["columns"], options["rows"]))
        options["decoding_plugin"] = "pillow"  # other installed plugins round differently
        options |= {"bits_allocated": 8} if syntax in JPEG else {}
    elif syntax == RLE:
        packed = get_frame(header["PixelData"].value, frame, number_of_frames=frames)
        source, frame = _unpack_run_lengths(packed, options), 0
        options |= {"planar_configuration": 1, "number_of_frames": 1}
    else:
        source = _get_plain_values(header, options)
    if syntax not in JPEG | JPEG2000:
        syntax = ExplicitVRBigEndian if syntax == BIG_ENDIAN else ExplicitVRLittleEndian
    values, found = get_decoder(syntax).as_array(source, index=frame, **options)
    native: Values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native, str(found["photometric_interpretation"])


def _make_options(header: Elements, frames: int) -> dict[str, Any]:
    """Return the options of pydicom's decoder."""
    return {
        "rows": read_integer(header, "Rows"),
        "columns": read_integer(header, "Columns"),
        "samples_per_pixel": read_integer(header, "SamplesPerPixel"),
        "number_of_frames": frames,
        "allow_excess_frames": False,
        "photometric_interpretation": read_text(header, "PhotometricInterpretation"),
        "planar_configuration": read_integer(header, "PlanarConfiguration", 0),
        "bits_allocated": read_integer(header, "BitsAllocated"),
        "bits_stored": read_integer(header, "BitsStored"),
        "pixel_representation": read_integer(header, "PixelRepresentation"),
        "pixel_keyword": "PixelData",
        "pixel_vr": header["PixelData"].kind.decode(),
    }


def _check_size(packed: bytes, size: tuple[int, int]) -> None:
    """Refuse a packed image whose size differs from the header; unpacking has no other limit."""
    try:
        with Image.open(io.BytesIO(packed), formats=("JPEG", "JPEG2000")) as image:
            fits = image.size == size
    except Image.DecompressionBombError:
        fits = False
    if not fits:
        raise ImageError(
            "corrupt", "a DICOM file whose packed picture has another size than its header tells"
        )


def _unpack_run_lengths(packed: bytes, options: dict[str, Any]) -> bytes:
    """Unpack a frame of run lengths to plain values, one sample after the other.

    The least significant byte comes first. Pillow unpacks each plane and stops when it is full.
    pydicom would unpack all runs of the file, up to 64 times its size.
    """
    pixels = options["rows"] * options["columns"]
    samples, width = options["samples_per_pixel"], options["bits_allocated"] // 8
    count, *starts = struct.unpack_from("<16L", packed)
    if count != samples * width:
        raise ImageError(
            "corrupt", "a DICOM file with another number of planes than its header tells"
        )
    stops = [*starts[1:count], len(packed)]
    planes = [
        np.asarray(Image.frombytes("L", (pixels, 1), packed[start:stop], "packbits", "L"))
        for start, stop in zip(starts[:count], stops, strict=True)
    ]
    return np.stack(planes).reshape(samples, width, pixels)[:, ::-1].transpose(0, 2, 1).tobytes()


def _get_plain_values(header: Elements, options: dict[str, Any]) -> memoryview:
    data, samples = header["PixelData"], options["samples_per_pixel"]
    source = memoryview(data.content)[data.start : data.stop]
    per_pixel = 2 if options["photometric_interpretation"] == "YBR_FULL_422" else samples
    pixels = options["rows"] * options["columns"] * options["number_of_frames"]
    if 8 * len(source) < pixels * per_pixel * options["bits_allocated"]:
        raise ImageError("truncated", "a DICOM file with less pixel data than its header tells")
    return source


def _find_brightness(header: Elements, frame: int, stored: Integers, values: Values) -> Floats:
    """Return the brightness, 0 to 1, of each value that can be stored.

    `stored` lists these values, and `values` are the values of the frame.
    """
    groups = (
        get_item(header, "PerFrameFunctionalGroupsSequence", frame),
        get_item(header, "SharedFunctionalGroupsSequence"),
    )
    macros = [
        get_item(group, name)
        for group in groups
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence")
    ]
    header = ChainMap(dict(header), *macros)
    measured = _rescale(header, stored)
    if table := get_item(header, "VOILUTSequence"):
        entries, top = _look_up(measured, table, "LUTDescriptor", "LUTData")
        return entries / top
    centre, width = read_decimal(header, "WindowCenter"), read_decimal(header, "WindowWidth")
    function = read_text(header, "VOILUTFunction").upper()
    if centre is None or not width or width < 0:
        low, high = _find_limits(header, stored, measured, values)
    elif function == "SIGMOID":
        sigmoid: Floats = expit(4 * (measured - centre) / width)
        return sigmoid
    else:
        centre, width = (centre, width) if function == "LINEAR_EXACT" else (centre - 0.5, width - 1)
        low, high = centre - width / 2, centre + width / 2
    return (measured - low) / (high - low) if high > low else (measured > low).astype(float)


def _rescale(header: Elements, stored: Integers) -> Floats:
    """Return the measured quantity of stored values, such as Hounsfield units."""
    if table := get_item(header, "ModalityLUTSequence"):
        return _look_up(stored, table, "LUTDescriptor", "LUTData")[0]
    slope, intercept = (read_decimal(header, name) for name in ("RescaleSlope", "RescaleIntercept"))
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _find_limits(
    header: Elements, stored: Integers, measured: Floats, values: Values
) -> tuple[float, float]:
    """Return the measured values that become black and white if the file gives no window.

    Up to 8 bits they are the limits of the data type. Above that they are the smallest and largest
    value of the frame, without its padding.
    """
    bits = read_integer(header, "BitsStored")
    shown = np.zeros(len(stored), dtype=bool)
    if bits <= 8:
        lowest = -(2 ** (bits - 1)) if stored.min() < 0 else 0
        shown = (stored >= lowest) & (stored < lowest + 2**bits)
    for line in values if bits > 8 else ():
        shown[line] = True
    padding = read_integer(header, "PixelPaddingValue", len(stored))
    if bits > 8 and padding < len(stored) and shown.sum() > shown[padding]:
        shown[padding] = False
    return float(measured[shown].min()), float(measured[shown].max())


def _apply_palette(header: Elements, stored: Integers) -> Floats:
    """Return red, green and blue, each 0 to 1, of stored values."""
    descriptor = "RedPaletteColorLookupTableDescriptor"
    tables = [
        _look_up(stored, header, descriptor, f"{colour}PaletteColorLookupTableData")
        for colour in ("Red", "Green", "Blue")
    ]
    return np.stack([entries / top for entries, top in tables], axis=1)


def _look_up(
    values: Integers | Floats, table: Elements, descriptor: str, data: str
) -> tuple[Floats, int]:
    """Return the entries of a table for `values`, and the largest entry that its type allows."""
    about, content = get_element(table, descriptor), get_element(table, data)
    count, first, bits = struct.unpack_from(f"{about.order}HHH", about.value)
    count = count or 2**16
    first -= 2**16 if values.min() < 0 and first >= 2**15 else 0
    kind = np.dtype("u1" if bits <= 8 and len(content.value) < 2 * count else f"{content.order}u2")
    entries = np.frombuffer(content.value, kind, min(count, len(content.value) // kind.itemsize))
    if not 8 <= bits <= 16 or not len(entries):
        raise ImageError("corrupt", f"a DICOM file whose {descriptor} and {data} make no table")
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1)
    return entries[places.astype(int)].astype(float), 2**bits - 1


def _translate(values: Values, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `table[values]`, one line at a time: NumPy's index takes 8 bytes for every value."""
    picture = np.empty(values.shape + table.shape[1:], dtype=np.uint8)
    for line, translated in zip(values, picture, strict=True):
        translated[...] = table[line]
    return picture
