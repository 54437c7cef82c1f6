"""Draws synthetic head scans: the demo set, toy sets for tests, large sets for benchmarks.

Nothing here comes from a patient. The pictures only resemble magnetic resonance images closely enough to be learnt by
a small network, and a model trained on them knows nothing about medicine. Equal arguments give equal bytes as long as
Pillow stays the same, since its JPEG encoder writes them. An existing file of the same name is overwritten.

    python -m tests.support.draw data/demo                        # redraw the demo set
    python -m tests.support.draw /tmp/heads --per-class 1000      # a plain set, one folder per class
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
SPARE_INDEX = 900  # heads from here on are drawn for the troubles of the demo set alone
BRAIN_EDGE = 0.84  # radius of the brain where the skin has radius 1


def draw_head(label: str, rng: np.random.Generator, size: int = 128) -> Image.Image:
    """One grey head of `size` x `size` pixels (mode L) carrying the lesion of `label`.

    Raises ValueError for a label that is not in LABELS.
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

    An empty subset name puts the class folders directly under `root`. Every image is a function of seed, size, subset,
    label and index alone, so asking for more never changes the ones before.
    """
    for path, subset, label, index in _places(root, counts):
        path.write_bytes(_jpeg(draw_head(label, _generator(seed, subset, label, index), size)))


def draw_folders(
    root: Path, counts: Mapping[str, Mapping[str, int]], seed: int = 0, size: int = 128
) -> None:
    """As `draw_set`, for class folders of any name: they get the heads of LABELS in turn."""
    for path, subset, folder, index in _places(root, counts):
        label = LABELS[list(counts[subset]).index(folder) % len(LABELS)]
        path.write_bytes(_jpeg(draw_head(label, _generator(seed, subset, folder, index), size)))


def draw_demo(root: Path) -> None:
    """Write the demo set: DEMO_COUNTS heads of mixed sizes and shapes, and files with troubles on purpose.

    Under Training lie a text file, a truncated JPEG, an empty file, a PNG named .jpg, one file name used in two
    classes, and an exact, a mirrored and a re-encoded copy of images under Testing; the file names say which is which.
    """
    for path, subset, label, index in _places(root, DEMO_COUNTS):
        path.write_bytes(_jpeg(_demo_head(subset, label, index)))
    _add_unusable(root / "Training")
    _add_misleading(root / "Training")
    _add_copies(root / "Training", root / "Testing")


def _places(
    root: Path, counts: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[Path, str, str, int]]:
    """Path, subset, label and index of every image to draw, its folder made."""
    for subset, labels in counts.items():
        for label, count in labels.items():
            (root / subset / label).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                yield root / subset / label / f"{label}_{index:04d}.jpg", subset, label, index


def _generator(seed: int, subset: str, label: str, index: int) -> np.random.Generator:
    return np.random.default_rng(
        [seed, zlib.crc32(subset.encode()), zlib.crc32(label.encode()), index]
    )


# Anatomy: every function works on arrays of shape (size, size), tissue brightness runs from 0 to 1. Doubles throughout,
# so that a last-bit difference between two processors practically never reaches a pixel.


def _head_frame(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel in head coordinates: the skin is the unit circle, u = 0 the mid-line, v grows downwards."""
    tilt = rng.normal(0, 0.13)
    height = rng.uniform(0.8, 0.97)
    width = height * rng.uniform(0.74, 0.94)
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis - rng.uniform(-0.07, 0.07), axis - rng.uniform(-0.05, 0.05))
    u = (x * np.cos(tilt) + y * np.sin(tilt)) / width
    v = (y * np.cos(tilt) - x * np.sin(tilt)) / height
    return u * (1 - rng.uniform(0, 0.14) * v), v


