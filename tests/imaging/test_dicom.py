"""A DICOM file gives the pixels that a viewer shows, and no output names the patient."""

import io
import itertools
import logging
import resource
import struct
import subprocess
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from tasks import clean, validate
from tasks.imaging.decode import decode, decode_bytes
from tasks.imaging.picture import REASONS, ImageError, Limits
from tasks.quality.duplicates import find_duplicates
from tasks.quality.scan import scan
from tests.support import ROOT, dicoms
from tests.support.dicoms import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    JPEG2000,
    RLE,
    coloured,
    describe,
    dicom,
    grey,
    write,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
NO_LIMITS = Limits()
MARK = "XMARKX"
SAMPLES = dicoms.samples()


def shown(content: bytes, channels: int = 1) -> np.ndarray:
    pixels = decode(content, channels)
    return pixels[:, :, 0] if channels == 1 else pixels


def refuse(content: bytes, limits: Limits = NO_LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(content, 3, limits=limits)
    return caught.value


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(
        np.uint8
    )


def by_pydicom(content: bytes) -> np.ndarray:
    """Return the first frame as pydicom's display functions give it, scaled to 0 to 255."""
    data = pydicom.dcmread(io.BytesIO(content))
    values = pixel_array(data, index=0)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(values, data)
    if data.SamplesPerPixel == 3:
        return values
    seen = apply_voi_lut(apply_modality_lut(values, data), data).astype(float)
    if "VOILUTSequence" in data:
        low, high = 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowWidth" in data:  # pydicom spreads a window over all values that can be stored
        stored = np.array([0, 2**data.BitsStored - 1]) - (
            2 ** (data.BitsStored - 1) if data.PixelRepresentation else 0
        )
        low, high = apply_modality_lut(stored, data)
    else:
        low, high = (0, 255) if data.BitsStored == 8 else (seen.min(), seen.max())
    return (
        stretched(-seen, -high, -low)
        if data.PhotometricInterpretation == "MONOCHROME1"
        else stretched(seen, low, high)
    )


def test_pixels_are_those_of_pydicoms_own_functions() -> None:
    others = {"frames", "enhanced"}  # another frame or window of these is shown
    contents = {name: content for name, content in SAMPLES.items() if name not in others}
    pictures = {
        name: np.asarray(decode_bytes(content).picture) for name, content in contents.items()
    }
    wrong = [
        name for name in contents if not np.array_equal(pictures[name], by_pydicom(contents[name]))
    ]
    assert len(contents) == 16 and not wrong


def test_eight_bits_are_shown_as_they_are_stored() -> None:
    values = grey(bits=8, dtype="u1") // 2 + 20
    assert np.array_equal(shown(dicom(values)), values)
    assert decode_bytes(dicom(values)).format == "DICOM"


def test_fewer_bits_are_spread_and_signed_ones_shifted() -> None:
    assert shown(dicom(np.array([[0, 7, 15]], "u1"), bits_stored=4)).tolist() == [[0, 119, 255]]
    assert shown(dicom(np.array([[-128, 0, 127]], "i1"))).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_more_bits_are_stretched_from_smallest_to_largest(dtype: str) -> None:
    values = grey(bits=10, dtype=dtype)
    expected = stretched(values, values.min(), values.max())
    assert np.array_equal(shown(dicom(values)), expected)
    assert np.array_equal(shown(dicom(values, RescaleSlope=0.5, RescaleIntercept=-1024)), expected)


def test_padding_is_not_stretched() -> None:
    values = np.array([[-2000, 0, 100, 200]], "i2")
    assert shown(dicom(values, PixelPaddingValue=-2000)).tolist() == [[0, 0, 128, 255]]
    assert shown(dicom(np.full((2, 2), -2000, "i2"), PixelPaddingValue=-2000)).tolist() == [
        [0, 0],
        [0, 0],
    ]


def test_a_flat_picture_is_black() -> None:
    assert not shown(dicom(np.full((2, 2), 700, "u2"))).any()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, lambda value: (value - 39.5) / 96 + 0.5),  # PS3.3 C.11.2.1.2.1
        ("LINEAR_EXACT", lambda value: (value - 40) / 97 + 0.5),
        ("SIGMOID", lambda value: 1 / (1 + np.exp(-4 * (value - 40) / 97))),
    ],
)
def test_the_first_window_after_the_rescale(function: str | None, expected: Callable) -> None:
    values = np.arange(900, 1200, dtype="u2").reshape(20, 15)
    header = {
        "RescaleSlope": 2,
        "RescaleIntercept": -2048,
        "WindowCenter": [40, 300],
        "WindowWidth": [97, 2000],
    }
    header |= {"VOILUTFunction": function} if function else {}
    brightness = expected(values * 2.0 - 2048)
    assert np.array_equal(shown(dicom(values, **header)), np.rint(np.clip(brightness, 0, 1) * 255))


