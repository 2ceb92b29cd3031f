"""The guest's writes: a seeded workload, and the thread that plays it."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from snapferry.lab.config import Workload
from snapferry.vmdk.sesparse import GRAIN_BYTES, SECTOR

_POOL_BYTES = 8 << 20
_HOT_SHARE = 0.9
_LONGEST_LAG_SECONDS = 2.0
"""A writer that is this far behind, after a long stun, doesn't try to catch up."""


class Kind(StrEnum):
    """What a write does to its bytes."""

    DATA = "data"
    ZEROS = "zeros"
    UNMAP = "unmap"


class Write(NamedTuple):
    """One write of the guest: due so many seconds after power-on."""

    due_seconds: float
    sequence: int
    disk: int
    offset: int
    length: int
    kind: Kind


def rate_at(workload: Workload, seconds: float) -> float:
    """Bytes a second at this time after power-on."""
    settle = workload.settle_seconds
    if workload.start_rate_bytes is None or seconds >= settle:
        return workload.rate_bytes
    return workload.start_rate_bytes + (workload.rate_bytes - workload.start_rate_bytes) * seconds / settle


def writes(workload: Workload, capacities: Sequence[int], seed: int, first_sequence: int) -> Iterator[Write]:
    """The writes in order; the same arguments give the same ones, however fast they are played."""
    rng = random.Random(seed)
    places = [_Places(workload, capacity, rng) for capacity in capacities]
    due, sequence = 0.0, first_sequence
    while True:
        rate = rate_at(workload, due)
        if rate < 1:
            if due >= workload.settle_seconds:
                return
            due += 0.1
            continue
        late = workload.late_disks_after_seconds
        disk = 0 if late is not None and due < late else rng.randrange(len(places))
        offset, length = places[disk].next(rng)
        draw = rng.random()
        kind = Kind.ZEROS if draw < workload.zeros else Kind.DATA
        if workload.zeros <= draw < workload.zeros + workload.unmaps:
            kind = Kind.UNMAP
        yield Write(due, sequence, disk, offset, length, kind)
        sequence += 1
        due += length / rate


class _Places:
    """Where the writes of one disk go."""

    def __init__(self, workload: Workload, capacity: int, rng: random.Random) -> None:
        self._capacity = capacity
        self._size = max(SECTOR, min(workload.write_bytes, capacity) // SECTOR * SECTOR)
        self._blocks = -(-capacity // self._size)
        self._hot_blocks = min(self._blocks, workload.hot_bytes // self._size)
        self._hot_start = rng.randrange(self._blocks - self._hot_blocks + 1)
        self._sequential = workload.sequential
        self._front = rng.randrange(self._blocks)

    def next(self, rng: random.Random) -> tuple[int, int]:
        """(offset, length) of the next write; the disk's last bytes have their turn like any others, and then some."""
        shift = 0
        if rng.random() < self._sequential:
            block = self._front
            self._front = (self._front + 1) % self._blocks
        elif self._hot_blocks and rng.random() < _HOT_SHARE:
            block = self._hot_start + rng.randrange(self._hot_blocks)
        elif rng.random() < 0.1:
            block = self._blocks - 1
        else:
            block = rng.randrange(self._blocks)
            shift = rng.randrange(0, self._size, min(self._size, GRAIN_BYTES)) if rng.random() < 0.2 else 0
        offset = min(block * self._size + shift, (self._capacity - 1) // SECTOR * SECTOR)
        return offset, min(self._size, self._capacity - offset)


class Contents:
    """The bytes of each data write: random ones that are used again, with the write's number in every 4 KiB."""

    def __init__(self, seed: int) -> None:
        self._pool = np.random.PCG64(seed).random_raw(_POOL_BYTES // 8)

    def of(self, write: Write) -> memoryview:
        """The bytes of this write, as many as its length."""
        words = write.length // 8
        start = write.sequence * 509 % max(1, len(self._pool) - words)
        data = np.resize(self._pool[start : start + words], words)
        data[:: GRAIN_BYTES // 8] = write.sequence
        return data.data.cast("B")


class Writer(threading.Thread):
    """Plays writes at their pace until it is stopped.

    Args:
        stream: the writes, in order.
        apply: does one write; it is wholly before or after a snapshot.
        may_write: the VM is paused while it says no.
    """

    def __init__(
        self, stream: Iterator[Write], apply: Callable[[Write], None], name: str, may_write: Callable[[], bool]
    ) -> None:
        super().__init__(name=f"writer-{name}", daemon=True)
        self._stream = stream
        self._apply = apply
        self._may_write = may_write
        self._stop_asked = threading.Event()
        self.last_sequence = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        start = time.monotonic()
        try:
            for write in self._stream:
                wait = start + write.due_seconds - time.monotonic()
                # Short waits are saved up: a thread that wakes for each write costs more than the writes.
                if wait > 0.02 and self._stop_asked.wait(wait):
                    return
                if self._stop_asked.is_set():
                    return
                if wait < -_LONGEST_LAG_SECONDS:
                    start -= wait
                while not self._may_write():
                    if self._stop_asked.wait(0.05):
                        return
                self._apply(write)
                self.last_sequence = write.sequence
        except Exception as failure:  # noqa: BLE001 (told to whoever stops the writer)
            self.failure = failure

    def stop(self) -> int:
        """Ends the thread; the last write's number.

        Raises:
            Exception: what made a write fail.
        """
        self._stop_asked.set()
        self.join(timeout=30)
        if self.failure:
            raise self.failure
        return self.last_sequence
