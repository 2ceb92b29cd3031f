"""A million changed areas of a 1 TiB disk, from the arrays of change tracking to the list of requests."""

import numpy as np

from benchmarks.frame import Bench, Result, measured, seconds
from snapferry.transfer import Extents

CAPACITY_BYTES = 1 << 40
COUNT = 1_000_000
REQUEST_BYTES = 1 << 20


def measure(bench: Bench) -> Result:
    """In seconds."""
    count = round(COUNT * bench.scale)
    rng = np.random.default_rng(1)
    starts = rng.permutation(CAPACITY_BYTES >> 16)[:count] << 16
    lengths = rng.integers(1, 16, count) << 12
    done = Extents.of(starts[: count // 10], lengths[: count // 10])

    def plan() -> None:
        changed = Extents.of(starts, lengths, CAPACITY_BYTES)
        pieces, _ = changed.coalesce(4096).subtract(done).split(REQUEST_BYTES)
        assert len(pieces)

    return measured(bench, "extents", f"{count:,} extents to a list of requests", 1.0, lambda: seconds(plan), "s")