def test_a_window_of_one_value_is_a_threshold() -> None:
    assert shown(
        dicom(np.array([[9, 10, 11]], "u2"), WindowCenter=10.5, WindowWidth=1)
    ).tolist() == [[0, 0, 255]]


def test_a_window_without_width_is_none() -> None:
    values = grey()
    for width in (0, -5, ""):
        windowed = shown(dicom(values, WindowCenter=10, WindowWidth=width))
        assert np.array_equal(windowed, shown(dicom(values))), width


def test_a_negative_slope_inverts() -> None:
    values = grey(bits=8, dtype="u1")
    assert np.array_equal(shown(dicom(values, RescaleSlope=-1, RescaleIntercept=0)), 255 - values)


def test_a_table_of_long_entries_in_eight_bits() -> None:
    """The index of a table of 4,096 entries needs more bits than its 8-bit entries."""
    values = np.array([[0, 255, 256, 4095]], "u2")
    table = dicoms.table([place // 16 for place in range(4096)], 0, 8)
    assert shown(dicom(values, VOILUTSequence=[table])).tolist() == [[0, 15, 16, 255]]


def test_a_table_of_signed_places() -> None:
    table = dicoms.table([0, 100, 255], 2**16 - 1000, 8)
    values = np.array([[0, 24, 25, 26, 60]], "u2")
    assert shown(
        dicom(values, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[table])
    ).tolist() == [[0, 0, 100, 255, 255]]


def test_monochrome1_is_inverted() -> None:
    for values in (grey(), grey(bits=8, dtype="u1")):
        assert np.array_equal(
            shown(dicom(values, photometric="MONOCHROME1")), 255 - shown(dicom(values))
        )


def test_colours_of_eight_and_sixteen_bits_interleaved_and_by_plane() -> None:
    for values in (coloured(), coloured().astype("u2") * 257):
        for planar in (0, 1):
            data = describe(values, PlanarConfiguration=planar)
            data.PixelData = (values.transpose(2, 0, 1) if planar else values).tobytes()
            assert np.array_equal(shown(write(data), 3), coloured()), (values.dtype, planar)


def test_a_palette_gives_its_colours() -> None:
    values = np.array([[0, 30, 255]], "u1")
    assert shown(dicom(values, **dicoms.palette()), 3)[0].tolist() == [
        [0, 255, 0],
        [30, 225, 10],
        [255, 0, 85],
    ]


def test_one_bit_is_black_and_white() -> None:
    data = describe(np.zeros((2, 8), "u1"), BitsAllocated=1, BitsStored=1, HighBit=0)
    data.PixelData = bytes([0b00000101, 0b10000000])
    assert shown(write(data)).tolist() == [[255, 0, 255] + [0] * 5, [0] * 7 + [255]]


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN, DEFLATED, RLE, JPEG2000])
def test_the_same_pixels_however_they_are_packed(syntax: str) -> None:
    kinds = {
        "12 bits": grey(),
        "signed": grey(dtype="i2"),
        "8 bits": grey(bits=8, dtype="u1"),
        "colours": coloured(),
    }
    if syntax == JPEG2000:
        del kinds["signed"]  # Pillow does not write it
    wrong = []
    for kind, values in kinds.items():
        photometric = "YBR_RCT" if (syntax, kind) == (JPEG2000, "colours") else ""
        if not np.array_equal(
            shown(dicom(values, syntax, photometric=photometric), 3), shown(dicom(values), 3)
        ):
            wrong.append(kind)
    assert not wrong


