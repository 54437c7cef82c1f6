"""Whether every damaged DICOM file gets pixels or a reason, and how long and how much memory that takes.

Small whole files of every kind (`tests/support/dicoms.py`) are damaged in ten ways each, again and again: cut off, bits flipped
anywhere or in the header, a part lost, and the elements that are read given other kinds, lengths, values and tags. Ends
with an error that names the file where anything but an `ImageError` comes out, or where a file takes too long.

    python -m bench.fuzz_dicom --files 5000
"""

import argparse
import itertools
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from tasks.imaging.decode import decode
from tasks.imaging.picture import ImageError, Limits
from tests.support import dicoms

LIMITS = Limits(max_bytes=10_000_000, max_pixels=10_000_000)


def main() -> None:
    arguments = _arguments()
    outcomes: Counter[str] = Counter()
    slowest, before = 0.0, _memory()
    for number, (name, content) in enumerate(
        tqdm(itertools.islice(damaged(arguments.seed), arguments.files), total=arguments.files)
    ):
        start = time.perf_counter()
        try:
            pixels = decode(content, 3, (64, 64), LIMITS)
            outcomes[
                "pixels"
                if pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
                else "wrong pixels"
            ] += 1
        except ImageError as error:
            outcomes[error.reason] += 1
        except BaseException:
            print(
                f"file {number} ({name}) of seed {arguments.seed} gave neither pixels nor a reason"
            )
            raise
        slowest = max(slowest, time.perf_counter() - start)
    for outcome, count in outcomes.most_common():
        print(f"{count:8,}  {outcome}")
    print(f"slowest {slowest * 1000:.0f} ms, {_memory() - before:.0f} MB more memory than before")
    if slowest > arguments.seconds or outcomes["wrong pixels"]:
        sys.exit(
            f"expected no file to take {arguments.seconds} s, and pixels of the size asked for"
        )


def damaged(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged files without end, and of what kind they were; the same for the same seed."""
    rng, samples = np.random.default_rng(seed), dicoms.samples()
    for name, content in itertools.cycle(samples.items()):
        yield from ((name, one) for one in dicoms.mutations(content, rng))


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Decode damaged DICOM files.")
    parser.add_argument("--files", type=int, default=5000, help="how many (5000)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (0)")
    parser.add_argument("--seconds", type=float, default=10, help="that a file may take (10)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
