"""Check that every damaged DICOM file gets pixels or a reason, and measure time and memory.

Small files of every kind (`tests/support/dicoms.py`) are damaged in ten ways each, again and again:
the end is cut off, bits flip anywhere or in the header, a part is lost, and the elements that the
decoder reads get other types, lengths, values and tags. The program fails and names the file if
anything but an `ImageError` is raised, or if a file takes too long.

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
    """Decode the files, and print the outcomes."""
    arguments = _arguments()
    outcomes: Counter[str] = Counter()
    slowest, before = 0.0, _peak_memory()
    files = itertools.islice(damage(arguments.seed), arguments.files)
    for number, (name, content) in enumerate(tqdm(files, total=arguments.files)):
        start = time.perf_counter()
        try:
            pixels = decode(content, 3, (64, 64), LIMITS)
            is_right = pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
            outcomes["pixels" if is_right else "wrong pixels"] += 1
        except ImageError as error:
            outcomes[error.reason] += 1
        except BaseException:
            print(f"file {number} ({name}) of seed {arguments.seed}: no pixels and no reason")
            raise
        slowest = max(slowest, time.perf_counter() - start)
    for outcome, count in outcomes.most_common():
        print(f"{count:8,}  {outcome}")
    print(
        f"slowest {slowest * 1000:.0f} ms, {_peak_memory() - before:.0f} MB more memory than before"
    )
    if slowest > arguments.seconds or outcomes["wrong pixels"]:
        sys.exit(f"expected at most {arguments.seconds} s a file, and pixels of the right size")


def damage(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged files and their kinds without end; equal seeds give equal files."""
    rng, samples = np.random.default_rng(seed), dicoms.samples()
    for name, content in itertools.cycle(samples.items()):
        yield from ((name, one) for one in dicoms.mutations(content, rng))


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Decode damaged DICOM files.")
    parser.add_argument("--files", type=int, default=5000, help="number of files (5000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the damage (0)")
    parser.add_argument("--seconds", type=float, default=10, help="longest time for a file (10)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
