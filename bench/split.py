"""Simulate how often a split is impossible, and how many images move when images are added.

    python -m bench.split                 # some minutes
    python -m bench.split 8x10 50x20 --seeds 100

For each set, classes x images, a row has the share of seeds in which a split lacks images of a
class: if only the hash assigns images, and with `tasks.split.fill_parts`. It also has the number of
images that move when 1 % (at least one a class) are added, and how many of the splits that the hash
made valid stay the same.
"""

import argparse
import hashlib
from collections.abc import Sequence
from statistics import mean
from unittest.mock import patch

import pandas as pd

from tasks import split
from tasks.errors import UserError
from tasks.params.split import Split

SETS = ("8x10", "4x10", "10x20", "50x20", "10x200")
NO_COPIES = pd.DataFrame({"path_a": [], "path_b": []})
HEADER = (
    f"{'set':8} {'seeds':>6} {'only hash':>11} {'filled':>8} "
    f"{'moved, mean':>12} {'most':>5} {'stay':>10}"
)


def main(words: Sequence[str] | None = None) -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.split",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("sets", nargs="*", default=SETS, metavar="CLASSESxIMAGES")
    parser.add_argument("--seeds", type=int, default=100)
    arguments = parser.parse_args(words)
    print(HEADER)
    for name in arguments.sets:
        classes, images = map(int, name.split("x"))
        print(describe(name, simulate(classes, images, arguments.seeds)), flush=True)


def simulate(classes: int, images: int, seeds: int) -> list[dict[str, float]]:
    """Return the results of each seed: failures without and with `fill_parts`, and moved images.

    `stays` is whether a split that the hash made valid stays the same.
    """
    some, more = table(classes, images), table(classes, max(images + 1, round(images * 1.01)))
    return [_try(some, more, seed) for seed in range(seeds)]


def _try(some: pd.DataFrame, more: pd.DataFrame, seed: int) -> dict[str, float]:
    with patch.object(split, "fill_parts", lambda *_: {}):
        alone = draw(some, seed)
    filled, grown = draw(some, seed), draw(more, seed)
    moved = int((parts(grown)[parts(filled).index] != parts(filled)).sum())
    return {
        "alone": is_invalid(alone),
        "filled": is_invalid(filled),
        "moved": moved,
        "stays": not is_invalid(alone) and parts(alone).equals(parts(filled)),
    }


def table(classes: int, images: int) -> pd.DataFrame:
    """Return a table of files with different contents."""
    rows = [
        (
            f"class{label:02d}/{number:05d}.png",
            "",
            f"class{label:02d}",
            hashlib.sha256(f"{label} {number}".encode()).hexdigest(),
        )
        for label in range(classes)
        for number in range(images)
    ]
    return pd.DataFrame(rows, columns=["path", "subset", "label", "sha256"])


def draw(files: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the split of files without duplicates and patients."""
    return split.assign(files, NO_COPIES, [""] * len(files), Split(seed=seed))


def parts(splits: pd.DataFrame) -> pd.Series:
    """Return the split of each path."""
    return splits.set_index("path").split


def is_invalid(splits: pd.DataFrame) -> bool:
    """Return whether the stage would refuse this split."""
    try:
        split.check_classes(splits)
    except UserError:
        return True
    return False


def describe(name: str, seen: list[dict[str, float]]) -> str:
    """Return the line of a set."""
    share = {key: mean(one[key] for one in seen) for key in ("alone", "filled", "moved")}
    good = sum(not one["alone"] for one in seen)
    stay = f"{sum(one['stays'] for one in seen):.0f} of {good}"
    most = max(one["moved"] for one in seen)
    shares = f"{share['alone']:11.1%} {share['filled']:8.1%}"
    return f"{name:8} {len(seen):6} {shares} {share['moved']:12.2f} {most:5.0f} {stay:>10}"


if __name__ == "__main__":
    main()