def test_a_packed_jpeg_is_what_pillow_makes_of_it() -> None:
    for values, photometric in ((grey(bits=8, dtype="u1"), ""), (coloured(), "YBR_FULL_422")):
        packed = shown(dicom(values, JPEG, photometric=photometric), 3)
        assert np.abs(packed.astype(int) - shown(dicom(values), 3)).mean() < 4


def test_a_jpeg_of_values_that_are_told_to_have_room() -> None:
    values = grey(bits=8, dtype="u1")
    roomy = {"BitsAllocated": 16, "BitsStored": 8, "HighBit": 7}
    assert np.array_equal(shown(dicom(values, JPEG, **roomy)), shown(dicom(values, JPEG)))


@pytest.mark.parametrize("inside", [False, True])
def test_an_unknown_sequence_is_written_implicitly(inside: bool) -> None:
    """PS3.5 6.2.2: its elements name no kinds, and here a length looks like a kind."""
    content = dicom(grey())
    place = content.find(struct.pack("<HH", 0x0028, 0x0002))
    length = int.from_bytes(b"LO", "little")
    unknown = struct.pack(
        "<HH2s2xLHHL", 0x0009, 0x1001, b"UN", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    unknown += struct.pack("<HHL", 0x0009, 0x1002, length) + b"a" * length
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    unknown = dicoms.nest(1) + unknown + ends + ends if inside else unknown + ends
    assert np.array_equal(shown(content[:place] + unknown + content[place:]), shown(content))


@pytest.mark.parametrize("syntax", [EXPLICIT, RLE, JPEG2000])
def test_the_representative_frame_or_the_first(syntax: str) -> None:
    stack = np.stack([grey(seed) for seed in range(3)])
    assert np.array_equal(shown(dicom(stack, syntax)), shown(dicom(stack[0])))
    for chosen, frame in {1: 0, 3: 2, 0: 0, 4: 0}.items():
        picture = shown(dicom(stack, syntax, RepresentativeFrameNumber=chosen))
        assert np.array_equal(picture, shown(dicom(stack[frame]))), chosen


@pytest.mark.parametrize("own", [True, False])
def test_a_frame_has_the_window_of_its_group_or_of_all(own: bool) -> None:
    stack = np.stack([grey(seed) for seed in range(2)])
    data = describe(stack, RepresentativeFrameNumber=2)
    groups = [pydicom.Dataset() for _ in range(3)]
    for group, centre in zip(groups, (1000, 2000, 3000), strict=True):
        group.FrameVOILUTSequence = [dicoms.window(centre, 500)]
        group.PixelValueTransformationSequence = [pydicom.Dataset()]
        group.PixelValueTransformationSequence[0].RescaleSlope = 0.5
        group.PixelValueTransformationSequence[0].RescaleIntercept = 7
    data.SharedFunctionalGroupsSequence = [groups[2]]
    data.PerFrameFunctionalGroupsSequence = (
        groups[:2] if own else [pydicom.Dataset(), pydicom.Dataset()]
    )
    header = {
        "WindowCenter": 2000 if own else 3000,
        "WindowWidth": 500,
        "RescaleSlope": 0.5,
        "RescaleIntercept": 7,
    }
    for syntax in (EXPLICIT, IMPLICIT):
        assert np.array_equal(shown(write(data, syntax)), shown(dicom(stack[1], **header)))


def test_the_mark_behind_any_preamble_makes_it_dicom(tmp_path: Path) -> None:
    for preamble in (b"II*\0\x08\0\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        (tmp_path / "scan.png").write_bytes(write(describe(grey()), preamble=preamble.ljust(128)))
        assert np.array_equal(decode(tmp_path / "scan.png", 1)[:, :, 0], shown(dicom(grey()))), (
            preamble
        )


def test_size_and_channels() -> None:
    assert decode(dicom(grey()), 3, (10, 50)).shape == (10, 50, 3)
    assert decode(dicom(coloured()), 1).shape == (24, 32, 1)


def test_equal_in_every_thread() -> None:
    contents = list(SAMPLES.values()) * 3
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda content: decode(content, 3), contents))
    alone = [decode(content, 3) for content in SAMPLES.values()] * 3
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


def without(keyword: str) -> bytes:
    data = describe(grey())
    delattr(data, keyword)
    return write(data)


