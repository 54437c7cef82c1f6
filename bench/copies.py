"""Measure which changed copies of an image are found, and which different images count as copies.

Copies are made of real images, one from each group of images that look alike. The original is in
Training, its changed copy in Testing. The pipeline's functions scan the files, link them and
withhold images, as `validate` and `split` do with default parameters. An original counts as found
if it is withheld from training. Each link between two different originals is false.

A sheet shows pairs of unchanged images, those nearest to the threshold, for a person to judge.

    python -m bench.copies data/raw [--images 300] [--sheet FILE.png]
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import Limits
from tasks.params.split import NearCopies, Split
from tasks.params.validate import Validate
from tasks.quality.duplicates import find_duplicates, group_duplicates
from tasks.quality.scan import scan
from tasks.split import WITHHELD, assign

LIMITS = Limits(Validate().max_bytes, Validate().max_pixels)
NEAR = NearCopies()
TILE = 180  # pixels
ACROSS = 4  # pairs in a row of the sheet
ABOVE, BELOW = 24, 24  # pairs of the sheet on either side of the threshold
Change = Callable[[Image.Image], Image.Image]


def scale(factor: float) -> Change:
    """Return a change of the size."""
    return lambda picture: ImageOps.scale(picture, factor, Image.Resampling.BICUBIC)


def brighten(factor: float) -> Change:
    """Return a change of the brightness."""
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def change_contrast(factor: float) -> Change:
    """Return a change of the contrast."""
    return lambda picture: ImageEnhance.Contrast(picture).enhance(factor)


def crop(share: float) -> Change:
    """Return a change that removes a share of width and height, evenly from all sides."""

    def change(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        across, down = round(width * share / 2), round(height * share / 2)
        return picture.crop((across, down, width - across, height - down))

    return change


def rotate(degrees: float) -> Change:
    """Return a rotation."""
    return lambda picture: picture.rotate(degrees, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Kind:
    """Changes of an image, in their order, and the JPEG quality of its file. None gives a PNG."""

    name: str
    changes: tuple[Change, ...] = ()
    quality: int | None = None


KINDS = (
    Kind("PNG"),
    *(Kind(f"JPEG {quality}", quality=quality) for quality in (95, 85, 75, 60, 40)),
    Kind("mirrored", (ImageOps.mirror,)),
    *(Kind(f"scaled to {factor:.0%}", (scale(factor),)) for factor in (0.5, 0.9, 1.1, 2.0)),
    *(
        Kind(f"brightness {factor:.0%}", (brighten(factor),))
        for factor in (0.5, 0.7, 0.9, 1.1, 1.3, 1.5)
    ),
    *(Kind(f"contrast {factor:.0%}", (change_contrast(factor),)) for factor in (0.7, 1.3)),
    Kind("mirrored, 90%, JPEG 75", (ImageOps.mirror, scale(0.9)), 75),
    Kind("mirrored, 110%, JPEG 60", (ImageOps.mirror, scale(1.1)), 60),
    Kind("brightness 80%, 90%, JPEG 75", (brighten(0.8), scale(0.9)), 75),
    Kind(
        "mirrored, brightness 120%, 110%, JPEG 60",
        (ImageOps.mirror, brighten(1.2), scale(1.1)),
        60,
    ),
    *(Kind(f"cropped by {share:.0%}", (crop(share),)) for share in (0.01, 0.02, 0.05)),
    *(Kind(f"rotated by {degrees} degrees", (rotate(degrees),)) for degrees in (1, 3)),
)


def main() -> None:
    """Print the tables, and write the sheet if asked."""
    arguments = _arguments()
    files = scan(arguments.folder, LIMITS).files.query("status == 'usable'").reset_index(drop=True)
    pairs = find_duplicates(files, arguments.folder, NEAR.hash_distance, -1)
    describe_real(files, pairs)
    if arguments.sheet:
        draw_sheet(pairs, arguments.folder).save(arguments.sheet)
        print(f"the pairs nearest to the threshold: {arguments.sheet}")
    originals = select_originals(files, pairs, arguments.images)
    print(
        f"\ncopies of {len(originals)} images, no two of which are linked; "
        "found: the original is withheld from training"
    )
    print(f"{'change':<42}{'found':>7}{'by hash':>9}", end="")
    print(f"{'correlation: lowest':>21}{'5 %':>7}{'median':>8}{'false pairs':>13}")
    for kind in KINDS:
        print(measure(kind, originals, arguments.folder), flush=True)


def describe_real(files: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Print the number of pairs among the unchanged images."""
    near = pairs[pairs.kind != "exact"]
    linked = near[near.correlation >= NEAR.correlation]
    label = files.set_index("path").label
    across = (linked.path_a.map(label) != linked.path_b.map(label)).sum()
    mirrored = (linked.kind == "mirrored").sum()
    exact = len(pairs) - len(near)
    print(f"{len(files)} images: {exact} exact pairs, {len(near)} pairs with similar hashes")
    print(f"{len(linked)} of these are linked: {mirrored} mirrored, {across} across classes")
    edges = [-1, 0.9, 0.92, 0.94, 0.95, 0.96, NEAR.correlation, 0.97, 0.98, 0.99, 1]
    for low, high, count in zip(
        edges, edges[1:], np.histogram(near.correlation, edges)[0], strict=False
    ):
        print(f"  correlation {low:6.3f} to {high:6.3f}: {count:6d} pairs")


