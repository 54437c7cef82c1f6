"""Changed duplicates are found, and other images are not linked."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tasks.imaging.decode import decode_bytes
from tasks.quality.duplicates import (
    ODD,
    find_closest_duplicates,
    find_duplicates,
    group_duplicates,
    perceptual_hash,
)

HASH_DISTANCE, CORRELATION = 32, 0.965


def draw(
    seed: int, width: int = 160, height: int = 120, cells: tuple[int, ...] = (4, 9, 20)
) -> Image.Image:
    """Draw smooth random shapes; `cells` are the numbers of shapes across the image."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.normal(size=(number, number)).astype(np.float32)) for number in cells
    ]
    surface = sum(
        np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) for layer in layers
    )
    return Image.fromarray(np.uint8(np.clip(128 + 30 * surface, 0, 255)))


def encode(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def scale(picture: Image.Image, factor: float) -> Image.Image:
    return ImageOps.scale(picture, factor, Image.Resampling.BICUBIC)


def write(root: Path, contents: dict[str, bytes]) -> pd.DataFrame:
    """Write the files and return their rows, as a scan would."""
    rows = []
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        rows.append(
            (
                path,
                hashlib.sha256(content).hexdigest(),
                perceptual_hash(decode_bytes(content).picture),
            )
        )
    return pd.DataFrame(rows, columns=["path", "sha256", "hash"])


def find(files: pd.DataFrame, root: Path) -> pd.DataFrame:
    return find_duplicates(files, root, HASH_DISTANCE, CORRELATION)


def pairs(found: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(found[["path_a", "path_b", "kind"]].itertuples(index=False, name=None))


def bits(digits: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)).astype(bool)


CHANGES = {
    "quality 60": lambda picture: picture,
    "nine tenths": lambda picture: scale(picture, 0.9),
    "eleven tenths": lambda picture: scale(picture, 1.1),
    "half": lambda picture: scale(picture, 0.5),
    "another shape": lambda picture: picture.resize((128, 128)),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "less contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(0.8),
    "more contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.2),
    "in colours": lambda picture: picture.convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_copies_are_found_straight_and_mirrored(change, tmp_path):
    turns = ("near", Image.Image.copy), ("mirrored", ImageOps.mirror), ("near", Image.Image.copy)
    contents = {f"{n}.jpg": encode(draw(n)) for n in range(3)}
    contents |= {
        f"{n}_copy.jpg": encode(turn(change(draw(n))), quality=60)
        for n, (_, turn) in enumerate(turns)
    }
    found = find(write(tmp_path, contents), tmp_path)
    assert pairs(found) == [
        (f"{n}.jpg", f"{n}_copy.jpg", kind) for n, (kind, _) in enumerate(turns)
    ]
    assert found.correlation.between(CORRELATION, 1).all()


def test_exact_copies_are_found(tmp_path):
    content = encode(draw(1))
    found = find(
        write(
            tmp_path,
            {"train/b.jpg": content, "test/a.jpg": content, "train/c.jpg": encode(draw(2))},
        ),
        tmp_path,
    )
    assert found.values.tolist() == [["test/a.jpg", "train/b.jpg", "exact", 1.0]]


def test_only_the_first_of_equal_files_is_compared_with_others(tmp_path):
    original, again = encode(draw(1)), encode(draw(1), quality=60)
    found = find(
        write(tmp_path, {"a.jpg": original, "b.jpg": original, "c.jpg": again, "d.jpg": again}),
        tmp_path,
    )
    assert pairs(found) == [
        ("a.jpg", "b.jpg", "exact"), ("a.jpg", "c.jpg", "near"), ("c.jpg", "d.jpg", "exact"),
    ]  # fmt: skip


def test_different_pictures_are_not_joined(tmp_path):
    found = find(
        write(tmp_path, {f"{seed}.jpg": encode(draw(seed)) for seed in range(40)}), tmp_path
    )
    assert found.empty
    assert list(found.columns) == ["path_a", "path_b", "kind", "correlation"]
    assert group_duplicates(["7.jpg", "3.jpg"], found) == ["7.jpg", "3.jpg"]


def test_images_with_other_details_are_no_duplicates(tmp_path):
    """Neighbouring slices of a scan share the large shapes, and differ in the small ones."""
    forms = draw(1, cells=(3, 6))
    one, other = (Image.blend(forms, draw(seed, cells=(24,)), 0.1) for seed in (2, 3))
    assert np.corrcoef(np.ravel(one), np.ravel(other))[0, 1] > 0.985
    files = write(tmp_path, {"one.jpg": encode(one), "other.jpg": encode(other)})
    assert len(find_duplicates(files, tmp_path, hash_distance=240, correlation=-1)) == 1
    assert find_duplicates(files, tmp_path, hash_distance=240, correlation=CORRELATION).empty


def test_the_mirror_inverts_exactly_the_odd_bits():
    for seed, size in enumerate([(160, 120), (64, 64), (63, 41), (301, 17), (20, 30)]):
        picture = draw(seed, *size)
        mirrored = perceptual_hash(ImageOps.mirror(picture))
        assert np.array_equal(bits(perceptual_hash(picture)) ^ ODD, bits(mirrored))


def test_brightness_and_contrast_leave_the_hash():
    picture = draw(3)
    values = np.asarray(picture, dtype=float)
    paler = Image.fromarray(np.uint8(values / 2 + 100))
    assert (bits(perceptual_hash(picture)) != bits(perceptual_hash(paler))).sum() <= 4
    assert len(perceptual_hash(picture)) == 60


def test_flat_images_have_no_hash_and_are_exact_copies_at_most(tmp_path):
    black, grey = Image.new("RGB", (50, 40), "black"), Image.new("L", (70, 70), "grey")
    assert (
        perceptual_hash(black)
        == perceptual_hash(grey)
        == perceptual_hash(Image.new("L", (1, 1)))
        == ""
    )
    files = write(
        tmp_path,
        {
            "a.jpg": encode(black),
            "b.jpg": encode(black),
            "c.jpg": encode(grey),
            "d.jpg": encode(black, 60),
        },
    )
    files["hash"] = files["hash"].replace("", None)  # as read from a CSV file
    found = find(files, tmp_path)
    assert found.kind.tolist() == ["exact"]


def test_a_picture_that_is_its_own_mirror_image_is_a_near_copy(tmp_path):
    left = draw(4, 80, 120)
    whole = Image.new("L", (160, 120))
    whole.paste(left, (0, 0))
    whole.paste(ImageOps.mirror(left), (80, 0))
    whole.save(tmp_path / "a.bmp")
    whole.save(tmp_path / "b.gif")
    files = write(tmp_path, {name: (tmp_path / name).read_bytes() for name in ("a.bmp", "b.gif")})
    assert find(files, tmp_path).kind.tolist() == ["near"]


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    contents = {f"{seed}.jpg": encode(draw(seed)) for seed in range(6)}
    contents |= {f"{seed}_mirrored.jpg": encode(ImageOps.mirror(draw(seed))) for seed in range(3)}
    contents |= {f"another_{seed}.jpg": contents[f"{seed}.jpg"] for seed in range(2, 5)}
    files = write(tmp_path, contents)
    found = find(files, tmp_path)
    assert len(found) == 6
    assert (found.path_a < found.path_b).all()
    for seed in range(3):
        pd.testing.assert_frame_equal(
            find(files.sample(frac=1, random_state=seed), tmp_path), found
        )


def test_a_thousand_equal_files_give_rows_in_line(tmp_path):
    (tmp_path / "000.jpg").write_bytes(encode(draw(1)))
    files = pd.DataFrame(
        {"path": [f"{number:03d}.jpg" for number in range(1000)], "sha256": "same"}
    )
    files["hash"] = perceptual_hash(draw(1))
    found = find(files, tmp_path)
    assert len(found) == 999
    assert set(found.path_a) == {"000.jpg"}
    assert set(group_duplicates(files["path"].tolist(), found)) == {"000.jpg"}


def test_groups_are_transitive_and_named_by_their_first_path():
    copies = pd.DataFrame({"path_a": ["b", "c", "x"], "path_b": ["c", "d", "y"]})
    assert group_duplicates(["d", "a", "b", "y", "c", "x"], copies) == [
        "b",
        "a",
        "b",
        "x",
        "b",
        "x",
    ]


def test_no_files_give_no_copies_and_no_groups(tmp_path):
    files = pd.DataFrame({"path": [], "sha256": [], "hash": []}, dtype=str)
    found = find(files, tmp_path)
    assert found.empty
    assert group_duplicates([], found) == []


def closest(
    files: pd.DataFrame, known: pd.DataFrame, root: Path, gone: str = ""
) -> list[tuple[str, str, str]]:
    """Return which files duplicate which known images; the file of `gone` was deleted."""
    places = [
        table.assign(file=[str(root / path) for path in table.path]) for table in (files, known)
    ]
    places[1].loc[places[1].path == gone, "file"] = ""
    found = find_closest_duplicates(*places, HASH_DISTANCE, CORRELATION)
    assert found.correlation.isna().tolist() == [known.path[row] == gone for row in found.known]
    return [(files.path[row.image], known.path[row.known], row.kind) for row in found.itertuples()]


def test_the_closest_of_other_pictures_is_found(tmp_path):
    known = write(
        tmp_path,
        {f"known{seed}.jpg": encode(draw(seed)) for seed in range(4)}
        | {"flat.png": encode(Image.new("L", (9, 9)))},
    )
    files = write(
        tmp_path,
        {
            "same.jpg": encode(draw(0)),
            "smaller.jpg": encode(scale(draw(1), 0.7)),
            "mirrored.jpg": encode(ImageOps.mirror(draw(2)), 60),
            "new.jpg": encode(draw(9)),
            "flat.jpg": encode(Image.new("L", (20, 20))),
        },
    )
    expected = [
        ("same.jpg", "known0.jpg", "exact"),
        ("smaller.jpg", "known1.jpg", "near"),
        ("mirrored.jpg", "known2.jpg", "mirrored"),
    ]
    assert closest(files, known, tmp_path) == expected
    assert closest(files, known, tmp_path, gone="known2.jpg") == expected
    assert closest(files, known, tmp_path, gone="known1.jpg") == expected
    assert (
        closest(files, known[4:].reset_index(drop=True), tmp_path)
        == closest(files[:0], known, tmp_path)
        == []
    )


def test_of_several_copies_the_closest_counts(tmp_path):
    rough = write(
        tmp_path,
        {"a_rough.jpg": encode(scale(draw(0), 0.5), 30), "b_fine.jpg": encode(draw(0), 95)},
    )
    files = write(tmp_path, {"copy.png": encode(draw(0), 90)})
    assert closest(files, rough, tmp_path) == [("copy.png", "b_fine.jpg", "near")]
    again = write(
        tmp_path,
        {
            "a_rough.jpg": encode(scale(draw(0), 0.5), 30),
            "b_same.jpg": encode(draw(0), 90),
            "c_same.jpg": encode(draw(0), 90),
        },
    )
    assert closest(files, again, tmp_path) == [("copy.png", "b_same.jpg", "exact")]
