"""An image file gives the pixels that a viewer shows, any other file an `ImageError`."""

import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.imaging.decode import decode, decode_bytes, read_file
from tasks.imaging.metadata import cut_metadata
from tasks.imaging.picture import FORMATS, REASONS, Decoded, ImageError, Limits
from tasks.imaging.pillow import MAX_SCANS
from tasks.imaging.render import cut_dark_border, render
from tasks.params.model_input import Form, shape_of
from tests.support.image_files import ORIENTATION, chunk, deep_png, encode, picture, samples

NO_LIMITS = Limits()
LOSSLESS = {"BMP", "JPEG2000", "PNG", "PPM", "TIFF"}


def refuse(content: bytes, limits: Limits = NO_LIMITS) -> str:
    """Return the reason why a file is refused; "decoded" if it is not."""
    try:
        decode(content, 3, limits=limits)
    except ImageError as error:
        assert REASONS[error.reason] in str(error)
        return error.reason
    return "decoded"


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read(form: str) -> None:
    image = picture()
    pixels = decode(encode(image, form), 3)
    assert (pixels.shape, pixels.dtype) == ((24, 32, 3), np.uint8)
    difference = np.abs(pixels.astype(int) - np.asarray(image, dtype=int))
    assert difference.max() == 0 if form in LOSSLESS else difference.mean() < 8
    assert decode_bytes(encode(image, form)).format == form


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(encode(picture(), "PNG"))
    assert np.array_equal(decode(tmp_path / "picture.jpg", 3), np.asarray(picture()))


def test_grey_is_the_luma_of_the_colours() -> None:
    pixels = decode(encode(picture(), "PNG"), 1)
    red, green, blue = np.moveaxis(np.asarray(picture(), dtype=float), 2, 0)
    assert pixels.shape == (24, 32, 1)
    assert np.abs(pixels[:, :, 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1


def test_a_grey_file_gives_three_equal_channels() -> None:
    grey = picture().convert("L")
    pixels = decode(encode(grey, "PNG"), 3)
    assert np.array_equal(pixels, np.repeat(np.asarray(grey)[:, :, np.newaxis], 3, axis=2))
    assert decode_bytes(encode(grey, "PNG")).picture.mode == "L"


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    stored = decode(encode(picture(), form, **options), 3)
    wrong = []
    for value, upright in UPRIGHT.items():
        exif = Image.Exif()
        exif[ORIENTATION] = value
        if not np.array_equal(
            decode(encode(picture(), form, exif=exif, **options), 3), upright(stored)
        ):
            wrong.append(value)
    assert not wrong


def test_a_palette_gives_its_colours() -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 250, 20, 30])
    for form in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(
            np.unique(decode(encode(image, form), 3).reshape(-1, 3), axis=0), [[250, 20, 30]]
        )


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpixel((3, 0), 2)
    image.putpalette([0, 0, 0, 250, 20, 30, 1, 2, 3])
    pixels = {
        form: decode(encode(image, form, transparency=1), 3)[0, [0, 3]].tolist()
        for form in ("PNG", "GIF")
    }
    assert pixels == {form: [[255, 255, 255], [1, 2, 3]] for form in pixels}


def test_alpha_is_laid_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        image.putpixel((x, 0), (200, 100, 0, alpha))
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}
    pixels = {
        form: decode(encode(image, form, **of_form), 3)[0].tolist()
        for form, of_form in options.items()
    }
    expected = [[255, 255, 255], [244, 224, 204], [200, 100, 0]]
    assert pixels == dict.fromkeys(options, expected)
    grey = Image.new("LA", (2, 1), (100, 0))
    grey.putpixel((1, 0), (100, 255))
    assert decode(encode(grey, "PNG"), 1)[0].tolist() == [[255], [100]]


def test_a_transparent_colour_becomes_white() -> None:
    values = {"L": 7, "1": 0, "RGB": (7, 8, 9)}
    contents = {
        mode: encode(Image.new(mode, (2, 2), value), "PNG", transparency=value)
        for mode, value in values.items()
    }
    for channels in (1, 3):
        darkest = {mode: decode(content, channels).min() for mode, content in contents.items()}
        assert darkest == dict.fromkeys(values, 255)


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (9, 1))
    image.putpixel((8, 0), 1)
    for form in ("PNG", "TIFF", "BMP", "PPM"):
        assert decode(encode(image, form), 1)[0, :, 0].tolist() == [0] * 8 + [255]


SCAN = np.array([[0, 15, 16, 255, 256, 4095]], dtype=np.uint16)
BRIGHT = np.array([[0, 255, 256, 4095, 32768, 65535]], dtype=np.uint16)


