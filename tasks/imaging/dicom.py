"""DICOM files to pictures, one frame of each.

Grey values go through the file's rescale slope and intercept (or modality table), and then through its VOI table or its
first window. Without either, up to 8 bits are shown as they are stored, and more are stretched from the smallest to the
largest value of the frame, pixel padding aside. MONOCHROME1 is inverted; colours become RGB. Of several frames the
file's Representative Frame Number says which, else it is the first. Overlays and the shape of pixels are ignored.

pydicom unpacks the pixels; `dicom_header` reads what it needs to know.
Source: DICOM PS3.3 C.7.6.3 (pixels), C.7.6.16 (frames), C.11.1 and C.11.2 (tables and windows); PS3.5 annex G (run lengths).
"""

import io
import logging
import math
import struct
import warnings
from collections import ChainMap
from functools import cache

import numpy as np
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
    decimal,
    element,
    integer,
    item,
    read_header,
    text,
)
from tasks.imaging.picture import PARSER_ERRORS, Decoded, ImageError, Limits

GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
SAMPLES = dict.fromkeys((*GREY, PALETTE), 1) | dict.fromkeys(
    ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3
)
PLAIN = {IMPLICIT, ExplicitVRLittleEndian, BIG_ENDIAN, DEFLATED}
RLE = "1.2.840.10008.1.2.5"
JPEG = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"}  # of 8 bits
JPEG2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}


def decode_dicom(content: bytes, limits: Limits) -> Decoded:
    """Decode a DICOM file with its preamble to a picture of mode L or RGB. Raises `ImageError`."""
    _quieten()
    try:
        with np.errstate(
            all="ignore"
        ):  # numbers of a header may be absurd; what comes of them is looked at
            return _picture(read_header(content, limits.max_bytes), limits)
    except ImageError:
        raise
    except PARSER_ERRORS as error:
        reason = (
            "truncated"
            if isinstance(error, struct.error) or "truncated" in str(error).lower()
            else "corrupt"
        )
        raise ImageError(reason, "a DICOM file whose header or pixel data cannot be read") from None


