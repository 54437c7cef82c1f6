"""Compare sides fairly on a noisy machine: in turns, several rounds, medians.

What slows the machine for a while slows every side, so the ratio within one round is steadier than any time. The order
turns round every second round, so that no side always runs on the caches another one has warmed or emptied.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median


def time_rounds(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return {side: seconds of each round}; a side returns its own seconds, and its first call does not count."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            seconds[name].append(sides[name]())
    return seconds


def stopwatch(work: Callable[[], object]) -> Callable[[], float]:
    """Return `work` as a side: it is run, and what comes back are the seconds it took."""

    def side() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return side


def tell(title: str, seconds: Mapping[str, list[float]], items: int, unit: str) -> None:
    """Print a table: the median of each side, and how many times as long as the first side it takes."""
    first = next(iter(seconds.values()))
    width = max(map(len, seconds))
    print(f"\n{title}, {len(first)} rounds of {items} {unit}")
    for name, times in seconds.items():
        ratios = [one / ours for one, ours in zip(times, first, strict=True)]
        print(
            f"  {name:{width}}  {median(times):8.3f} s  {items / median(times):8.1f} {unit}/s"
            f"  x {median(times) / median(first):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
