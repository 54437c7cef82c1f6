"""Whether public collections of image files are read, and to the pixels that other decoders see.

    python -m bench.decoders FOLDER …              # such as Pillow's Tests/images, pydicom's test_files, PngSuite, bmpsuite
    python -m bench.decoders FOLDER --ffmpeg PATH  # a second witness, for the formats that TensorFlow does not read

Files are decoded in a process apart, with limits of time and memory, so that a crash or a hang is seen. Where TensorFlow or
ffmpeg reads a file too, its picture, transparency laid over white, is compared with ours: the largest difference of any pixel.
Not compared are files of more than 8 bits, whose range the others do not look for. Ends with status 1 where a file crashed,
hung, or met an error that is no `ImageError`.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import Decoded, ImageError, Limits

LIMITS = Limits(max_bytes=100_000_000, max_pixels=100_000_000)
PATIENCE = 120  # seconds for one file, of which importing TensorFlow takes some
MEMORY = 12 * 2**30  # bytes of address space of the process that decodes; TensorFlow alone takes 5
CLOSE = 2  # a difference up to here is rounding, of colours or of transparency
NAMED = 20  # files that are listed
BY_TENSORFLOW = ("PNG", "JPEG", "MPO", "BMP", "GIF")


@dataclass(frozen=True)
class Outcome:
    """What came of one file: `decoded`, the reason, `crash` or `hang`; seconds; the differences from others, by their names."""

    result: str
    detail: str = ""
    seconds: float = 0.0
    memory: float = 0.0  # MB, of the process so far
    differences: tuple[tuple[str, int], ...] = ()


def main() -> None:
    """Decode the files of each folder, and tell what came of them."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decoders", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--ffmpeg", metavar="PATH", help="the program that is asked too")
    parser.add_argument("--verbose", action="store_true", help="list every file that is refused")
    arguments = parser.parse_args()
    failed = []
    for folder in arguments.folders:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        outcomes = dict(zip(files, judge(files, arguments.ffmpeg), strict=True))
        tell(folder, outcomes, arguments.verbose)
        failed += [
            path for path, outcome in outcomes.items() if outcome.result in ("crash", "hang")
        ]
    if failed:
        sys.exit(f"crashed or hung: {', '.join(map(str, failed))}")


def judge(files: list[Path], ffmpeg: str | None) -> Iterator[Outcome]:
    """Yield the outcome of each file; a process that dies or hangs is replaced."""
    pool = start()
    for path in files:
        try:
            yield pool.submit(look, path, ffmpeg).result(timeout=PATIENCE)
        except (BrokenProcessPool, TimeoutError) as error:
            for process in list(pool._processes.values()):
                process.kill()
            pool.shutdown()
            pool = start()
            yield Outcome("hang" if isinstance(error, TimeoutError) else "crash")
        except (
            Exception
        ) as error:  # of the code that is tried: told, with the file, and the next one's turn
            yield Outcome("crash", repr(error))
    pool.shutdown()


def start() -> ProcessPoolExecutor:
    """Return a pool of one process, with a limit of memory."""
    return ProcessPoolExecutor(
        1, get_context("spawn"), resource.setrlimit, (resource.RLIMIT_AS, (MEMORY, MEMORY))
    )


def look(path: Path, ffmpeg: str | None) -> Outcome:
    """Decode one file, here and by others."""
    warnings.filterwarnings("ignore")  # Pillow's, of damaged files
    started = time.perf_counter()
    try:
        content = read_file(path, LIMITS)
        decoded = decode_bytes(content, LIMITS)
        result, detail = "decoded", decoded.note
    except ImageError as error:
        return Outcome(error.reason, error.detail, time.perf_counter() - started, used())
    seconds = time.perf_counter() - started
    ours, differences = np.asarray(decoded.picture.convert("RGB"), dtype=int), []
    for name, others in (
        ("TensorFlow", by_tensorflow),
        ("ffmpeg", lambda *file: by_ffmpeg(ffmpeg, *file)),
    ):
        theirs = None if decoded.is_deep else others(path, content, decoded)
        if theirs is not None:
            same = theirs.shape == ours.shape
            differences.append((name, int(np.abs(theirs - ours).max()) if same else -1))
    return Outcome(result, detail, seconds, used(), tuple(differences))


