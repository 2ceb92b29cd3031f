"""From the extents of a round to what is read where: fast, whatever the number of runs."""

import time

import numpy as np
import pytest

from snapferry.transfer import Extents
from snapferry.vmdk import ZEROS, Chain, Layer, Runs
from snapferry.vmdk.chain import Part

from .builders import descriptor
from .fuzzing import MemoryFile

TIB = 1 << 40
MILLION = 1_000_000


def chain_of(*layers: Extents, capacity: int = TIB) -> Chain:
    """A disk whose layers hold these bytes at their own offsets; the base is first."""
    said = descriptor(512, "vmfs", "VMFS", "disk.vmdk")
    files = tuple(MemoryFile(b"", capacity) for _ in layers)
    made = [(Part(0, capacity, number, Runs.in_file(held, number)),) for number, held in enumerate(layers)]
    return Chain(tuple(Layer("disk.vmdk", said, parts) for parts in made), files, lambda: 0)


def scattered(count: int, seed: int) -> Extents:
    """So many runs of 64 KiB that don't touch, all over a disk of 1 TiB."""
    places = np.random.default_rng(seed).choice(TIB // 131072, count, replace=False)
    return Extents.of(places * 131072, np.full(count, 65536))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2])
def test_a_million_extents_become_a_work_list_within_a_second(layers: int) -> None:
    delta = [scattered(MILLION, 1)] * (layers - 1)
    chain = chain_of(Extents.whole(TIB), *delta)
    extents = scattered(MILLION, 2)
    took = []
    for _ in range(3):
        started = time.process_time()
        pieces = [plan.in_requests(2 << 20)[0] for plan in chain.plans(extents)]
        took.append(time.process_time() - started)
    assert sum(int(piece.lengths.sum()) for piece in pieces) == extents.total_bytes
    assert min(took) < 1.0


@pytest.mark.parametrize("gap_bytes", [0, 512, 5000])
def test_requests_are_never_longer_than_asked_for_and_miss_no_byte(gap_bytes: int) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.choice([512, 4096, 100_000, 3 << 20], 3000)
    starts = np.cumsum(lengths) - lengths + np.arange(3000) // 7 * 512
    order = rng.permutation(3000)
    offsets = (np.cumsum(lengths[order]) - lengths[order])[np.argsort(order)]
    files = np.where(rng.random(3000) < 0.2, ZEROS, 0)
    runs = Runs(offsets, lengths, files, np.where(files == ZEROS, offsets, starts)).by_position()
    pieces, edges = runs.in_requests(1 << 20, gap_bytes)
    assert pieces.extents == runs.extents == Extents.whole(int(lengths.sum()))
    assert int(pieces.lengths.sum()) == int(lengths.sum())
    ends = pieces.positions + pieces.lengths
    sizes = ends[edges[1:] - 1] - pieces.positions[edges[:-1]]
    data = pieces.files[edges[:-1]] != ZEROS
    assert sizes[data].max() == 1 << 20
    for first, behind in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        within = slice(first, behind)
        gaps = pieces.positions[within][1:] - ends[within][:-1]
        assert ((gaps >= 0) & (gaps <= gap_bytes)).all()
        assert len(set(pieces.files[within].tolist())) == 1
