"""Check that collections of image files are decoded, and to the same pixels as by other decoders.

    python -m bench.decoders FOLDER …              # such as PngSuite or bmpsuite
    python -m bench.decoders FOLDER --ffmpeg PATH  # compares with ffmpeg too

A separate process decodes the files, with limits of time and memory, so that a crash or a hang is
noticed. If TensorFlow or ffmpeg decodes a file too, both images are compared on a white background:
the result is the largest difference of a pixel. Files of more than 8 bits are not compared, since
the others do not find their range. Exits with 1 if a file crashed, hung, or raised anything but
`ImageError`.
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
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tasks.imaging.decode import decode_bytes, read_file
from tasks.imaging.picture import Decoded, ImageError, Limits

LIMITS = Limits(max_bytes=100_000_000, max_pixels=100_000_000)
PATIENCE = 120  # seconds for one file; importing TensorFlow takes some of them
MEMORY = 12 * 2**30  # bytes of address space of the process that decodes; TensorFlow alone takes 5
CLOSE = 2  # the largest difference that rounding explains
NAMED = 20  # files that are listed
BY_TENSORFLOW = ("PNG", "JPEG", "MPO", "BMP", "GIF")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one file: `decoded`, the reason of its refusal, `crash` or `hang`."""

    result: str
    detail: str = ""
    seconds: float = 0.0
    memory: float = 0.0  # MB, of the process so far
    differences: tuple[tuple[str, int], ...] = ()  # by decoder; -1 for another size


def main() -> None:
    """Decode the files of each folder, and print the outcomes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decoders", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--ffmpeg", metavar="PATH", help="path of ffmpeg, which decodes the files too"
    )
    parser.add_argument("--verbose", action="store_true", help="list every refused file")
    arguments = parser.parse_args()
    failed = []
    for folder in arguments.folders:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        outcomes = dict(zip(files, decode_all(files, arguments.ffmpeg), strict=True))
        print_outcomes(folder, outcomes, arguments.verbose)
        failed += [
            path for path, outcome in outcomes.items() if outcome.result in ("crash", "hang")
        ]
    if failed:
        sys.exit(f"crashed or hung: {', '.join(map(str, failed))}")


def decode_all(files: list[Path], ffmpeg: str | None) -> Iterator[Outcome]:
    """Yield the outcome of each file; a process that dies or hangs is replaced."""
    pool = start()
    for path in files:
        try:
            yield pool.submit(decode_one, path, ffmpeg).result(timeout=PATIENCE)
        except (BrokenProcessPool, TimeoutError) as error:
            for process in list(pool._processes.values()):
                process.kill()
            pool.shutdown()
            pool = start()
            yield Outcome("hang" if isinstance(error, TimeoutError) else "crash")
        except Exception as error:  # an error of our decoder is an outcome like the others
            yield Outcome("crash", repr(error))
    pool.shutdown()


def start() -> ProcessPoolExecutor:
    """Return a pool of one process, with a limit of memory."""
    return ProcessPoolExecutor(
        1, get_context("spawn"), resource.setrlimit, (resource.RLIMIT_AS, (MEMORY, MEMORY))
    )


def decode_one(path: Path, ffmpeg: str | None) -> Outcome:
    """Decode one file by our decoder and by the others."""
    warnings.filterwarnings("ignore")  # Pillow's, of damaged files
    started = time.perf_counter()
    try:
        content = read_file(path, LIMITS)
        decoded = decode_bytes(content, LIMITS)
        result, detail = "decoded", decoded.note
    except ImageError as error:
        return Outcome(error.reason, error.detail, time.perf_counter() - started, peak_memory())
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
    return Outcome(result, detail, seconds, peak_memory(), tuple(differences))


def peak_memory() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def by_tensorflow(path: Path, content: bytes, decoded: Decoded) -> np.ndarray | None:
    """Return TensorFlow's pixels (height, width, 3), or None if it does not read the file.

    It takes palette indices and values of less than 8 bits for brightness: these return None too.
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

    decode_jpeg = partial(tf.io.decode_jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    readers: dict[str, Callable] = {
        "PNG": partial(tf.io.decode_png, channels=4),
        "BMP": tf.io.decode_bmp,
        "GIF": lambda content: tf.io.decode_gif(content)[0],
    }
    try:
        return over_white(readers.get(decoded.format, decode_jpeg)(content).numpy())
    except tf.errors.InvalidArgumentError:
        return None


def by_ffmpeg(
    ffmpeg: str | None, path: Path, content: bytes, decoded: Decoded
) -> np.ndarray | None:
    """Return ffmpeg's pixels of the first frame, or None if it does not read the file."""
    if ffmpeg is None or decoded.format == "DICOM":
        return None
    width, height = decoded.picture.size
    command = [ffmpeg, "-v", "error", "-noautorotate", "-i", str(path)]
    command += ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE / 2, check=False)
    if done.returncode or len(done.stdout) != width * height * 4:
        return None
    return over_white(np.frombuffer(done.stdout, np.uint8).reshape(height, width, 4))


def over_white(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of 1, 3 or 4 channels as integers (height, width, 3) on a white background."""
    pixels = pixels.astype(int)
    if pixels.shape[2] < 4:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels
    alpha = pixels[..., 3:] / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(int)


def print_outcomes(folder: Path, outcomes: dict[Path, Outcome], verbose: bool) -> None:
    """Print the counts of a folder, and the differences from other decoders."""
    results = Counter(outcome.result for outcome in outcomes.values())
    counts = ", ".join(f"{count:,} {result}" for result, count in results.most_common())
    print(f"\n{folder}: {len(outcomes):,} files, {counts}")
    slowest = max(outcomes, key=lambda path: outcomes[path].seconds)
    memory = max(outcome.memory for outcome in outcomes.values())
    print(f"  slowest: {slowest.name}, {outcomes[slowest].seconds:.2f} s")
    print(f"  peak memory of the decoding process: {memory:,.0f} MB")
    decoded = {path: one for path, one in outcomes.items() if one.result == "decoded"}
    noted = [path.name for path, outcome in decoded.items() if outcome.detail]
    examples = f", such as {', '.join(noted[:3])}" if noted else ""
    print(f"  decoded with a remark: {len(noted)}{examples}")
    for name in ("TensorFlow", "ffmpeg"):
        print_differences(folder, name, outcomes)
    for path, outcome in outcomes.items():
        if verbose and path not in decoded:
            print(f"    {path.relative_to(folder)}: {outcome.result}: {outcome.detail}")


def print_differences(folder: Path, name: str, outcomes: dict[Path, Outcome]) -> None:
    """Print how many files another decoder reads, and those that differ by more than rounding."""
    found = {path: dict(outcome.differences) for path, outcome in outcomes.items()}
    compared = {path: others[name] for path, others in found.items() if name in others}
    far = {path: apart for path, apart in compared.items() if not 0 <= apart <= CLOSE}
    if compared:
        equal = len(compared) - len(far)
        print(f"  {name} reads {len(compared):,}: {equal:,} equal up to {CLOSE} of 255", end="")
        print(f", {len(far):,} not")
    for path, apart in list(far.items())[:NAMED]:
        print(
            f"    {path.relative_to(folder)}: {f'{apart} of 255' if apart >= 0 else 'other size'}"
        )


if __name__ == "__main__":
    main()
