"""The seeded content of a disk when the lab starts."""

import random

import numpy as np
from numpy.typing import NDArray

from snapferry.lab.host.extents import FlatExtent
from snapferry.vmdk.sesparse import GRAIN_BYTES, SECTOR

_CHUNK_BYTES = 8 << 20


def data_runs(capacity_bytes: int, data_bytes: int, runs: int, rng: random.Random) -> list[tuple[int, int]]:
    """Where the data lies: (start, length) runs spread over the disk; the first starts at 0, the last ends the disk."""
    data_bytes = min(data_bytes, capacity_bytes) // SECTOR * SECTOR
    if not data_bytes:
        return []
    runs = max(1, min(runs, data_bytes // GRAIN_BYTES))
    slot = capacity_bytes // runs // GRAIN_BYTES * GRAIN_BYTES
    length = min(slot, data_bytes // runs // GRAIN_BYTES * GRAIN_BYTES)
    rest = data_bytes - length * (runs - 1)
    places = []
    for number in range(runs - 1):
        room = (slot - length) // GRAIN_BYTES
        shift = rng.randint(0, room) * GRAIN_BYTES if number else 0
        places.append((number * slot + shift, length))
    return [*places, (capacity_bytes - rest, rest)]


def fill(extent: FlatExtent, runs: list[tuple[int, int]], seed: int) -> None:
    """Writes incompressible data into the runs: random words, scrambled anew for each chunk, so no two are alike."""
    generator = np.random.PCG64(seed)
    pool: NDArray[np.uint64] = generator.random_raw(_CHUNK_BYTES // 8)
    words = np.empty_like(pool)
    for start, length in runs:
        for offset in range(start, start + length, _CHUNK_BYTES):
            np.bitwise_xor(pool, np.uint64(generator.random_raw()), out=words)
            extent.write(offset, words.data.cast("B")[: start + length - offset])
