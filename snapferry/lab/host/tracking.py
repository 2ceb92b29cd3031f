"""Change tracking of one disk: which 64 KiB blocks the guest changed between two points in time."""

import random
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snapferry.lab.host.errors import HostError

BLOCK_BYTES = 64 << 10

Blocks = NDArray[np.int64]


class Page(NamedTuple):
    """One answer to a change query: it speaks of [start, start + length), and names the changed runs in there."""

    start: int
    length: int
    areas: list[tuple[int, int]]


class ChangeTracker:
    """Counts points in time and keeps the blocks that changed between each and the next.

    Point n is named by the change id `uuid/n`; a snapshot makes a new point. Epoch n holds what changed between
    point n and point n + 1.
    """

    def __init__(self, uuid: str, snapshots_present: bool) -> None:
        self.uuid = uuid
        self.snapshots_present = snapshots_present
        """Whether snapshots existed when tracking was enabled: then the allocated areas can't be told."""
        self.point = 1
        self._epochs: dict[int, Blocks] = {}
        self._current: set[int] = set()

    @property
    def change_id(self) -> str:
        return f"{self.uuid}/{self.point}"

    def mark(self, offset: int, length: int) -> None:
        """Notes a change of these bytes."""
        self._current.update(range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)))

    def snapshot(self) -> str:
        """Makes a new point in time; its change id."""
        self._epochs[self.point] = _sorted(self._current)
        self._current = set()
        self.point += 1
        return self.change_id

    def revert(self, change_id: str) -> None:
        """Goes back to the point `change_id` and forgets what came after it, as the tracking file does."""
        self.point = self._sequence(change_id)
        self._epochs = {number: blocks for number, blocks in self._epochs.items() if number < self.point}
        self._current = set()

    def changed(self, change_id: str, until: str | None) -> Blocks:
        """The blocks that changed from the point `change_id` to the point `until`, or up to now.

        Raises:
            HostError: file_fault: another UUID, no sequence, or one that lies after `until`.
        """
        base, end = self._sequence(change_id), self._sequence(until) if until else self.point
        if base > end:
            raise HostError("file_fault", f"Error caused by file: change id {change_id} lies in the future.")
        epochs = [self._epochs[number] for number in range(base, end)]
        if until is None:
            epochs.append(_sorted(self._current))
        changed: Blocks = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *epochs]))
        return changed

    def _sequence(self, change_id: str) -> int:
        uuid, _, number = change_id.rpartition("/")
        if uuid != self.uuid or not number.isascii() or not number.isdigit():
            raise HostError("file_fault", f"Error caused by file: change id {change_id} isn't known.")
        if not 1 <= int(number) <= self.point:
            raise HostError("file_fault", f"Error caused by file: change id {change_id} lies in the future.")
        return int(number)


def new_uuid(rng: random.Random) -> str:
    """A change tracking UUID as vSphere writes it: `52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63`."""
    words = [f"{byte:02x}" for byte in b"\x52" + rng.randbytes(15)]
    return " ".join(words[:8]) + "-" + " ".join(words[8:])


def block_runs(blocks: Blocks, capacity_bytes: int) -> NDArray[np.int64]:
    """Rows of (start, end) in bytes of the runs among sorted blocks, clipped at the disk's end."""
    if not len(blocks):
        return np.empty((0, 2), dtype=np.int64)
    first = np.concatenate(([True], np.diff(blocks) > 1))
    last = np.concatenate((first[1:], [True]))
    runs = np.stack([blocks[first], blocks[last] + 1], axis=1) * BLOCK_BYTES
    clipped: NDArray[np.int64] = np.minimum(runs, capacity_bytes)
    return clipped


def with_false_blocks(runs: NDArray[np.int64], capacity_bytes: int, count: int, seed: str) -> NDArray[np.int64]:
    """The runs, and so many blocks that may not have changed; chosen by the seed."""
    if not count:
        return runs
    rng = random.Random(seed)
    blocks = rng.choices(range(-(-capacity_bytes // BLOCK_BYTES)), k=count)
    named = [range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)) for start, end in runs.tolist()]
    return block_runs(_sorted({*blocks, *(block for one in named for block in one)}), capacity_bytes)


def page(runs: NDArray[np.int64], capacity_bytes: int, start: int, max_extents: int, rng: random.Random) -> Page:
    """One page of an answer, from byte `start` on, of at most `max_extents` areas.

    Now and then (about one page in four) a page is empty although more follow: it speaks only of the unchanged bytes
    before the next area. An area that `start` falls into is cut there.
    """
    begin = int(np.searchsorted(runs[:, 1], start, side="right"))
    left = len(runs) - begin
    if not left:
        return Page(start, capacity_bytes - start, [])
    gap = int(runs[begin, 0]) - start
    if gap > 0 and rng.random() < 0.25:
        return Page(start, gap, [])
    chosen = runs[begin : begin + max_extents].copy()
    chosen[0, 0] = max(int(chosen[0, 0]), start)
    areas = [(low, high - low) for low, high in chosen.tolist()]
    end = capacity_bytes if left <= max_extents else int(chosen[-1, 1])
    return Page(start, end - start, areas)


def _sorted(blocks: Iterable[int]) -> Blocks:
    found: Blocks = np.sort(np.fromiter(blocks, dtype=np.int64))
    return found