def select_originals(files: pd.DataFrame, pairs: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first image of each group of copies, `count` of them, in the order of hashes."""
    first = files[
        files.path == group_duplicates(files.path, pairs[pairs.correlation >= NEAR.correlation])
    ]
    return first[first["hash"].ne("")].sort_values("sha256").head(count)


def measure(kind: Kind, originals: pd.DataFrame, folder: Path) -> str:
    """Make one changed copy of each original, and return the row of the table."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        for number, row in enumerate(originals.itertuples()):
            _write(
                root / "Training" / row.label / f"{number}{Path(row.path).suffix}",
                (folder / row.path).read_bytes(),
            )
            _write(
                root / "Testing" / row.label / f"{number}.copy", make_copy(folder / row.path, kind)
            )
        files = scan(root, LIMITS).files
        proposed = find_duplicates(files, root, NEAR.hash_distance, -1)
    numbers = proposed[["path_a", "path_b"]].map(lambda path: Path(path).stem)
    own = numbers.path_a == numbers.path_b
    linked = proposed.correlation >= NEAR.correlation
    splits = assign(files, proposed[linked], [""] * len(files), Split())
    found = int((splits.split == WITHHELD).sum())
    lowest, low, median = (
        proposed.correlation[own].quantile([0, 0.05, 0.5]) if own.any() else [float("nan")] * 3
    )
    false = int((linked & ~own).sum())
    return (
        f"{kind.name:<42}{found / len(originals):>7.1%}{own.sum() / len(originals):>9.1%}"
        f"{lowest:>21.3f}{low:>7.3f}{median:>8.3f}{false:>13}"
    )


def make_copy(path: Path, kind: Kind) -> bytes:
    """Return a changed copy of an image as the bytes of a file."""
    picture = decode_bytes(read_file(path)).picture
    for change in kind.changes:
        picture = change(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG") if kind.quality is None else picture.save(
        buffer, "JPEG", quality=kind.quality
    )
    return buffer.getvalue()


def draw_sheet(pairs: pd.DataFrame, folder: Path) -> Image.Image:
    """Draw the pairs nearest to the threshold, from below to above. Mirrored images are flipped."""
    near = pairs[pairs.kind != "exact"].sort_values(["correlation", "path_a", "path_b"])
    near = near.drop_duplicates("correlation")  # an equal correlation is mostly the same pair again
    above = near.correlation >= NEAR.correlation
    shown = pd.concat([near[~above].tail(BELOW), near[above].head(ABOVE)])
    rows = -(-len(shown) // ACROSS)
    page = Image.new("RGB", (ACROSS * (2 * TILE + 12), rows * (TILE + 16)), "white")
    draw = ImageDraw.Draw(page)
    for place, pair in enumerate(shown.itertuples()):
        left, top = place % ACROSS * (2 * TILE + 12), place // ACROSS * (TILE + 16)
        for offset, path in ((0, pair.path_a), (TILE + 2, pair.path_b)):
            picture = decode_bytes(read_file(folder / path)).picture.resize((TILE, TILE))
            page.paste(
                ImageOps.mirror(picture) if offset and pair.kind == "mirrored" else picture,
                (left + offset, top),
            )
        colour = "green" if pair.correlation >= NEAR.correlation else "red"
        draw.text(
            (left, top + TILE + 1),
            f"{pair.correlation:.4f} {pair.kind}: {pair.path_a[-24:]} {pair.path_b[-24:]}",
            colour,
        )
    return page


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure which copies of images are found, and how many pairs are false."
    )
    parser.add_argument("folder", type=Path, help="images in class folders")
    parser.add_argument("--images", type=int, default=300, help="images to copy (300)")
    parser.add_argument(
        "--sheet", type=Path, help="write an image of the pairs nearest to the threshold"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
