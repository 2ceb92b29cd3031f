"""How everything here is measured: pairs that alternate, since the machine's own speed comes and goes."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Bench(NamedTuple):
    """What a case is given.

    Attributes:
        folder: of its own, for what it makes.
        scale: of the amounts of data; 1 is what the goals speak of.
        pairs: how often each side is measured.
    """

    folder: Path
    scale: float
    pairs: int

    def bytes(self, full: int) -> int:
        """An amount of data at this scale, in whole MiB."""
        return max(1, round(full * self.scale) >> 20) << 20


class Result(NamedTuple):
    """What was measured.

    Attributes:
        case: its name.
        what: is compared, in words.
        value: what the goal speaks of: the median of the pairs' ratios, or of the values.
        unit: of the value; `x` for a ratio.
        limit: of the goal.
        at_most: whether the goal is met below the limit, rather than above.
        ours, theirs: every measurement, in `measured_in`; `theirs` is empty where nothing is compared.
        low, high: of the ratios, or of the values.
    """

    case: str
    what: str
    value: float
    unit: str
    limit: float
    at_most: bool
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    measured_in: str
    low: float
    high: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def compared(
    bench: Bench,
    case: str,
    what: str,
    limit: float,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    faster: bool = False,
    measured_in: str = "s",
) -> Result:
    """Measures both sides in turn.

    Args:
        limit: of ours / theirs; of theirs / ours where `faster`: how many times as fast we are to be at least.
        ours, theirs: do it once, and return what it took.
    """
    mine: list[float] = []
    others: list[float] = []
    for number in range(bench.pairs):
        for act, taken in ((ours, mine), (theirs, others))[:: 1 if number % 2 else -1]:
            taken.append(act())
    ratios = [theirs / ours if faster else ours / theirs for ours, theirs in zip(mine, others, strict=True)]
    median = statistics.median(ratios)
    return Result(
        case, what, median, "x", limit, not faster, tuple(mine), tuple(others), measured_in, min(ratios), max(ratios)
    )


def measured(bench: Bench, case: str, what: str, limit: float, act: Callable[[], float], unit: str) -> Result:
    """Measures one thing; `limit` is the most that it may be."""
    values = [act() for _ in range(bench.pairs)]
    median = statistics.median(values)
    return Result(case, what, median, unit, limit, True, tuple(values), (), unit, min(values), max(values))


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.monotonic()
    act()
    return time.monotonic() - started


def run(*command: str | Path) -> None:
    """Runs another program; it has to succeed."""
    subprocess.run([str(one) for one in command], check=True, stdout=subprocess.DEVNULL, timeout=1800)


def sync_file(path: Path) -> None:
    """Puts a file on stable storage."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def warm(path: Path) -> None:
    """Reads a file, so that it lies in the page cache."""
    with path.open("rb") as file:
        while file.read(4 << 20):
            pass
