"""Readers, writers and journals of the seams' protocols that tests can look into."""

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from snapferry.errors import TransferError
from snapferry.seams import Block
from snapferry.transfer import Extents


class MemoryReader:
    """A disk in memory; its blocks come in a random order, zeros as such where `knows_zeros`."""

    def __init__(self, disk: bytes, block_bytes: int = 64 << 10, *, knows_zeros: bool = False, seed: int = 1) -> None:
        self.disk = disk
        self.block_bytes = block_bytes
        self.knows_zeros = knows_zeros
        self.order = random.Random(seed)
        self.asked = Extents.empty()
        self.closed = False
        self.fails_after: int | None = None

    @property
    def capacity_bytes(self) -> int:
        return len(self.disk)

    def read(self, extents: Extents, stop: threading.Event) -> Iterator[Block]:
        self.asked = extents
        starts, lengths = extents.split(self.block_bytes)
        runs = list(zip(starts.tolist(), lengths.tolist(), strict=True))
        self.order.shuffle(runs)
        buffer = bytearray(self.block_bytes)
        try:
            for number, (start, length) in enumerate(runs):
                if number == self.fails_after:
                    raise TransferError("The host is gone.")
                buffer[:length] = self.disk[start : start + length]
                zero = self.knows_zeros and not any(buffer[:length])
                yield Block(start, length, None if zero else memoryview(buffer)[:length])
                buffer[:] = b"\xee" * self.block_bytes  # data is only valid until the iterator is advanced
        finally:
            self.closed = True

    def close(self) -> None:
        self.closed = True


class MemoryWriter:
    """An image in memory of which only what was flushed survives; a failed flush loses what came since the last."""

    def __init__(self, image: bytes) -> None:
        self.stable = bytearray(image)
        self.cached = bytearray(image)
        self.written = 0
        self.zeroed = 0
        self.flushes = 0
        self.fails_at_flush: int | None = None

    @property
    def capacity_bytes(self) -> int:
        return len(self.stable)

    def write(self, offset: int, data: memoryview) -> None:
        self.cached[offset : offset + data.nbytes] = data
        self.written += data.nbytes

    def zero(self, offset: int, length: int) -> None:
        self.cached[offset : offset + length] = bytes(length)
        self.zeroed += length

    def flush(self) -> None:
        self.flushes += 1
        if self.flushes == self.fails_at_flush:
            self.cached[:] = self.stable
            raise TransferError("The storage failed.")
        self.stable[:] = self.cached

    def close(self) -> None:
        self.cached[:] = self.stable


class CheckedJournal:
    """A journal that looks, at each entry, whether the image has those bytes on stable storage."""

    def __init__(self, disk: bytes, writer: MemoryWriter) -> None:
        self.disk = disk
        self.writer = writer
        self.entries: list[Extents] = []

    def done(self) -> Extents:
        return Extents.from_pairs(run for entry in self.entries for run in entry)

    def add(self, extents: Extents) -> None:
        for start, length in extents:
            assert self.writer.stable[start : start + length] == self.disk[start : start + length]
        self.entries.append(extents)

    def clear(self) -> None:
        self.entries.clear()


@pytest.fixture
def memory_reader() -> Callable[..., MemoryReader]:
    return MemoryReader


@pytest.fixture
def memory_writer() -> Callable[..., MemoryWriter]:
    return MemoryWriter


@pytest.fixture
def checked_journal() -> Callable[..., CheckedJournal]:
    return CheckedJournal
