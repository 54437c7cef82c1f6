"""Draw synthetic head scans: the demo set, toy sets for tests, large sets for benchmarks.

Nothing here comes from a patient. The images resemble magnetic resonance images only closely enough
for a small network to learn, and a model trained on them knows nothing about medicine. Equal
arguments give equal bytes for one version of Pillow, whose JPEG encoder writes the files. Existing
files are overwritten.

    python -m tests.support.draw data/demo                      # redraw the demo set
    python -m tests.support.draw /tmp/heads --per-class 1000    # one folder for each class
"""

import argparse
import io
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

LABELS = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
DEMO_COUNTS = {
    "Training": {"glioma_tumor": 70, "meningioma_tumor": 70, "no_tumor": 34, "pituitary_tumor": 70},
    "Testing": {"glioma_tumor": 20, "meningioma_tumor": 22, "no_tumor": 20, "pituitary_tumor": 16},
}
DEMO_SEED = 7
JPEG_QUALITY = 85
SPARE_INDEX = 900  # from this index on, heads are for the unusable files of the demo set
BRAIN_EDGE = 0.84  # radius of the brain where the skin has radius 1


def draw_head(label: str, rng: np.random.Generator, size: int = 128) -> Image.Image:
    """Draw a grey head of `size` x `size` pixels (mode L) with the lesion of `label`.

    Raises `ValueError` for a label that is not in `LABELS`.
    """
    if label not in LABELS:
        raise ValueError(f"expected a label out of {', '.join(LABELS)}, received {label!r}")
    u, v = _head_frame(size, rng)
    r = np.hypot(u, v) * (1 + 0.012 * _noise(size, 4, rng))
    brain = _brain(u, v, r, rng)
    if label != "no_tumor":
        brain = _LESIONS[label](brain, u, v, rng)
    return _scan(_shells(r, rng) + _inside(r, BRAIN_EDGE) * brain, rng)


def draw_set(
    root: Path, counts: Mapping[str, Mapping[str, int]], seed: int = 0, size: int = 128
) -> None:
    """Write `root/<subset>/<label>/<label>_<index>.jpg` for `counts[subset][label]` images each.

    An empty subset puts the class folders directly under `root`. Each image depends only on seed,
    size, subset, label and index, so drawing more images never changes the earlier ones.
    """
    for path, subset, label, index in _places(root, counts):
        path.write_bytes(_jpeg(draw_head(label, _generator(seed, subset, label, index), size)))


def draw_folders(
    root: Path, counts: Mapping[str, Mapping[str, int]], seed: int = 0, size: int = 128
) -> None:
    """Write a set like `draw_set`, but with class folders of any name, which get LABELS in turn."""
    for path, subset, folder, index in _places(root, counts):
        label = LABELS[list(counts[subset]).index(folder) % len(LABELS)]
        path.write_bytes(_jpeg(draw_head(label, _generator(seed, subset, folder, index), size)))


def draw_demo(root: Path) -> None:
    """Write the demo set: heads of mixed sizes and shapes, and the problems of real folders.

    Training has a text file, a truncated JPEG, an empty file, a PNG named .jpg, one file name in
    two classes, and an exact, a mirrored and a re-encoded copy of test images. Their names say so.
    """
    for path, subset, label, index in _places(root, DEMO_COUNTS):
        path.write_bytes(_jpeg(_demo_head(subset, label, index)))
    _add_unusable(root / "Training")
    _add_misleading(root / "Training")
    _add_copies(root / "Training", root / "Testing")


def _places(
    root: Path, counts: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[Path, str, str, int]]:
    """Yield path, subset, label and index of each image, and make its folder."""
    for subset, labels in counts.items():
        for label, count in labels.items():
            (root / subset / label).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                yield root / subset / label / f"{label}_{index:04d}.jpg", subset, label, index


def _generator(seed: int, subset: str, label: str, index: int) -> np.random.Generator:
    return np.random.default_rng(
        [seed, zlib.crc32(subset.encode()), zlib.crc32(label.encode()), index]
    )


# Anatomy. Arrays have the shape (size, size), and brightness runs from 0 to 1. All numbers are
# doubles, so that differences in the last bit between processors almost never reach a pixel.


