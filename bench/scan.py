"""How long it takes to look at every file of a folder: our `validate` against the usual notebook's two passes.

The notebook verifies each file with Pillow, one after the other, and then decodes each file with TensorFlow in eight
threads. Ours is `tasks.validate.scan` as the pipeline calls it. Both get the same files, all of them, from a warm page
cache, in the same process, in turns; imports, Great Expectations' judgement and the writing of tables are not timed.

The notebook's side is treated kindly: it decodes files that it would already have moved away, it is not asked to move
or to list anything, and TensorFlow has been warmed up. The sides do not do the same work, see `DIFFERENCES`.

    python -m bench.scan                      # 1,000 drawn heads of 128 x 128
    python -m bench.scan data/raw             # a folder of yours
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf
from PIL import Image

from bench.rounds import stopwatch, tell, time_rounds
from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import PARSER_ERRORS, ImageError, Limits
from tasks.params.validate import Validate
from tasks.quality.scan import list_files, scan
from tests.support.draw import LABELS, draw_set

THREADS = 8  # of the notebook's decoding
LIMITS = Limits(Validate().max_bytes, Validate().max_pixels)
DIFFERENCES = """
Ours alone: reads each file once, takes its SHA-256, mean, standard deviation and perceptual hash, turns it upright, refuses
what is too large unread, tells its subset and class, and gives a reason for every reject.
The notebook alone: reads each file twice and looks at its structure apart from its pixels. Pillow's verify() checks the
checksums of a PNG and the header alone of a JPEG; TensorFlow decodes BMP, GIF, JPEG and PNG and nothing else."""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as drawn:
        folder = arguments.folder or _draw(Path(drawn), arguments.images, arguments.size)
        paths = sorted(list_files(folder))
        print(
            f"{len(paths)} files, {sum(len(path.read_bytes()) for path in paths) / 1e6:.1f} MB, page cache warm"
        )
        compare(folder, paths, arguments.rounds)
        print(f"\nunusable files found: {count_rejects(folder, paths)}")
        print(DIFFERENCES)


def compare(folder: Path, paths: Sequence[Path], rounds: int) -> None:
    """Time our scan against the notebook's two passes and print the table."""
    sides = {
        "scan": lambda: scan(folder, LIMITS),
        "our decoder": lambda: judge_all(paths),
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
    tell("file scan", rows, len(paths), "files")


def judge_all(paths: Sequence[Path]) -> list[bool]:
    """Our verdict without measures and fingerprints: whether the pipeline's decoder accepts each file."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda path: _accepts(_judge, path, (ImageError,)), paths))


def verify_all(paths: Sequence[Path]) -> list[bool]:
    """The notebook's file validation: whether Pillow's `verify` accepts each file."""
    return [_accepts(_verify, path, PARSER_ERRORS) for path in paths]


def decode_all(paths: Sequence[Path]) -> list[bool]:
    """The notebook's clean-up of corrupted images: whether TensorFlow decodes each file."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda path: _accepts(_decode, path, (tf.errors.OpError,)), paths))


def count_rejects(folder: Path, paths: Sequence[Path]) -> str:
    """Say how many files each side, and each part of the notebook's, finds unusable."""
    ours = int((scan(folder, LIMITS).files.status == "rejected").sum())
    verified, decoded = verify_all(paths), decode_all(paths)
    both = sum(not (one and other) for one, other in zip(verified, decoded, strict=True))
    return f"ours {ours}, notebook {both} (verification {verified.count(False)}, decoding {decoded.count(False)})"


def _accepts(
    read: Callable[[Path], object], path: Path, refusals: tuple[type[Exception], ...]
) -> bool:
    try:
        read(path)
    except refusals:
        return False
    return True


def _judge(path: Path) -> None:
    decode_bytes(read_file(path, LIMITS), LIMITS)


def _verify(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()


def _decode(path: Path) -> tf.Tensor:
    return tf.io.decode_image(tf.io.read_file(str(path)), expand_animations=False)


def _draw(root: Path, images: int, size: int) -> Path:
    draw_set(root, {"": dict.fromkeys(LABELS, -(-images // len(LABELS)))}, size=size)
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare our scan of a folder with the usual notebook's."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", help="images in class folders; without it, heads are drawn"
    )
    parser.add_argument("--images", type=int, default=1000, help="how many to draw (1000)")
    parser.add_argument(
        "--size", type=int, default=128, help="pixels of a side of a drawn image (128)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each side (7)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