@cache
def _quieten() -> None:
    """Keep pydicom from logging each damaged picture with a traceback, and from warning of harmless faults."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")


def _picture(header: Elements, limits: Limits) -> Decoded:
    _check(header, limits)
    frames = max(int(decimal(header, "NumberOfFrames") or 1), 1)
    chosen = integer(header, "RepresentativeFrameNumber", 1) - 1
    frame = chosen if 0 <= chosen < frames else 0
    values, colours = _values(header, frame, frames)
    stored = (
        np.arange(256**values.itemsize, dtype=f"u{values.itemsize}").view(values.dtype).astype(int)
    )
    values = values.view(f"u{values.itemsize}")
    if colours == "RGB":
        shades = stored / (2 ** integer(header, "BitsStored") - 1)
    elif colours == PALETTE:
        shades = _palette(header, stored)
    elif colours in GREY:
        shades = _grey(header, frame, stored, values)
        shades = 1 - shades if colours == "MONOCHROME1" else shades
    else:
        raise ImageError(
            "unsupported_mode", "a DICOM file whose colours cannot be converted to RGB"
        )
    if not np.isfinite(shades).all():
        raise ImageError("corrupt", "a DICOM file whose numbers for brightness are too large")
    table = np.rint(np.clip(shades, 0, 1) * 255).astype(np.uint8)
    return Decoded(
        Image.fromarray(_translate(values, table)),
        "DICOM",
        text(header, "PhotometricInterpretation"),
    )


def _check(header: Elements, limits: Limits) -> None:
    """Refuse what cannot be unpacked or is too large, before anything is unpacked."""
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise ImageError("unsupported_mode", "a DICOM file of floating point pixels")
    if "PixelData" not in header:
        raise ImageError(
            "truncated" if "Rows" in header else "not_an_image", "a DICOM file without pixel data"
        )
    syntax, bits = text(header, "TransferSyntaxUID"), integer(header, "BitsAllocated")
    if syntax not in {*PLAIN, RLE, *JPEG, *JPEG2000} or (
        syntax in JPEG and integer(header, "BitsStored") > 8
    ):
        name = (
            UID_dictionary[syntax][0] if syntax in UID_dictionary else "an unknown transfer syntax"
        )
        remedy = "unpack it first, for example with `dcmdjpeg`, `dcmdjpls` or `gdcmconv --raw`"
        raise ImageError("unsupported_compression", f"a DICOM file in {name}: {remedy}")
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    allowed = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or math.inf))  # Pillow's own limit
    if rows * columns > allowed:
        raise ImageError(
            "too_many_pixels", f"{columns:,} x {rows:,} pixels, allowed are {allowed:,}"
        )
    if bits not in (1, 8, 16):
        raise ImageError(
            "unsupported_mode", f"a DICOM file of {bits} bits for a value, expected are 1, 8 or 16"
        )
    if SAMPLES.get(text(header, "PhotometricInterpretation")) != integer(header, "SamplesPerPixel"):
        raise ImageError(
            "unsupported_mode", f"a DICOM file whose colours are none of {', '.join(SAMPLES)}"
        )


def _values(header: Elements, frame: int, frames: int) -> tuple[np.ndarray, str]:
    """Return the stored values of a frame, (rows, columns) or (rows, columns, 3), and their photometric interpretation."""
    syntax, data, options = (
        text(header, "TransferSyntaxUID"),
        header["PixelData"],
        _options(header, frames),
    )
    size, samples, bits = (
        (options["columns"], options["rows"]),
        options["samples_per_pixel"],
        options["bits_allocated"],
    )
    written = ExplicitVRBigEndian if syntax == BIG_ENDIAN else ExplicitVRLittleEndian
    if syntax in JPEG | JPEG2000:
        written, source = syntax, data.value
        _check_size(get_frame(source, frame, number_of_frames=frames), size)
        options["decoding_plugin"] = "pillow"  # others may be installed, and round in other ways
        options |= {"bits_allocated": 8} if syntax in JPEG else {}
    elif syntax == RLE:
        packed = get_frame(data.value, frame, number_of_frames=frames)
        source = _run_lengths(packed, math.prod(size), samples, bits // 8)
        frame = 0
        options |= {"planar_configuration": 1, "number_of_frames": 1}
    else:
        source = memoryview(data.content)[data.start : data.stop]
        told = 2 if options["photometric_interpretation"] == "YBR_FULL_422" else samples
        if 8 * len(source) < math.prod(size) * told * bits * frames:
            raise ImageError("truncated", "a DICOM file with less pixel data than its header tells")
    values, found = get_decoder(written).as_array(source, index=frame, **options)
    return values.astype(values.dtype.newbyteorder("="), copy=False), found[
        "photometric_interpretation"
    ]


def _options(header: Elements, frames: int) -> dict[str, object]:
    """Return what pydicom asks for, in its words."""
    return {
        "rows": integer(header, "Rows"),
        "columns": integer(header, "Columns"),
        "samples_per_pixel": integer(header, "SamplesPerPixel"),
        "number_of_frames": frames,
        "allow_excess_frames": False,
        "photometric_interpretation": text(header, "PhotometricInterpretation"),
        "planar_configuration": integer(header, "PlanarConfiguration", 0),
        "bits_allocated": integer(header, "BitsAllocated"),
        "bits_stored": integer(header, "BitsStored"),
        "pixel_representation": integer(header, "PixelRepresentation"),
        "pixel_keyword": "PixelData",
        "pixel_vr": header["PixelData"].kind.decode(),
    }


def _check_size(packed: bytes, size: tuple[int, int]) -> None:
    """Refuse a packed picture that is larger than the header tells: it would be unpacked whole."""
    try:
        with Image.open(io.BytesIO(packed), formats=("JPEG", "JPEG2000")) as image:
            fits = image.size == size
    except Image.DecompressionBombError:
        fits = False
    if not fits:
        raise ImageError(
            "corrupt", "a DICOM file whose packed picture has another size than its header tells"
        )


def _run_lengths(packed: bytes, pixels: int, samples: int, width: int) -> bytes:
    """Unpack a frame of run lengths to plain values, least significant byte first, one sample after the other.

    By Pillow, which stops where a plane is full: pydicom unpacks all that is there, up to 64 times the size of the file.
    """
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


def _grey(header: Elements, frame: int, stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the brightness, 0 to 1, of each of `stored`, all values that there may be; `values` are those of the frame."""
    groups = (
        item(header, "PerFrameFunctionalGroupsSequence", frame),
        item(header, "SharedFunctionalGroupsSequence"),
    )
    macros = [
        item(group, name)
        for group in groups
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence")
    ]
    header = ChainMap(dict(header), *macros)
    measured = _measured(header, stored)
    if table := item(header, "VOILUTSequence"):
        entries, top = _look_up(measured, table, "LUTDescriptor", "LUTData")
        return entries / top
    centre, width = decimal(header, "WindowCenter"), decimal(header, "WindowWidth")
    function = text(header, "VOILUTFunction").upper()
    if centre is None or not width or width < 0:
        low, high = _range(header, stored, measured, values)
    elif function == "SIGMOID":
        return expit(4 * (measured - centre) / width)
    else:
        centre, width = (centre, width) if function == "LINEAR_EXACT" else (centre - 0.5, width - 1)
        low, high = centre - width / 2, centre + width / 2
    return (measured - low) / (high - low) if high > low else (measured > low).astype(float)