def _head_frame(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return u and v of each pixel. The skin is the unit circle, u = 0 the mid-line, v down."""
    tilt = rng.normal(0, 0.13)
    height = rng.uniform(0.8, 0.97)
    width = height * rng.uniform(0.74, 0.94)
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis - rng.uniform(-0.07, 0.07), axis - rng.uniform(-0.05, 0.05))
    u = (x * np.cos(tilt) + y * np.sin(tilt)) / width
    v = (y * np.cos(tilt) - x * np.sin(tilt)) / height
    return u * (1 - rng.uniform(0, 0.14) * v), v


def _shells(r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw bright skin, dark bone with a little marrow, and the membrane around the brain."""
    skin = rng.uniform(0.35, 0.65) * _band(r, 0.965, 0.03)
    marrow = rng.uniform(0.08, 0.25) * _band(r, 0.905, 0.02)
    return skin + marrow + rng.uniform(0.1, 0.3) * _band(r, BRAIN_EDGE + 0.01, 0.012)


def _brain(u: np.ndarray, v: np.ndarray, r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw white matter, a folded grey cortex around it, mid-line and ventricles."""
    size = len(u)
    depth = r + 0.05 * _noise(size, 12, rng)
    cortex = _ramp(depth, 0.5, 0.72)
    folds = np.abs(_noise(size, 17, rng) + 0.4 * _noise(size, 30, rng))
    furrows = np.clip(1 - folds / 0.45, 0, 1) * cortex
    matter = 0.5 + 0.04 * _noise(size, 5, rng) + 0.02 * _noise(size, 28, rng) - 0.1 * cortex
    fissure = np.exp(-(((u + 0.008 * _noise(size, 5, rng)) / 0.022) ** 2)) * _ramp(
        np.abs(v), 0.2, 0.4
    )
    return matter - rng.uniform(0.12, 0.26) * furrows - 0.22 * fissure + _ventricles(u, v, rng)


def _ventricles(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw two curved dark horns, mirrored at the mid-line."""
    centre, length, width = (
        rng.uniform(-0.12, 0.08),
        rng.uniform(0.2, 0.34),
        rng.uniform(0.04, 0.085),
    )
    along = (v - centre) / length
    across = (
        np.abs(u + 0.01 * _noise(len(u), 4, rng)) - 0.07 - rng.uniform(0.04, 0.12) * along**2
    ) / width
    return -rng.uniform(0.2, 0.36) * _inside(np.hypot(along, across), 1, 0.3)


def _glioma(
    brain: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a large ragged lesion in one hemisphere: dark core, bright rim, fading halo."""
    side = rng.choice([-1, 1])
    centre, radius = (
        (side * rng.uniform(0.32, 0.44), rng.uniform(-0.36, 0.36)),
        rng.uniform(0.22, 0.38),
    )
    ragged = 0.25 * _noise(len(u), 7, rng) + 0.12 * _noise(len(u), 16, rng)
    d = _distance(u, v, centre, radius) + ragged
    halo, core = _inside(d, 1.45, 0.9), _inside(d, 0.7, 0.35)
    rim = _band(d, 0.85, 0.16) * (1 + 0.35 * _noise(len(u), 8, rng))
    strength = _visibility(rng) * _ramp(side * u, 0, 0.08)
    return brain + strength * (0.12 * halo + 0.32 * rim - 0.4 * core)


def _meningioma(
    brain: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a round bright lesion on the inner edge of the skull, except at the base."""
    angle, radius = rng.uniform(-0.8, 0.8) * np.pi - np.pi / 2, rng.uniform(0.14, 0.29)
    reach = BRAIN_EDGE - rng.uniform(0.55, 0.85) * radius
    d = _distance(u, v, (reach * np.cos(angle), reach * np.sin(angle)), radius) + 0.06 * _noise(
        len(u), 10, rng
    )
    return _fill(brain, _inside(d, 1, 0.2), rng)


def _pituitary(
    brain: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a small bright oval on the mid-line, low in the head."""
    centre, radius = (rng.normal(0, 0.02), rng.uniform(0.5, 0.6)), rng.uniform(0.085, 0.14)
    return _fill(
        brain, _inside(_distance(u, v * rng.uniform(0.85, 1.1), centre, radius), 1, 0.35), rng
    )


_LESIONS = {"glioma_tumor": _glioma, "meningioma_tumor": _meningioma, "pituitary_tumor": _pituitary}


def _fill(brain: np.ndarray, mass: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace the tissue in a mask by a bright, nearly even mass."""
    brightness = 0.54 + 0.4 * _visibility(rng) + 0.02 * _noise(len(brain), 20, rng)
    return brain + 0.95 * mass * (brightness - brain)


def _visibility(rng: np.random.Generator) -> float:
    """Return how visible a lesion is: mostly near 1. The few near 0 keep the task difficult."""
    return rng.beta(3.5, 1.2)


def _scan(tissue: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Add the effects of a scanner: uneven field, contrast, brightness and noise."""
    field = 1 + 0.07 * _noise(len(tissue), 3, rng)
    signal = np.clip(tissue * field, 0, 1) ** rng.uniform(0.8, 1.3) * rng.uniform(0.9, 1.2)
    noise = rng.uniform(0.006, 0.025) * rng.standard_normal(tissue.shape)
    return Image.fromarray(np.uint8(np.clip(255 * np.abs(signal + noise), 0, 255)))


def _noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random surface with `cells` bumps a side and a deviation slightly below 1."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)


def _distance(
    u: np.ndarray, v: np.ndarray, centre: tuple[float, float], radius: float
) -> np.ndarray:
    """Return the distance from `centre` in multiples of `radius`."""
    return np.hypot(u - centre[0], v - centre[1]) / radius


def _inside(d: np.ndarray, edge: float, softness: float = 0.03) -> np.ndarray:
    """Return 1 for `d` below `edge` and 0 above, with a soft step between."""
    return 1 - _ramp(d, edge - softness / 2, edge + softness / 2)


def _band(d: np.ndarray, centre: float, half_width: float) -> np.ndarray:
    """Return 1 around `centre`, fading to 0 at 1.5 times `half_width`."""
    return np.clip(1.5 - np.abs(d - centre) / half_width, 0, 1)


def _ramp(d: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return a smooth rise from 0 at `start` to 1 at `end`."""
    t = np.clip((d - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


# The demo set: mixed shapes, and the problems of real folders.


def _demo_head(subset: str, label: str, index: int) -> Image.Image:
    """Draw a head of 120 to 200 pixels. Every third has cropped sides or a black margin."""
    rng = _generator(DEMO_SEED, subset, label, index)
    size = int(rng.integers(120, 193))
    head = draw_head(label, rng, size)
    if index % 3:
        return head
    margin = int(rng.integers(-8, 5))
    return head.crop((-margin, 0, size + margin, size))


def _jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _add_unusable(training: Path) -> None:
    (training / "glioma_tumor/notes.txt").write_text(
        "A text file that somebody left among the images.\n"
    )
    whole = _jpeg(_demo_head("Training", "meningioma_tumor", SPARE_INDEX))
    (training / "meningioma_tumor/truncated.jpg").write_bytes(whole[: len(whole) * 3 // 5])
    (training / "no_tumor/empty.jpg").write_bytes(b"")


def _add_misleading(training: Path) -> None:
    _demo_head("Training", "pituitary_tumor", SPARE_INDEX).save(
        training / "pituitary_tumor/png_named_jpg.jpg", "PNG"
    )
    for label in ("glioma_tumor", "meningioma_tumor"):
        head = _demo_head("Training", label, SPARE_INDEX + 1)
        (training / label / "same_name_in_two_classes.jpg").write_bytes(_jpeg(head))


def _add_copies(training: Path, testing: Path) -> None:
    """Add copies of test images to the training images, which would leak if undetected."""
    exact = testing / "glioma_tumor/glioma_tumor_0003.jpg"
    (training / "glioma_tumor/exact_copy_of_testing_0003.jpg").write_bytes(exact.read_bytes())
    with Image.open(testing / "meningioma_tumor/meningioma_tumor_0005.jpg") as image:
        mirrored = _jpeg(ImageOps.mirror(image))
    (training / "meningioma_tumor/mirrored_copy_of_testing_0005.jpg").write_bytes(mirrored)
    with Image.open(testing / "pituitary_tumor/pituitary_tumor_0007.jpg") as image:
        brighter = ImageEnhance.Brightness(ImageOps.scale(image, 0.94)).enhance(1.08)
    (training / "pituitary_tumor/reencoded_copy_of_testing_0007.jpg").write_bytes(
        _jpeg(brighter, quality=70)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Draw the demo set, or a plain set for benchmarks."
    )
    parser.add_argument("root", type=Path, help="an empty or missing folder")
    parser.add_argument(
        "--per-class",
        type=int,
        metavar="N",
        help="draw N plain images per class instead of the demo",
    )
    arguments = parser.parse_args()
    root = arguments.root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        parser.error(
            f"expected an empty or missing folder, received {root}, which has content: remove it"
        )
    if arguments.per_class is None:
        draw_demo(root)
    else:
        draw_set(root, {"": dict.fromkeys(LABELS, arguments.per_class)})


if __name__ == "__main__":
    main()