def floating() -> bytes:
    data = describe(grey(), BitsAllocated=32)
    del data.PixelData
    data.FloatPixelData = grey().astype("f4").tobytes()
    return write(data)


def relabelled(syntax: str, **header: object) -> bytes:
    """Return packed pixels in a file that names this transfer syntax."""
    data = describe(grey(bits=8, dtype="u1"), **header)
    data.PixelData = encapsulate([b"\xff\xd8\xff\xe0"])
    data["PixelData"].is_undefined_length = True
    return write(data, syntax)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (
            dicom(grey())[128:],
            "not_an_image",
            "a DICOM file without its preamble: `dcmconv` adds it",
        ),
        (dicom(grey())[132:], "not_an_image", "without its preamble\\? `dcmconv` adds it"),
        (bytes(128) + b"DICM", "corrupt", "lacks TransferSyntaxUID"),
        (without("PixelData"), "truncated", "without pixel data"),
        (write(pydicom.Dataset()), "not_an_image", "without pixel data"),
        (without("Rows"), "corrupt", "lacks Rows"),
        (dicom(grey())[:-1], "truncated", "ends within"),
        (dicom(grey(), Rows=25), "truncated", "less pixel data than its header tells"),
        (dicom(grey(), Rows=0), "corrupt", "cannot be read"),
        (
            dicom(grey(), BitsAllocated=12),
            "unsupported_mode",
            "12 bits for a value, expected are 1, 8 or 16",
        ),
        (dicom(grey(), BitsStored=17), "corrupt", "cannot be read"),
        (floating(), "unsupported_mode", "floating point"),
        (
            dicom(grey(), photometric="HSV"),
            "unsupported_mode",
            "colours are none of MONOCHROME1, MONOCHROME2",
        ),
        (
            dicom(coloured(), photometric="YBR_RCT"),
            "unsupported_mode",
            "cannot be converted to RGB",
        ),
        (dicom(grey(), VOILUTSequence=[dicoms.table([1, 2], 0, 40)]), "corrupt", "make no table"),
        (
            dicom(grey(), RescaleSlope="1e308", WindowCenter=0, WindowWidth=400),
            "corrupt",
            "too large",
        ),
        (
            relabelled("1.2.840.10008.1.2.4.70"),
            "unsupported_compression",
            "JPEG Lossless, Non-Hierarchical.*gdcmconv --raw",
        ),
        (
            relabelled("1.2.840.10008.1.2.4.51", BitsAllocated=16, BitsStored=12),
            "unsupported_compression",
            "JPEG Extended",
        ),
        (
            dicom(grey()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.8\0"),
            "unsupported_compression",
            "an unknown transfer syntax",
        ),
        (relabelled(JPEG), "corrupt", "cannot be read"),
        (relabelled(RLE), "truncated", "cannot be read"),
        (
            dicom(grey(bits=8, dtype="u1"), JPEG, Rows=23),
            "corrupt",
            "another size than its header tells",
        ),
        (
            dicom(grey(), RLE).replace(struct.pack("<2L", 2, 64), struct.pack("<2L", 3, 64)),
            "corrupt",
            "number of planes",
        ),
    ],
)
def test_what_cannot_be_used_has_a_reason(content: bytes, reason: str, words: str) -> None:
    error = refuse(content)
    assert error.reason == reason and REASONS[reason] in str(error)
    with pytest.raises(ImageError, match=words):
        raise error


def test_too_many_pixels() -> None:
    for content in SAMPLES.values():
        assert decode(content, 3, limits=Limits(max_pixels=24 * 32)).shape == (24, 32, 3)
    details = {
        name: refuse(content, Limits(max_pixels=24 * 32 - 1)).detail
        for name, content in SAMPLES.items()
    }
    assert details == dict.fromkeys(SAMPLES, "32 x 24 pixels, allowed are 767")


