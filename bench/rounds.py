"""Compare sides fairly on a noisy machine: by turns, in several rounds, with medians.

Other programs slow all sides for a while, so the ratio within a round varies less than the times.
Every second round runs in reverse order, so that no side always finds the caches of another one.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median


def time_rounds(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return {side: seconds of each round}.

    A side measures and returns its own seconds. Its first call does not count.
    """
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            seconds[name].append(sides[name]())
    return seconds


def stopwatch(work: Callable[[], object]) -> Callable[[], float]:
    """Return a side that runs `work` and returns its seconds."""

    def side() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return side


def print_table(title: str, seconds: Mapping[str, list[float]], items: int, unit: str) -> None:
    """Print the median of each side, and its ratio to the first side."""
    first = next(iter(seconds.values()))
    width = max(map(len, seconds))
    print(f"\n{title}, {len(first)} rounds of {items} {unit}")
    for name, times in seconds.items():
        ratios = [one / ours for one, ours in zip(times, first, strict=True)]
        print(
            f"  {name:{width}}  {median(times):8.3f} s  {items / median(times):8.1f} {unit}/s"
            f"  x {median(times) / median(first):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