def used() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def by_tensorflow(path: Path, content: bytes, decoded: Decoded) -> np.ndarray | None:
    """Return the pixels (height, width, 3) that TensorFlow sees; None where it does not read the file.

    It takes the numbers of a palette, and values of less than 8 bits, for brightness: these are not compared.
    """
    is_shallow = decoded.format == "PNG" and content[24] < 8
    if (
        decoded.format not in BY_TENSORFLOW
        or is_shallow
        or (decoded.format == "BMP" and decoded.mode in "1P")
    ):
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    readers: dict[str, Callable] = {
        "PNG": lambda: tf.io.decode_png(content, channels=4),
        "BMP": lambda: tf.io.decode_bmp(content),
        "GIF": lambda: tf.io.decode_gif(content)[0],
    }
    jpeg = lambda: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    try:
        return over_white(readers.get(decoded.format, jpeg)().numpy())
    except tf.errors.InvalidArgumentError:
        return None


def by_ffmpeg(
    ffmpeg: str | None, path: Path, content: bytes, decoded: Decoded
) -> np.ndarray | None:
    """Return the pixels that ffmpeg sees in the first frame; None where it does not read the file."""
    if ffmpeg is None or decoded.format == "DICOM":
        return None
    width, height = decoded.picture.size
    words = [
        ffmpeg,
        "-v",
        "error",
        "-noautorotate",
        "-i",
        str(path),
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgba",
        "-",
    ]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE / 2, check=False)
    if done.returncode or len(done.stdout) != width * height * 4:
        return None
    return over_white(np.frombuffer(done.stdout, np.uint8).reshape(height, width, 4))


def over_white(pixels: np.ndarray) -> np.ndarray:
    """Return integers (height, width, 3) of pixels with 1, 3 or 4 channels."""
    pixels = pixels.astype(int)
    if pixels.shape[2] < 4:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels
    alpha = pixels[..., 3:] / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(int)


def tell(folder: Path, outcomes: dict[Path, Outcome], verbose: bool) -> None:
    """Print the counts of a folder, the reasons of what is refused, and the differences that are more than rounding."""
    results = Counter(outcome.result for outcome in outcomes.values())
    print(
        f"\n{folder}: {len(outcomes):,} files, "
        + ", ".join(f"{count:,} {result}" for result, count in results.most_common())
    )
    slowest = max(outcomes, key=lambda path: outcomes[path].seconds)
    memory = max(outcome.memory for outcome in outcomes.values())
    print(
        f"  slowest: {slowest.name}, {outcomes[slowest].seconds:.2f} s; peak memory of the decoding process: {memory:,.0f} MB"
    )
    noted = [
        path.name
        for path, outcome in outcomes.items()
        if outcome.result == "decoded" and outcome.detail
    ]
    print(
        f"  read, with a remark: {len(noted)}"
        + (f", such as {', '.join(noted[:3])}" if noted else "")
    )
    for name in ("TensorFlow", "ffmpeg"):
        found = {
            path: dict(outcome.differences)[name]
            for path, outcome in outcomes.items()
            if name in dict(outcome.differences)
        }
        if found:
            far = {
                path: difference
                for path, difference in found.items()
                if not 0 <= difference <= CLOSE
            }
            print(
                f"  {name} reads {len(found):,} of them: {len(found) - len(far):,} equal up to {CLOSE} of 255, {len(far):,} not"
            )
            for path, difference in list(far.items())[:NAMED]:
                print(
                    f"    {path.relative_to(folder)}: "
                    + (f"{difference} of 255" if difference >= 0 else "another size")
                )
    for path, outcome in outcomes.items():
        if verbose and outcome.result != "decoded":
            print(f"    {path.relative_to(folder)}: {outcome.result}: {outcome.detail}")


if __name__ == "__main__":
    main()
