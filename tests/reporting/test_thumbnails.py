"""Pictures become small JPEGs by the one decoder, and files that are none become nothing."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.reporting.thumbnails import make_thumbnail


def opened(address: str) -> Image.Image:
    kind, content = address.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_it_fits_and_small_pictures_stay(tmp_path: Path) -> None:
    for size, small in (((400, 200), (100, 50)), ((30, 20), (30, 20))):
        Image.new("RGB", size, (200, 10, 10)).save(tmp_path / "one.png")
        picture = opened(make_thumbnail(tmp_path / "one.png", side=100))
        assert (picture.format, picture.size) == ("JPEG", small)
        assert picture.getpixel((5, 5))[0] > 150


def test_sixteen_bits_and_turned_cameras_are_as_in_training(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 40), 40_000, np.uint16)).save(tmp_path / "deep.png")
    turned = Image.new("L", (40, 20)).getexif()
    turned[0x0112] = 6
    Image.new("L", (40, 20), 99).save(tmp_path / "turned.jpg", exif=turned)
    assert abs(opened(make_thumbnail(tmp_path / "deep.png")).getpixel((3, 3)) - (40_000 >> 8)) < 4
    assert opened(make_thumbnail(tmp_path / "turned.jpg")).size == (20, 40)


def test_nothing_of_the_file_but_its_pixels_goes_along(tmp_path: Path) -> None:
    marks = Image.Exif()
    marks[0x010E] = "name of a patient"
    Image.new("L", (40, 20), 99).save(
        tmp_path / "one.jpg", exif=marks, comment=b"name of a patient"
    )
    assert b"patient" not in base64.b64decode(make_thumbnail(tmp_path / "one.jpg").split(",")[1])


def test_what_is_no_picture_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(b"a text")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    names = ("text.jpg", "broken.jpg", "missing.jpg")
    assert {name: make_thumbnail(tmp_path / name) for name in names} == dict.fromkeys(names, "")
