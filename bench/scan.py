"""Time the scan of a folder: our `validate` against the two passes of the usual notebook.

The notebook verifies each file with Pillow, one after the other, and then decodes each file with
TensorFlow in eight threads. Ours is `tasks.quality.scan.scan` as the pipeline calls it. Both scan
the same files in turns, in one process, from a warm page cache. The times do not include imports,
Great Expectations and the writing of tables.

The comparison favours the notebook: it decodes files that it would already have removed, it moves
and lists nothing, and TensorFlow is warm. The sides do not do the same work, see `DIFFERENCES`.

    python -m bench.scan                      # 1,000 drawn heads of 128 x 128
    python -m bench.scan data/raw             # your own folder
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf
from PIL import Image

from bench.rounds import print_table, stopwatch, time_rounds
from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import PARSER_ERRORS, ImageError, Limits
from tasks.params.validate import Validate
from tasks.quality.scan import list_files, scan
from tests.support.draw import LABELS, draw_set

THREADS = 8  # threads of the notebook's decoding
LIMITS = Limits(Validate().max_bytes, Validate().max_pixels)
DIFFERENCES = """
Only ours reads each file once, computes its SHA-256, mean, standard deviation and perceptual hash,
turns it upright, refuses large files unread, finds its split and class, and gives a reason for each
rejected file.
Only the notebook reads each file twice, and checks its structure apart from its pixels. Pillow's
verify() checks the checksums of a PNG and only the header of a JPEG. TensorFlow decodes only BMP,
GIF, JPEG and PNG."""


def main() -> None:
    """Print the table, and the number of unusable files on each side."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as drawn:
        folder = arguments.folder or _draw(Path(drawn), arguments.images, arguments.size)
        paths = sorted(list_files(folder))
        megabytes = sum(len(path.read_bytes()) for path in paths) / 1e6
        print(f"{len(paths)} files, {megabytes:.1f} MB, page cache warm")
        compare(folder, paths, arguments.rounds)
        print(f"\nunusable files found: {count_rejects(folder, paths)}")
        print(DIFFERENCES)


def compare(folder: Path, paths: Sequence[Path], rounds: int) -> None:
    """Time our scan and the notebook's two passes, and print the table."""
    sides = {
        "scan": lambda: scan(folder, LIMITS),
        "our decoder": lambda: decode_ours(paths),
        "verify in turn": lambda: verify_all(paths),
        "decode in 8 threads": lambda: decode_all(paths),
    }
    seconds = time_rounds({name: stopwatch(work) for name, work in sides.items()}, rounds)
    ours, judge, verify, decode = seconds.values()
    rows = {
        "ours": ours,
        "  its decoding": judge,
        "notebook": [one + other for one, other in zip(verify, decode, strict=True)],
        "  its Pillow verify": verify,
        "  its TensorFlow decoding": decode,
    }
    print_table("file scan", rows, len(paths), "files")


def decode_ours(paths: Sequence[Path]) -> list[bool]:
    """Return whether the pipeline's decoder accepts each file, without hashes and statistics."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda path: _accepts(_decode_ours, path, (ImageError,)), paths))


def verify_all(paths: Sequence[Path]) -> list[bool]:
    """Return whether Pillow's `verify` accepts each file, as the notebook validates files."""
    return [_accepts(_verify, path, PARSER_ERRORS) for path in paths]


def decode_all(paths: Sequence[Path]) -> list[bool]:
    """Return whether TensorFlow decodes each file, as the notebook removes corrupted images."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(
            pool.map(lambda path: _accepts(_decode_theirs, path, (tf.errors.OpError,)), paths)
        )


def count_rejects(folder: Path, paths: Sequence[Path]) -> str:
    """Describe how many files each side finds unusable."""
    ours = int((scan(folder, LIMITS).files.status == "rejected").sum())
    verified, decoded = verify_all(paths), decode_all(paths)
    both = sum(not (one and other) for one, other in zip(verified, decoded, strict=True))
    parts = f"verification {verified.count(False)}, decoding {decoded.count(False)}"
    return f"ours {ours}, notebook {both} ({parts})"


def _accepts(
    read: Callable[[Path], object], path: Path, refusals: tuple[type[Exception], ...]
) -> bool:
    try:
        read(path)
    except refusals:
        return False
    return True


def _decode_ours(path: Path) -> None:
    decode_bytes(read_file(path, LIMITS), LIMITS)


def _verify(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()


def _decode_theirs(path: Path) -> tf.Tensor:
    return tf.io.decode_image(tf.io.read_file(str(path)), expand_animations=False)


def _draw(root: Path, images: int, size: int) -> Path:
    draw_set(root, {"": dict.fromkeys(LABELS, -(-images // len(LABELS)))}, size=size)
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare our scan of a folder with the scan of the usual notebook."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", help="images in class folders (default: drawn heads)"
    )
    parser.add_argument("--images", type=int, default=1000, help="images to draw (1000)")
    parser.add_argument(
        "--size", type=int, default=128, help="side of a drawn image in pixels (128)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each side (7)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
