"""DICOM files made by code: whole files of each kind that is read, and damaged ones."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tasks.imaging.dicom_header import TAGS

IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (
    f"1.2.840.10008.1.2{ending}" for ending in ("", ".1", ".1.99", ".2")
)  # fmt: skip
JPEG, JPEG2000, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"


def describe(
    pixels: np.ndarray, photometric: str = "", bits_stored: int = 0, **header: object
) -> Dataset:
    """Return a data set with values of 8 or 16 bits.

    Their shape is (rows, columns), (rows, columns, 3) or (frames, rows, columns).
    """
    colours = pixels.ndim == 3 and pixels.shape[2] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colours else 1
    data = Dataset()
    data.SamplesPerPixel = 3 if colours else 1
    data.PhotometricInterpretation = photometric or ("RGB" if colours else "MONOCHROME2")
    if colours:
        data.PlanarConfiguration = 0
    if frames > 1:
        data.NumberOfFrames = frames
    data.Rows, data.Columns = pixels.shape[:2] if colours else pixels.shape[-2:]
    data.BitsAllocated = 8 * pixels.itemsize
    data.BitsStored = bits_stored or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in header.items():
        setattr(data, keyword, value)
    data.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    data["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    return data


def write(data: Dataset, syntax: str = EXPLICIT, preamble: bytes = bytes(128)) -> bytes:
    """Return the bytes of a file with this data set."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.preamble = preamble
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def dicom(pixels: np.ndarray, syntax: str = EXPLICIT, **header: object) -> bytes:
    """Return a file with these pixels in the given transfer syntax."""
    data = describe(pixels, **header)
    if syntax == RLE:
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        data.compress(RLE, generate_instance_uid=False)
    if syntax in (JPEG, JPEG2000):
        frames = pixels if pixels.ndim == 3 and data.SamplesPerPixel == 1 else [pixels]
        data.PixelData = encapsulate(
            [_packed(frame, "JPEG" if syntax == JPEG else "JPEG2000") for frame in frames]
        )
        data["PixelData"].is_undefined_length = True
    if syntax == BIG_ENDIAN and pixels.itemsize == 2:
        data.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    return write(data, syntax)


def _packed(frame: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 95} if form == "JPEG" else {"no_jp2": True, "irreversible": False}
    Image.fromarray(frame).save(buffer, form, **options)
    return buffer.getvalue()


def grey(
    seed: int = 0, bits: int = 12, shape: tuple[int, ...] = (24, 32), dtype: str = "u2"
) -> np.ndarray:
    """Return smooth random values that use all `bits`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4), dtype=np.uint8)
    smooth = np.asarray(
        Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC), dtype=float
    )
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * (2**bits - 1)
    return (np.rint(smooth) - (2 ** (bits - 1) if dtype.startswith("i") else 0)).astype(dtype)


def coloured(seed: int = 0) -> np.ndarray:
    return np.stack([grey(seed + number, 8, dtype="u1") for number in range(3)], axis=2)


def window(centre: float, width: float) -> Dataset:
    data = Dataset()
    data.WindowCenter, data.WindowWidth = centre, width
    return data


def table(entries: list[int], first: int, bits: int) -> Dataset:
    """Return an item of a modality or VOI table."""
    data = Dataset()
    data.LUTDescriptor = [len(entries), first, bits]
    data.LUTData = entries
    data["LUTDescriptor"].VR = data["LUTData"].VR = "US"
    return data


def palette() -> dict[str, object]:
    """Return the header of a palette: red rises, green falls, blue is a third of red."""
    shades = np.arange(256, dtype=np.uint8)
    header: dict[str, object] = {"photometric": "PALETTE COLOR"}
    for colour, values in (("Red", shades), ("Green", shades[::-1]), ("Blue", shades // 3)):
        header[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        header[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    return header


def samples() -> dict[str, bytes]:
    """Return a small whole file of each kind."""
    eight, twelve, stack = (
        grey(0, 8, dtype="u1"),
        grey(),
        np.stack([grey(seed) for seed in range(3)]),
    )
    enhanced = describe(stack, bits_stored=12)
    group = Dataset()
    group.FrameVOILUTSequence = [window(2000, 1000)]
    enhanced.SharedFunctionalGroupsSequence = [group]
    enhanced.PerFrameFunctionalGroupsSequence = [Dataset(), Dataset(), Dataset()]
    return {
        "eight bits": dicom(eight),
        "implicit": dicom(twelve, IMPLICIT, bits_stored=12),
        "big endian": dicom(twelve, BIG_ENDIAN, bits_stored=12),
        "deflated": dicom(twelve, DEFLATED, bits_stored=12),
        "signed": dicom(
            grey(dtype="i2"),
            bits_stored=12,
            RescaleSlope=2,
            RescaleIntercept=-10,
            WindowCenter=40,
            WindowWidth=400,
        ),
        "tables": dicom(
            twelve,
            ModalityLUTSequence=[table(list(range(4096)), 0, 16)],
            VOILUTSequence=[table(list(range(0, 4096, 16)), 100, 12)],
        ),
        "inverted": dicom(twelve, photometric="MONOCHROME1"),
        "frames": dicom(stack, bits_stored=12, RepresentativeFrameNumber=2),
        "enhanced": write(enhanced),
        "colours": dicom(coloured()),
        "YBR": dicom(coloured(), photometric="YBR_FULL"),
        "palette": dicom(eight, **palette()),
        "run lengths": dicom(twelve, RLE),
        "run lengths of colours": dicom(coloured(), RLE),
        "JPEG": dicom(eight, JPEG),
        "JPEG of colours": dicom(coloured(), JPEG, photometric="YBR_FULL_422"),
        "JPEG 2000": dicom(twelve, JPEG2000),
        "JPEG 2000 of colours": dicom(coloured(), JPEG2000, photometric="YBR_RCT"),
    }


def mutations(content: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield damaged copies: cut off, with flipped bits, with a gap, with spoilt header elements."""
    yield content[: rng.integers(len(content))]
    for reach in (len(content), min(600, len(content))):
        yield _flip(content, 132, reach, rng)
    place = rng.integers(132, len(content))
    yield content[:place] + content[place + rng.integers(1, 40) :]
    places = [place for tag in TAGS for place in _find(content, tag)]
    place = places[rng.integers(len(places))]
    yield _flip(content, place + 4, min(place + 14, len(content)), rng)  # kind, length or value
    yield content[: place + 8] + rng.bytes(rng.integers(1, 9)) + content[place + 8 :]
    yield content[:place] + nest(rng.integers(1, 3000)) + content[place:]
    for extreme in (0, 0xFFFF):
        yield content[: place + 8] + struct.pack("<H", extreme) + content[place + 10 :]
    other = places[rng.integers(len(places))]
    yield content[:place] + content[other : other + 4] + content[place + 4 :]


def nest(depth: int) -> bytes:
    """Return nested sequences of undefined length that are never closed."""
    return struct.pack(
        "<HH2s2xLHHL", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF
    ) * int(depth)


def _flip(content: bytes, start: int, stop: int, rng: np.random.Generator) -> bytes:
    hit = bytearray(content)
    for place in rng.integers(start, stop, size=rng.integers(1, 8)):
        hit[place] ^= 1 << rng.integers(8)
    return bytes(hit)


def _find(content: bytes, tag: int) -> Iterator[int]:
    place = content.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    if 0 <= place < len(content) - 16:
        yield place