@cache
def hostile() -> dict[str, tuple[bytes, str]]:
    """Return files that claim to take much time or memory, with their reason; "" if whole."""
    content, place = dicom(grey()), dicom(grey()).find(struct.pack("<HH", 0x0028, 0x0002))
    open_items = struct.pack("<HH2s2xL", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF)
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 100_000 + struct.pack(
        "<HHL", 0xFFFE, 0xE0DD, 0
    )
    deep = (
        dicoms.nest(50_000) + struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0) * 50_000
    )
    deflated, meta = (
        dicom(grey(), DEFLATED),
        dicom(grey(), DEFLATED).find(b"1.2.840.10008.1.2.1.99") + 22,
    )
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(bytes(10**6)) + packer.flush(
        zlib.Z_FULL_FLUSH
    )  # the meaning does not depend on its place
    bomb = block * 1000 + packer.flush()
    runs = describe(grey(shape=(16, 16)))
    runs.PixelData = encapsulate(
        [struct.pack("<16L", 2, 64, 1_000_064, *[0] * 13) + b"\x81\x00" * 1_000_000]
    )
    runs["PixelData"].is_undefined_length = True
    larger = describe(grey(bits=8, dtype="u1"))
    larger.PixelData = encapsulate([_jpeg((5000, 5000))])
    larger["PixelData"].is_undefined_length = True
    sides = {"Rows": 65535, "Columns": 65535}
    return {
        "absurd sides": (dicom(grey(), **sides), "too_many_pixels"),
        "absurd sides, packed": (
            dicom(grey(), RLE).replace(struct.pack("<H", 24), b"\xff\xff"),
            "corrupt",
        ),
        "absurd frames": (dicom(grey(), NumberOfFrames=2**31 - 1), "truncated"),
        "absurd frames, packed": (
            dicom(grey(bits=8, dtype="u1"), JPEG, NumberOfFrames=2**31 - 1),
            "",
        ),
        "many items": (content[:place] + open_items + items + content[place:], ""),
        "deeply nested": (content[:place] + deep + content[place:], ""),
        "deeply nested and open": (
            content[:place] + dicoms.nest(50_000) + content[place:],
            "truncated",
        ),
        "deflated": (deflated[:meta] + bomb, "too_many_bytes"),
        "run lengths": (write(runs, RLE), ""),
        "a JPEG larger than texts": (write(larger, JPEG), "corrupt"),
    }