def _measured(header: Elements, stored: np.ndarray) -> np.ndarray:
    """Return what stored values stand for, such as Hounsfield units."""
    if table := item(header, "ModalityLUTSequence"):
        return _look_up(stored, table, "LUTDescriptor", "LUTData")[0]
    slope, intercept = decimal(header, "RescaleSlope"), decimal(header, "RescaleIntercept")
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _range(
    header: Elements, stored: np.ndarray, measured: np.ndarray, values: np.ndarray
) -> tuple[float, float]:
    """Return what is shown black and white where the file does not say: of its type up to 8 bits, of its values above."""
    bits = integer(header, "BitsStored")
    shown = np.zeros(len(stored), dtype=bool)
    if bits <= 8:
        lowest = -(2 ** (bits - 1)) if stored.min() < 0 else 0
        shown = (stored >= lowest) & (stored < lowest + 2**bits)
    for line in values if bits > 8 else ():
        shown[line] = True
    padding = integer(header, "PixelPaddingValue", len(stored))
    if bits > 8 and padding < len(stored) and shown.sum() > shown[padding]:
        shown[padding] = False
    return measured[shown].min(), measured[shown].max()


def _palette(header: Elements, stored: np.ndarray) -> np.ndarray:
    """Return red, green and blue, 0 to 1, of each of `stored`."""
    tables = [
        _look_up(
            stored,
            header,
            "RedPaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
        )
        for colour in ("Red", "Green", "Blue")
    ]
    return np.stack([entries / top for entries, top in tables], axis=1)


def _look_up(
    values: np.ndarray, table: Elements, descriptor: str, data: str
) -> tuple[np.ndarray, int]:
    """Return the entries of a table for `values`, and the largest that its type allows."""
    about, content = element(table, descriptor), element(table, data)
    count, first, bits = struct.unpack_from(f"{about.order}HHH", about.value)
    count = count or 2**16
    first -= 2**16 if values.min() < 0 and first >= 2**15 else 0
    kind = np.dtype("u1" if bits <= 8 and len(content.value) < 2 * count else f"{content.order}u2")
    entries = np.frombuffer(content.value, kind, min(count, len(content.value) // kind.itemsize))
    if not 8 <= bits <= 16 or not len(entries):
        raise ImageError("corrupt", f"a DICOM file whose {descriptor} and {data} make no table")
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1)
    return entries[places.astype(int)].astype(float), 2**bits - 1


def _translate(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `table[values]`, line by line: NumPy makes an index of 8 bytes of every value."""
    picture = np.empty(values.shape + table.shape[1:], dtype=np.uint8)
    for line, translated in zip(values, picture, strict=True):
        translated[...] = table[line]
    return picture