def _shells(r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bright skin, dark bone with a little marrow, and the thin membrane around the brain."""
    skin = rng.uniform(0.35, 0.65) * _band(r, 0.965, 0.03)
    marrow = rng.uniform(0.08, 0.25) * _band(r, 0.905, 0.02)
    return skin + marrow + rng.uniform(0.1, 0.3) * _band(r, BRAIN_EDGE + 0.01, 0.012)


def _brain(u: np.ndarray, v: np.ndarray, r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White matter inside, a folded grey cortex outside, mid-line and ventricles."""
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
    """Two curved horns mirrored at the mid-line, darker than the tissue around them."""
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
    """Large and ragged inside one hemisphere: dark core, bright rim, a faint halo that fades into the tissue."""
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
    """Round, bright and even, seated broadly on the inner edge of the skull, anywhere but at the base."""
    angle, radius = rng.uniform(-0.8, 0.8) * np.pi - np.pi / 2, rng.uniform(0.14, 0.29)
    reach = BRAIN_EDGE - rng.uniform(0.55, 0.85) * radius
    d = _distance(u, v, (reach * np.cos(angle), reach * np.sin(angle)), radius) + 0.06 * _noise(
        len(u), 10, rng
    )
    return _fill(brain, _inside(d, 1, 0.2), rng)


def _pituitary(
    brain: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A small bright oval on the mid-line, low in the head."""
    centre, radius = (rng.normal(0, 0.02), rng.uniform(0.5, 0.6)), rng.uniform(0.085, 0.14)
    return _fill(
        brain, _inside(_distance(u, v * rng.uniform(0.85, 1.1), centre, radius), 1, 0.35), rng
    )


_LESIONS = {"glioma_tumor": _glioma, "meningioma_tumor": _meningioma, "pituitary_tumor": _pituitary}


def _fill(brain: np.ndarray, mass: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The brain with a bright, nearly even mass in place of its tissue."""
    brightness = 0.54 + 0.4 * _visibility(rng) + 0.02 * _noise(len(brain), 20, rng)
    return brain + 0.95 * mass * (brightness - brain)


def _visibility(rng: np.random.Generator) -> float:
    """Mostly close to 1; the few near 0 keep the task from being solved completely."""
    return rng.beta(3.5, 1.2)


def _scan(tissue: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """What the scanner adds: uneven field, contrast, brightness and noise."""
    field = 1 + 0.07 * _noise(len(tissue), 3, rng)
    signal = np.clip(tissue * field, 0, 1) ** rng.uniform(0.8, 1.3) * rng.uniform(0.9, 1.2)
    noise = rng.uniform(0.006, 0.025) * rng.standard_normal(tissue.shape)
    return Image.fromarray(np.uint8(np.clip(255 * np.abs(signal + noise), 0, 255)))


def _noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random surface with `cells` bumps per side and a standard deviation somewhat below 1."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)


def _distance(
    u: np.ndarray, v: np.ndarray, centre: tuple[float, float], radius: float
) -> np.ndarray:
    """Distance from `centre` in multiples of `radius`."""
    return np.hypot(u - centre[0], v - centre[1]) / radius


def _inside(d: np.ndarray, edge: float, softness: float = 0.03) -> np.ndarray:
    """1 where `d` is below `edge`, 0 beyond, a soft step between."""
    return 1 - _ramp(d, edge - softness / 2, edge + softness / 2)


def _band(d: np.ndarray, centre: float, half_width: float) -> np.ndarray:
    """1 around `centre`, fading to 0 at one and a half times `half_width`."""
    return np.clip(1.5 - np.abs(d - centre) / half_width, 0, 1)


def _ramp(d: np.ndarray, start: float, end: float) -> np.ndarray:
    """Smooth rise from 0 at `start` to 1 at `end`."""
    t = np.clip((d - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


# The demo set: mixed shapes, and the troubles that real folders have.


def _demo_head(subset: str, label: str, index: int) -> Image.Image:
    """A head of 120 to 200 pixels; every third has its sides cut off or a black margin, so that it is not square."""
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
    """Copies of test images among the training images of the same class, which would leak if nobody looked."""
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
            f"expected an empty or missing folder, received {root}, which holds something: remove it first"
        )
    if arguments.per_class is None:
        draw_demo(root)
    else:
        draw_set(root, {"": dict.fromkeys(LABELS, arguments.per_class)})


if __name__ == "__main__":
    main()
