"""Check that every damaged image file gets a prediction or a reason, by the predictor's decoder.

    python -m bench.fuzz --files 5000
    python -m bench.fuzz --files 2000 --write mutants/    # writes the files, for serving.predict

Small files of every format are damaged: bits flip, the end is cut off, the header comes from
another file, sizes become extreme, and parts are lost. A separate process decodes them. If it
crashes or hangs, the number of the file is printed, and the next process continues after it. Equal
seeds and numbers give equal files. Exits with 1 after a crash or a hang.
"""

import argparse
import multiprocessing
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tasks.inference.predictor import Predictor
from tasks.params.model_input import Form
from tests.support.image_files import samples

PATIENCE = 30  # seconds that one file may take
MEMORY = 8 * 2**30  # bytes of address space of the process that decodes
EXTREMES = (0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Outcome = tuple[str, float]  # "usable" or the reason, and seconds


def main() -> None:
    """Decode the files, and print the outcomes."""
    arguments = _arguments()
    if arguments.write:
        write(arguments.write, arguments.seed, arguments.files)
        return
    counts: Counter[str] = Counter()
    slowest, failures = (0.0, -1), []
    for number, (outcome, seconds) in decode_all(arguments.seed, arguments.files):
        counts[outcome] += 1
        slowest = max(slowest, (seconds, number))
        if outcome in ("crash", "hang"):
            failures.append(number)
    for outcome, count in counts.most_common():
        print(f"{count:7,}  {outcome}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"slowest: file {slowest[1]}, {slowest[0]:.2f} s; peak memory: {peak:,.0f} MB")
    if failures:
        sys.exit(f"crashed or hung: {failures}")


def decode_all(seed: int, files: int) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcome of each file by its number; a process that dies or hangs is replaced."""
    number = 0
    while number < files:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(there, seed, number, files)
        )
        process.start()
        there.close()
        try:
            while number < files:
                outcome = (
                    here.recv()
                    if here.poll(PATIENCE + 30 * (number == 0))
                    else ("hang", float(PATIENCE))
                )
                yield number, outcome
                number += 1
                if outcome[0] == "hang":
                    break
        except EOFError:
            yield number, ("crash", 0.0)
            number += 1
        process.kill()
        process.join()


def work(connection: Connection, seed: int, first: int, files: int) -> None:
    """Decode the files from number `first` on, and send the outcome of each."""
    warnings.filterwarnings("ignore")  # Pillow's, of damaged files
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    predictor = Predictor(
        "none",
        "",
        ["a", "b"],
        (Form((32, 32), 3),),
        lambda pixels: (np.zeros((len(pixels), 2)), np.zeros(len(pixels))),
    )
    originals = list(samples().values())
    for number in range(first, files):
        content = mutant(originals, seed, number)
        started = time.perf_counter()
        (answer,) = predictor.predict([content])
        reason = answer.error.partition(":")[0] if answer.error else "usable"
        connection.send((reason, time.perf_counter() - started))


def mutant(originals: list[bytes], seed: int, number: int) -> bytes:
    """Return the damaged file of a number: an original with one to three changes."""
    rng = np.random.default_rng([seed, number])
    content = originals[rng.integers(len(originals))]
    for _ in range(rng.integers(1, 4)):
        change = CHANGES[rng.integers(len(CHANGES))]
        content = change(content, rng, originals) if content else content
    return content


def flip(content: bytes, rng: np.random.Generator, originals: list[bytes]) -> bytes:
    """Flip bits, anywhere or only in the header."""
    hit, reach = bytearray(content), len(content) if rng.random() < 0.5 else min(100, len(content))
    for place in rng.integers(reach, size=rng.integers(1, 20)):
        hit[place] ^= 1 << rng.integers(8)
    return bytes(hit)


def cut(content: bytes, rng: np.random.Generator, originals: list[bytes]) -> bytes:
    """Cut the end off."""
    return content[: rng.integers(len(content))]


def lose(content: bytes, rng: np.random.Generator, originals: list[bytes]) -> bytes:
    """Remove a part, or repeat it."""
    start, length = rng.integers(len(content)), rng.integers(1, 200)
    part = content[start : start + length]
    return (
        content[:start] + (part + part if rng.random() < 0.5 else b"") + content[start + length :]
    )


def splice(content: bytes, rng: np.random.Generator, originals: list[bytes]) -> bytes:
    """Replace the beginning by the beginning of another file."""
    other = originals[rng.integers(len(originals))]
    length = rng.integers(2, 200)
    return other[:length] + content[length:]


def stretch(content: bytes, rng: np.random.Generator, originals: list[bytes]) -> bytes:
    """Write an extreme number, such as a size, into the header."""
    width = int(rng.choice([2, 4]))
    number = int(rng.choice(EXTREMES)) & (256**width - 1)
    place = rng.integers(min(200, len(content)))
    return (
        content[:place]
        + number.to_bytes(width, rng.choice(["big", "little"]))
        + content[place + width :]
    )


def fill(content: bytes, rng: np.random.Generator, originals: list[bytes]) -> bytes:
    """Overwrite a part with noise."""
    start, length = rng.integers(len(content)), rng.integers(1, 100)
    return content[:start] + rng.bytes(int(length)) + content[start + length :]


Change = Callable[[bytes, np.random.Generator, list[bytes]], bytes]
CHANGES: tuple[Change, ...] = (flip, cut, lose, splice, stretch, fill)


def write(folder: Path, seed: int, files: int) -> None:
    """Write the files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = list(samples().values())
    for number in range(files):
        (folder / f"{number:06}.img").write_bytes(mutant(originals, seed, number))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Decode thousands of damaged image files.")
    parser.add_argument("--files", type=int, default=5000, help="number of files (5000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the damage (0)")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="only write the files, to this folder"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