def taken(content: bytes, bits: int | None) -> list[int]:
    """Return the grey values of a file of one row, as a model with this bit depth takes them."""
    decoded = decode_bytes(content)
    return render(decoded, Form((1, decoded.picture.width), 1, bits=bits)).ravel().tolist()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_values_of_more_than_eight_bits_keep_the_highest_eight_of_the_bits_of_the_model(
    form: str,
) -> None:
    """The other values of the image have no influence, and brighter ones are white."""
    scan, bright = encode(Image.fromarray(SCAN), form), encode(Image.fromarray(BRIGHT), form)
    assert taken(scan, 12) == [0, 0, 1, 15, 16, 255]
    assert taken(bright, 12) == [0, 15, 16, 255, 255, 255]
    assert taken(bright, 16) == taken(bright, None) == [0, 0, 1, 15, 128, 255]
    assert taken(scan, None) == [0, 0, 0, 0, 1, 15]  # a model that was saved before bit depths were
    assert decode(scan, 1).ravel().tolist() == taken(scan, 12)  # a file by itself
    assert [decode_bytes(bright).measure_clipped(bits) for bits in (12, 16, None)] == [2 / 6, 0, 0]


def test_cmyk_jpeg_gives_its_colours() -> None:
    """Pure cyan, magenta and yellow ink on white paper."""
    image = Image.new("CMYK", (24, 8))
    for x, ink in enumerate([(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0)]):
        image.paste(ink, (8 * x, 0, 8 * x + 8, 8))
    pixels = decode(encode(image, "JPEG", quality=95), 3).astype(int)
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0]]
    assert np.abs(pixels[4, [4, 12, 20]] - expected).max() < 12
    assert decode_bytes(encode(image, "JPEG")).mode == "CMYK"


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert np.unique(decode(content, 3).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_a_two_picture_file_of_a_camera_gives_the_first() -> None:
    content = encode(picture(0), "MPO", save_all=True, append_images=[picture(1)])
    decoded = decode_bytes(content)
    assert decoded.format == "MPO"
    assert np.array_equal(np.asarray(decoded.picture), decode(encode(picture(0), "JPEG"), 3))


def test_size_is_height_and_width() -> None:
    content = encode(picture(), "PNG")
    assert decode(content, 3, (10, 50)).shape == (10, 50, 3)
    assert decode(content, 1, (10, 50)).shape == (10, 50, 1)
    assert np.array_equal(decode(content, 3, (24, 32)), np.asarray(picture()))


def test_shrinking_averages() -> None:
    """One white pixel in 16 gives a sixteenth of white, wherever it is."""
    checks = np.zeros((64, 64), dtype=np.uint8)
    checks[2::4, 1::4] = 255
    small = decode(encode(Image.fromarray(checks), "PNG"), 1, (4, 4))
    assert np.abs(small[1:3, 1:3].astype(int) - 255 / 16).max() < 3


def test_too_many_bytes(tmp_path: Path) -> None:
    content = encode(picture(), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    for given in (tmp_path / "a.png", content):
        assert decode(given, 3, limits=Limits(max_bytes=len(content))).shape == (24, 32, 3)
        with pytest.raises(
            ImageError, match=f"too_many_bytes: {len(content):,} bytes, allowed are 10"
        ):
            decode(given, 3, limits=Limits(max_bytes=10))


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(10**12)  # a hole: takes no room
    with pytest.raises(ImageError, match="too_many_bytes"):
        read_file(tmp_path / "huge.png", Limits(max_bytes=100_000_000))


def test_too_many_pixels() -> None:
    content = encode(picture(), "PNG")
    assert decode(content, 3, limits=Limits(max_pixels=24 * 32)).shape == (24, 32, 3)
    assert refuse(content, Limits(max_pixels=24 * 32 - 1)) == "too_many_pixels"


def test_a_decompression_bomb_is_refused_fast_and_without_memory() -> None:
    assert np.array_equal(decode(bomb(100), 1), np.zeros((100, 100, 1)))  # it is a whole picture
    content = bomb(20_000)
    assert len(content) < 100_000
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for limits in (Limits(), Limits(max_pixels=100_000_000)):
        assert refuse(content, limits) == "too_many_pixels"
    assert time.process_time() - start < 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000  # kilobytes; the picture takes 400,000


def bomb(side: int) -> bytes:
    """Return a whole, valid 1-bit PNG of `side` x `side` black pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    header = side.to_bytes(4) + side.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def with_scans(count: int) -> bytes:
    """Return a progressive JPEG with `count` scans, and a thumbnail and film as phones append."""
    content = encode(picture(), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xc4", 0, content.rindex(b"\xff\xda")) : -2]
    return (
        content[:-2]
        + last * (count - content.count(b"\xff\xda"))
        + content[-2:]
        + b"\xff\xda\x00\x08" * 200
    )


def test_a_jpeg_with_too_many_scans_is_refused() -> None:
    assert decode(with_scans(MAX_SCANS), 3).shape == (24, 32, 3)
    with pytest.raises(ImageError, match="corrupt: a JPEG of 101 scans, allowed are 100"):
        decode(with_scans(MAX_SCANS + 1), 3)


def test_what_is_no_image() -> None:
    reasons = {
        b"": "empty",
        b"A text file.\n": "not_an_image",
        b"\x89PNG\r\n\x1a\n": "not_an_image",
        b"\xff\xd8\xff": "not_an_image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": "not_an_image",
        bytes(1000): "not_an_image",
        encode(picture(), "ICO"): "not_an_image",  # Pillow reads it, and it is not listed
        encode(picture(), "PDF"): "not_an_image",
    }
    assert {content: refuse(content) for content in reasons} == reasons


def test_a_truncated_file() -> None:
    contents = {form: encode(picture(width=160, height=120), form) for form in FORMATS}
    for share in (0.4, 0.8):
        reasons = {
            form: refuse(content[: int(len(content) * share)]) for form, content in contents.items()
        }
        vague = {
            form: reasons.pop(form) for form in ("AVIF", "JPEG2000", "TIFF", "WEBP")
        }  # their parsers see no end
        assert reasons == dict.fromkeys(reasons, "truncated")
        assert set(vague.values()) <= {"truncated", "corrupt", "not_an_image"}, vague


def test_damaged_data_is_corrupt() -> None:
    content = bytearray(encode(picture(), "PNG"))
    start = content.index(b"IDAT") + 4
    content[start : start + 30] = bytes(30)
    assert refuse(bytes(content)) == "corrupt"


def test_floats_and_integers_below_zero_have_no_fixed_meaning() -> None:
    images = [Image.new("F", (4, 4), 0.5), Image.new("I", (4, 4), -1)]
    assert [refuse(encode(image, "TIFF")) for image in images] == ["unsupported_mode"] * 2


def test_integers_beyond_sixteen_bits_have_a_range_like_others() -> None:
    content = encode(
        Image.fromarray(np.array([[0, 1024, 2**17, 2**18 - 1]], dtype=np.int32)), "TIFF"
    )
    assert decode_bytes(content).peak == 2**18 - 1
    assert taken(content, 18) == [0, 1, 128, 255] and taken(content, 16) == taken(
        content, None
    ) == [0, 4, 255, 255]


def test_what_the_system_refuses_to_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError, match="unreadable") as caught:
            read_file(path)
        assert caught.value.reason == "unreadable"


def test_colours_of_more_than_eight_bits_are_scaled_as_grey_is() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (24, 32, 3)).astype(np.uint16)
    decoded = decode_bytes(deep_png(values))
    assert (decoded.mode, decoded.peak, decoded.bits) == ("RGB;16", values.max(), None)
    assert np.array_equal(render(decoded, Form((24, 32), 3, bits=12)), values >> 4)
    assert np.array_equal(render(decoded, Form((24, 32), 3)), values >> 8)  # as Pillow reads them


def test_a_file_that_says_how_many_bits_it_has_is_read_by_them() -> None:
    scaled, plain = (
        encode(Image.fromarray(SCAN << 4 | SCAN >> 8), "PNG"),
        encode(Image.fromarray(SCAN), "PNG"),
    )
    significant = {
        content: content[:33] + chunk(b"sBIT", b"\x0c") + content[33:]
        for content in (scaled, plain)
    }
    assert (
        decode_bytes(significant[scaled]).bits == 16 and decode_bytes(significant[plain]).bits == 12
    )
    gray_map = b"P5 6 1 4095 " + SCAN.astype(">u2").tobytes()
    for content in (*significant.values(), gray_map):
        assert taken(content, 14) == [0, 0, 1, 15, 16, 255]  # whatever the others of the set are
        assert decode_bytes(content).peak is None


def test_a_png_keeps_its_bits_where_a_text_beside_them_cannot_be_read() -> None:
    content = encode(Image.fromarray(SCAN), "PNG")
    damaged = bytearray(
        content[:33] + chunk(b"sBIT", b"\x0c") + chunk(b"iTXt", b"\xff") + content[33:]
    )
    assert decode_bytes(bytes(damaged)).bits == 12
    assert b"sBIT" in cut_metadata(
        bytes(damaged), keep_exif=False
    )  # as where the EXIF block is damaged too
    damaged[45] ^= 1  # the checksum of the bits
    assert decode_bytes(bytes(damaged)).bits is None


def test_plain_values_in_a_bmp_of_run_lengths_are_read_whole() -> None:
    """An odd number of them, a run, the end of the line."""
    runs = b"\0\5\x12\x34\x50\0" + b"\3\x67" + b"\0\0" + b"\0\3\x89\xa0" + b"\5\xbb" + b"\0\1"
    palette = b"".join(bytes((16 * number,) * 3) + b"\0" for number in range(16))
    header = struct.pack("<LllHHLLllLL", 40, 8, 2, 1, 4, 2, len(runs), 0, 0, 16, 0)
    content = b"BM" + struct.pack("<LHHL", 118 + len(runs), 0, 0, 118) + header + palette + runs
    lines = [[8, 9, 10, 11, 11, 11, 11, 11], [1, 2, 3, 4, 5, 6, 7, 6]]  # from the lowest up
    assert (decode(content, 1)[:, :, 0] // 16).tolist() == lines


def mutations(content: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield the file cut off, changed in many places, changed in the header, and with a gap."""
    yield content[: rng.integers(len(content))]
    for reach in (len(content), min(80, len(content))):
        hit = bytearray(content)
        for place in rng.integers(reach, size=rng.integers(1, 8)):
            hit[place] = rng.integers(256)
        yield bytes(hit)
    place = rng.integers(len(content))
    yield content[:place] + content[place + rng.integers(1, 40) :]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", samples())
def test_a_damaged_file_gives_pixels_or_a_reason(name: str) -> None:
    rng, content = np.random.default_rng(0), samples()[name]
    outcomes = set()
    for damaged in (one for _ in range(15) for one in mutations(content, rng)):
        try:
            pixels = decode(damaged, 3, (8, 8), Limits(max_pixels=10_000_000))
        except ImageError as error:
            outcomes.add(error.reason)
        else:
            assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert outcomes and outcomes <= set(REASONS)


def framed(border: int = 6, width: int = 30, height: int = 20) -> np.ndarray:
    """Return a bright image of this size in a black frame."""
    pixels = np.zeros((height + 2 * border, width + 2 * border), np.uint8)
    pixels[border:-border, border:-border] = np.random.default_rng(0).integers(
        100, 256, (height, width)
    )
    return pixels


def test_the_dark_border_is_cut_off_and_nothing_else() -> None:
    pixels = framed()
    assert np.array_equal(
        np.asarray(cut_dark_border(Image.fromarray(pixels), 20)), pixels[6:-6, 6:-6]
    )
    assert np.array_equal(np.asarray(cut_dark_border(Image.fromarray(pixels), None)), pixels)
    off_centre = np.pad(pixels, ((9, 0), (0, 3)))
    assert np.array_equal(
        np.asarray(cut_dark_border(Image.fromarray(off_centre), 20)), pixels[6:-6, 6:-6]
    )


def test_noise_in_the_border_goes_with_it_and_a_dark_picture_stays_whole() -> None:
    noisy = framed(border=60)
    noisy[np.random.default_rng(1).random(noisy.shape) < 0.002] = 255
    noisy[::50, 0] = 20  # not brighter than the limit
    assert cut_dark_border(Image.fromarray(noisy), 20).size == (30, 20)
    assert cut_dark_border(Image.fromarray(np.full((5, 7), 20, np.uint8)), 20).size == (7, 5)


def test_an_image_for_several_inputs_is_flat_and_in_their_order() -> None:
    image, forms = (
        Image.fromarray(framed()).convert("RGB"),
        (Form((8, 6), 3), Form((4, 4), 1, dark_border=20)),
    )
    flat = render(Decoded(image, "PNG", "RGB"), *forms)
    assert flat.shape == shape_of(forms) == (8 * 6 * 3 + 4 * 4,)
    assert np.array_equal(
        flat[: 8 * 6 * 3].reshape(8, 6, 3), decode(encode(image, "PNG"), 3, (8, 6))
    )
    assert np.array_equal(
        flat[8 * 6 * 3 :].reshape(4, 4, 1),
        render(Decoded(cut_dark_border(image, 20), "PNG", "RGB"), Form((4, 4), 1)),
    )
    assert render(Decoded(image, "PNG", "RGB"), forms[0]).shape == shape_of(forms[:1]) == (8, 6, 3)