def _jpeg(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(("content", "reason"), hostile().values(), ids=hostile())
def test_a_hostile_file_takes_neither_time_nor_memory(content: bytes, reason: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if reason:
        assert (
            refuse(content, Limits(max_bytes=30_000_000, max_pixels=100_000_000)).reason == reason
        )
    else:
        decode(content, 1, limits=Limits(max_pixels=100_000_000))
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_gives_pixels_or_a_reason(name: str) -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for damaged in itertools.chain.from_iterable(
        dicoms.mutations(SAMPLES[name], rng) for _ in range(4)
    ):
        try:
            pixels = decode(damaged, 3, (8, 8), Limits(max_pixels=1_000_000))
        except ImageError as error:
            outcomes.add(error.reason)
        else:
            assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert outcomes and outcomes <= set(REASONS)


def marked() -> pydicom.Dataset:
    """Return a data set with a mark in every element about the patient."""
    data = describe(grey())
    for keyword in (
        "PatientID",
        "AccessionNumber",
        "StudyID",
        "InstitutionName",
        "StudyDescription",
        "PatientComments",
    ):
        setattr(data, keyword, MARK)
    data.PatientName = f"{MARK}^{MARK}"
    data.PatientBirthDate = data.StudyDate = "19990731"
    data.SOPInstanceUID = data.StudyInstanceUID = "1.2.3.19990731"
    data.WindowCenterWidthExplanation = MARK
    data.add_new(0x00091001, "LO", MARK)
    inner = pydicom.Dataset()
    inner.PatientName = MARK
    data.ReferencedImageSequence = [inner]
    data["ReferencedImageSequence"].is_undefined_length = True
    return data


def marked_files() -> dict[str, bytes]:
    """Return marked files: whole, with marks in the elements that are read, and damaged."""
    spoilt = {}
    for keyword, value in {
        "PhotometricInterpretation": MARK,
        "WindowCenter": MARK,
        "RescaleSlope": MARK,
        "NumberOfFrames": MARK,
        "VOILUTFunction": MARK,
        "SpecificCharacterSet": MARK,
        "Rows": b"XM",
        "BitsAllocated": b"XM",
        "BitsStored": b"XM",
        "PixelRepresentation": b"XM",
        "PixelData": b"XMARKX",
    }.items():
        data = marked()
        data[keyword] = pydicom.DataElement(
            keyword, "OB" if isinstance(value, bytes) else "LO", value
        )
        spoilt[keyword] = write(data)
    whole = write(marked(), preamble=bytes(8) + MARK.encode() * 20)
    files = {
        "whole": whole,
        "syntax": write(marked()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.19990731.XMARKX"),
    }
    rng = np.random.default_rng(1)
    damaged = itertools.chain.from_iterable(dicoms.mutations(whole, rng) for _ in range(5))
    return files | spoilt | {f"damaged{number}": content for number, content in enumerate(damaged)}


def test_no_output_tells_of_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    raw, files_csv = tmp_path / "raw", tmp_path / "files.csv"
    (raw / "cat").mkdir(parents=True)
    texts, contents = [], marked_files()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for name, content in contents.items():
            (raw / f"cat/{name}.dcm").write_bytes(content)
            try:
                texts.append(decode_bytes(content).mode)
            except ImageError:
                texts.append(traceback.format_exc())
        found = scan(raw, Limits())
        files = found.files
        validate.log_files(found)
        files.to_csv(files_csv, index=False)
        clean.main(
            raw, files_csv, tmp_path / "clean", tmp_path / "quarantine", tmp_path / "quarantine.csv"
        )
    assert set(files.status) == {"usable", "rejected"} and len(files) > 50
    tables = [(tmp_path / name).read_text() for name in ("files.csv", "quarantine.csv")]
    for text in (
        *texts,
        *tables,
        caplog.text,
        *capfd.readouterr(),
        *(str(one.message) for one in warned),
    ):
        assert MARK not in text and "19990731" not in text, text


def test_validation_treats_it_like_any_image(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.dcm").write_bytes(dicom(grey()))
    (tmp_path / "cat/b").write_bytes(SAMPLES["colours"])
    (tmp_path / "cat/c.dcm").write_bytes(dicom(grey())[:-9])
    files = scan(tmp_path, Limits()).files.set_index("path")
    found = files.loc["cat/a.dcm"]
    assert found[["status", "format", "mode", "width", "height"]].tolist() == [
        "usable",
        "DICOM",
        "MONOCHROME2",
        32,
        24,
    ]
    assert found["mean"] == pytest.approx(shown(dicom(grey())).mean()) and len(found["hash"]) == 60
    assert files.loc["cat/b", ["status", "mode"]].tolist() == ["usable", "RGB"]
    assert files.loc["cat/c.dcm", ["status", "reason"]].tolist() == ["rejected", "truncated"]


def test_copies_are_found_by_their_pixels(tmp_path: Path) -> None:
    """The duplicates have another header, another compression, and one is a PNG."""
    values = np.random.default_rng(3).integers(0, 256, (12, 12), dtype=np.uint8)
    values = np.asarray(Image.fromarray(values).resize((64, 64), Image.Resampling.BICUBIC))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.dcm").write_bytes(dicom(values, PatientID="1"))
    (tmp_path / "cat/b.dcm").write_bytes(dicom(values, RLE, PatientID="2"))
    Image.fromarray(values).save(tmp_path / "cat/c.png")
    files = scan(tmp_path, Limits()).files
    copies = find_duplicates(files, tmp_path, 32, 0.965)
    assert list(zip(copies.path_a, copies.path_b, copies.kind, strict=True)) == [
        ("cat/a.dcm", "cat/b.dcm", "near"),
        ("cat/a.dcm", "cat/c.png", "near"),
        ("cat/b.dcm", "cat/c.png", "near"),
    ]
    assert copies.correlation.min() == pytest.approx(1)


WITHOUT = """
import sys
from pathlib import Path
from tasks.imaging.decode import decode
from tasks.imaging.picture import ImageError
decode(Path(sys.argv[1]), 3)
assert "pydicom" not in sys.modules
sys.modules["pydicom"] = None
try:
    decode(Path(sys.argv[2]), 3)
except ImageError as error:
    print(error)
"""


@pytest.mark.slow
def test_pydicom_is_needed_for_dicom_alone(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.dcm").write_bytes(dicom(grey()))
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "a.png"), str(tmp_path / "a.dcm")]
    texts = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert texts.startswith(
        "missing_package: a DICOM file, and pydicom is not installed: `pip install pydicom`"
    )
