"""Drawn images are deterministic and learnable. The committed demo is what the code draws."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from tests.support import draw

COMMITTED = Path(__file__).parents[2] / "data/demo"
COPIES = {
    "glioma_tumor/exact_copy_of_testing_0003.jpg": "glioma_tumor_0003.jpg",
    "meningioma_tumor/mirrored_copy_of_testing_0005.jpg": "meningioma_tumor_0005.jpg",
    "pituitary_tumor/reencoded_copy_of_testing_0007.jpg": "pituitary_tumor_0007.jpg",
}


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def pixels(path: Path, mirror: bool = False) -> np.ndarray:
    with Image.open(path) as image:
        upright = ImageOps.mirror(image) if mirror else image.copy()
    return np.asarray(upright.resize((64, 64)), dtype=float)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def test_head_is_grey_on_black() -> None:
    for label in draw.LABELS:
        head = draw.draw_head(label, np.random.default_rng(1), 32)
        assert (head.mode, head.size) == ("L", (32, 32))
        values = np.asarray(head)
        assert values[0].mean() < 30 < values[8:-8, 8:-8].mean()
    with pytest.raises(ValueError, match="no_tumor.*received 'cat'"):
        draw.draw_head("cat", np.random.default_rng(0))


def test_folders_of_any_name_get_the_labels_in_turn(tmp_path: Path) -> None:
    folders = ["paintings", "photos", "b", "a", "text"]
    draw.draw_folders(tmp_path, {"": dict.fromkeys(folders, 1)}, seed=3, size=48)
    assert {path.name for path in tmp_path.iterdir()} == set(folders)
    rng = draw._generator(3, "", "text", 0)
    assert (tmp_path / "text/text_0000.jpg").read_bytes() == draw._jpeg(
        draw.draw_head(draw.LABELS[0], rng, 48)
    )


def test_drawing_more_changes_nothing_drawn_before(tmp_path: Path) -> None:
    draw.draw_set(tmp_path / "few", {"Training": {"no_tumor": 2}}, seed=3, size=48)
    draw.draw_set(
        tmp_path / "many",
        {"Testing": {"no_tumor": 1}, "Training": dict.fromkeys(draw.LABELS, 4)},
        3,
        48,
    )
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert len(few) == 2 and few.items() <= many.items()


def test_seed_subset_label_and_index_all_matter(tmp_path: Path) -> None:
    counts = {subset: dict.fromkeys(draw.LABELS, 2) for subset in ("", "Training", "Testing")}
    draw.draw_set(tmp_path / "a", counts, seed=0, size=32)
    draw.draw_set(tmp_path / "b", counts, seed=1, size=32)
    images = contents(tmp_path)
    assert len(images) == len(set(images.values())) == 2 * 3 * 4 * 2


@pytest.mark.slow
def test_lesions_are_visible_in_the_mean(tmp_path: Path) -> None:
    """The mean images with and without a tumour differ where the tumour is."""
    draw.draw_set(tmp_path, {"": dict.fromkeys(draw.LABELS, 40)}, size=64)
    mean = {
        label: np.mean([pixels(path) for path in (tmp_path / label).iterdir()], axis=0)
        for label in draw.LABELS
    }
    sella = (slice(44, 54), slice(28, 36))
    gain = {
        label: mean[label][sella].mean() - mean["no_tumor"][sella].mean() for label in draw.LABELS
    }
    assert gain["pituitary_tumor"] == max(gain.values()) > 20
    for label in set(draw.LABELS) - {"no_tumor"}:
        assert np.abs(mean[label] - mean["no_tumor"]).max() > 15


@pytest.mark.slow
def test_the_committed_demo_is_what_the_code_draws(tmp_path: Path) -> None:
    draw.draw_demo(tmp_path)
    drawn, committed = contents(tmp_path), contents(COMMITTED)
    different = sorted(path for path in drawn | committed if drawn.get(path) != committed.get(path))
    assert not different, "remove data/demo and run: python -m tests.support.draw data/demo"


def test_demo_is_small_and_has_its_counts_and_shapes() -> None:
    assert sum(map(len, contents(COMMITTED).values())) < 2_000_000
    for subset, labels in draw.DEMO_COUNTS.items():
        for label, count in labels.items():
            assert len(list((COMMITTED / subset / label).glob(f"{label}_*.jpg"))) == count
    sizes = [Image.open(path).size for path in COMMITTED.rglob("*_tumor_0*.jpg")]
    assert min(map(min, sizes)) < 125 and max(map(max, sizes)) > 185
    assert any(width < height for width, height in sizes) and any(
        width > height for width, height in sizes
    )


def test_demo_has_unusable_files() -> None:
    training = COMMITTED / "Training"
    assert (training / "no_tumor/empty.jpg").read_bytes() == b""
    with pytest.raises(UnidentifiedImageError):
        Image.open(training / "glioma_tumor/notes.txt")
    with pytest.raises(OSError, match="truncated"):
        Image.open(training / "meningioma_tumor/truncated.jpg").load()


def test_demo_has_misleading_names() -> None:
    training = COMMITTED / "Training"
    with Image.open(training / "pituitary_tumor/png_named_jpg.jpg") as image:
        image.load()
        assert image.format == "PNG"
    twins = [
        training / label / "same_name_in_two_classes.jpg"
        for label in ("glioma_tumor", "meningioma_tumor")
    ]
    assert likeness(pixels(twins[0]), pixels(twins[1])) < 0.97


def test_demo_copies_resemble_their_originals() -> None:
    for name, original_name in COPIES.items():
        copy = COMMITTED / "Training" / name
        original = COMMITTED / "Testing" / copy.parent.name / original_name
        assert likeness(pixels(copy, mirror="mirrored" in name), pixels(original)) > 0.99
        assert (copy.read_bytes() == original.read_bytes()) == ("exact" in name)


def test_main_refuses_a_folder_that_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["draw", str(tmp_path), "--per-class", "1"])
    draw.main()
    assert len(contents(tmp_path)) == 4
    with pytest.raises(SystemExit):
        draw.main()
    assert "expected an empty or missing folder" in capsys.readouterr().err
