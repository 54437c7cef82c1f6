"""Pixels keep the order of the paths. The cache mends damaged arrays and stays below its limit."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.errors import UserError
from tasks.imaging import decode
from tasks.imaging.arrays import BLOCK, CACHE, load_pixels
from tasks.imaging.picture import ImageError
from tasks.params.model_input import Form

NAMES = [f"{number}.png" for number in range(5)]
SIZE = (4, 6)


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save five flat images in the current folder; image n has the value 10 n."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARRAY_CACHE_GB", raising=False)
    for number, name in enumerate(NAMES):
        Image.new("L", (8, 8), 10 * number).save(name)


def load(names: list[str] = NAMES, size: tuple[int, int] = SIZE, channels: int = 1) -> np.ndarray:
    return load_pixels(Path(), names, [f"hash of {name}" for name in names], Form(size, channels))


def remove_images() -> None:
    """Delete the images, so that pixels can only come from the cache."""
    for name in NAMES:
        Path(name).unlink(missing_ok=True)


def cached() -> list[Path]:
    return sorted(CACHE.glob("*.npy"))


def test_pixels_in_the_order_of_the_paths() -> None:
    pixels = load(NAMES[::-1])
    assert (pixels.shape, pixels.dtype) == ((5, 4, 6, 1), np.uint8)
    assert pixels[:, 0, 0, 0].tolist() == [40, 30, 20, 10, 0]
    assert load(NAMES)[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 1


def test_more_images_than_one_block() -> None:
    numbers = np.random.default_rng(0).integers(5, size=BLOCK + 7)
    pixels = load([NAMES[number] for number in numbers])
    assert np.array_equal(pixels[:, 3, 5, 0], 10 * numbers)


def test_the_second_time_nothing_is_decoded() -> None:
    first = np.array(load())
    remove_images()
    assert np.array_equal(load(), first)
    assert len(cached()) == 1


def test_another_request_is_another_array(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    changes = {
        "content": lambda: load_pixels(
            Path(), NAMES, [f"new {name}" for name in NAMES], Form(SIZE, 1)
        ),
        "order": lambda: load(NAMES[::-1]),
        "size": lambda: load(size=(6, 4)),
        "channels": lambda: load(channels=3),
        "dark border": lambda: load_pixels(
            Path(), NAMES, [f"hash of {name}" for name in NAMES], Form(SIZE, 1, dark_border=9)
        ),
        "decoder": lambda: (monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1), load()),
    }
    made = {}
    for change, ask in changes.items():
        before = len(cached())
        ask()
        made[change] = len(cached()) - before
    assert made == dict.fromkeys(changes, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:50],
        lambda content: content[:-1],
        lambda content: b"no array at all" * 20,
        lambda content: content.replace(b"(5, 4, 6, 1)", b"(5, 4, 3, 2)"),
        lambda content: content[:150] + bytes([content[150] ^ 1]) + content[151:],
    ],
    ids=["empty", "header alone", "a byte short", "text", "another shape", "one bit"],
)
def test_a_damaged_array_is_made_again(damage) -> None:
    whole = np.array(load())
    (file,) = cached()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert np.array_equal(load(), whole)
    assert file.read_bytes() == content


def test_what_a_killed_process_left_half_written_is_not_taken_for_the_array() -> None:
    whole = np.array(load())
    (file,) = cached()
    part = file.with_suffix(".part")
    part.write_bytes(file.read_bytes()[:-10])
    file.unlink()
    assert np.array_equal(load(), whole)
    assert not part.exists()


def test_a_full_disk_leaves_no_half_file() -> None:
    load()
    (file,) = cached()
    file.unlink()
    file.with_suffix(".part").symlink_to("/dev/full")  # takes nothing, as a full disk does
    with pytest.raises(OSError, match="No space left on device"):
        load()
    assert [path for path in CACHE.iterdir() if path.suffix != ".lock"] == []
    assert load()[4, 0, 0, 0] == 40


def test_an_image_that_cannot_be_decoded_leaves_no_half_file() -> None:
    Path(NAMES[3]).write_bytes(b"text")
    with pytest.raises(ImageError, match="not_an_image"):
        load()
    assert [path for path in CACHE.iterdir() if path.suffix != ".lock"] == []


def test_the_longest_unused_arrays_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arrays of 500 bytes fit below the limit, a third does not. Loading one keeps it young."""
    monkeypatch.setenv("ARRAY_CACHE_GB", str(1500e-9))
    first, second = (make(size, when) for size, when in [((10, 10), 1000), ((5, 20), 2000)])
    assert cached() == sorted([first, second])
    third = make((20, 5), 3000)
    assert cached() == sorted([second, third])
    load(size=(5, 20))
    fourth = make((4, 25), 4000)
    assert cached() == sorted([second, fourth])


def make(size: tuple[int, int], used: float) -> Path:
    """Load pixels of this size, and date their last use to that time."""
    before = cached()
    load(size=size)
    (new,) = set(cached()) - set(before)
    os.utime(new, (used, used))
    return new


def test_more_than_the_cap_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARRAY_CACHE_GB", str(100e-9))
    with pytest.raises(UserError, match="set ARRAY_CACHE_GB higher, or image_size lower"):
        load()
    assert cached() == []
