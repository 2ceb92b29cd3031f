"""Moves the blocks of one disk from a reader to a writer."""

import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from snapferry.errors import Stopped, TransferError
from snapferry.transfer.extents import Extents
from snapferry.transfer.journal import NoJournal
from snapferry.transfer.throttle import RateLimiter

if TYPE_CHECKING:  # the seams speak of Extents, which come through this room's door
    from snapferry.seams import Block, DiskReader, DiskWriter, Journal

_PAGE_BYTES: Final = 4096
# shorter runs of zeros are written as they are: a hole costs about as much as writing 64 KiB
_HOLE_BYTES: Final = 64 << 10
_GLANCE_BYTES: Final = 16
_ZERO_STEP_BYTES: Final = 64 << 20


class ReaderFault(TransferError):
    """A reader handed over other bytes than it was asked for."""


class Copied(NamedTuple):
    """What one run of the pump did.

    Attributes:
        read_bytes: that the reader handed over, zeros included.
        zero_bytes: of these, what was zeroed instead of written.
        written_bytes: of these, what was written.
        seconds: from the first request to the last flush.
        skipped_bytes: what the journal said was there already.
    """

    read_bytes: int
    zero_bytes: int
    written_bytes: int
    seconds: float
    skipped_bytes: int = 0


def pump(
    reader: "DiskReader",
    writer: "DiskWriter",
    extents: Extents,
    *,
    stop: Event,
    limiter: RateLimiter | None = None,
    journal: "Journal | None" = None,
    progress: Callable[[int], None] | None = None,
    interval_bytes: int = 64 << 20,
    zeros: Extents | None = None,
) -> Copied:
    """Copies `extents`, less what the journal has, and puts them on stable storage.

    The reader reads ahead in threads of its own while this one writes. When the pump returns, every byte of `extents`
    has been handed over exactly once (or is in the journal) and is flushed; only then may a change id be committed.

    Args:
        reader: the disk as of a snapshot.
        writer: its image.
        extents: what to copy.
        stop: ends the copy within a second.
        limiter: the rate, shared with other pumps; counts bytes that were read, not holes.
        journal: of this round; entries are added behind a flush only.
        progress: called with the bytes newly done, in this thread, after each block.
        interval_bytes: how much is written between two flushes.
        zeros: made to read as zeros first, without being read.

    Raises:
        Stopped: `stop` was set; what was flushed before is in the journal.
        TransferError: reading, writing or flushing failed; all since the last good flush counts as unwritten.
    """
    started = time.monotonic()
    journal = journal or NoJournal()
    done = journal.done()
    left = extents.subtract(done)
    _zero_all(writer, (zeros or Extents.empty()).subtract(done), stop)
    landing = _Landing(writer, journal, left)
    with _closing(reader.read(left, stop)) as blocks:
        for block in blocks:
            if stop.is_set():
                raise Stopped("The copy was told to stop.", "Run it again: it goes on where it was.")
            if limiter and block.data is not None:
                limiter.take(block.length, stop)
            landing.land(block)
            if landing.unflushed_bytes >= interval_bytes:
                landing.flush()
            if progress:
                progress(block.length)
    landing.flush()
    landing.check_complete()
    return Copied(
        landing.zero_bytes + landing.written_bytes,
        landing.zero_bytes,
        landing.written_bytes,
        time.monotonic() - started,
        extents.total_bytes - left.total_bytes,
    )


class _Landing:
    """Writes blocks, and keeps account of what has landed."""

    def __init__(self, writer: "DiskWriter", journal: "Journal", wanted: Extents) -> None:
        self._writer = writer
        self._journal = journal
        self._wanted = wanted
        # bisect over these takes a fifth of numpy's time for one number
        self._starts, self._ends = (array("q", one.tobytes()) for one in (wanted.starts, wanted.ends))
        self._fresh: list[tuple[int, int]] = []
        self._flushed: list[Extents] = []
        self.unflushed_bytes = self.zero_bytes = self.written_bytes = 0

    def land(self, block: "Block") -> None:
        """Writes one block, its long runs of zeros as holes."""
        self._check_wanted(block)
        if block.data is None:
            self._zero(block.offset, block.length)
        else:
            at = 0
            for start, end in zero_runs(block.data):
                self._write(block.offset + at, block.data[at:start])
                self._zero(block.offset + start, end - start)
                at = end
            self._write(block.offset + at, block.data[at:])
        self._fresh.append((block.offset, block.length))
        self.unflushed_bytes += block.length

    def flush(self) -> None:
        """Flushes, and only then notes what landed since the last flush."""
        self._writer.flush()
        landed = Extents.from_pairs(self._fresh)
        if landed.total_bytes != self.unflushed_bytes:
            raise ReaderFault("The reader handed bytes over twice.", "This is a defect of Snapferry: report it.")
        if landed:
            self._journal.add(landed)
            self._flushed.append(landed)
        self._fresh, self.unflushed_bytes = [], 0

    def check_complete(self) -> None:
        """Whether every wanted byte came, and none twice.

        Raises:
            ReaderFault: it's not so.
        """
        starts = np.concatenate([one.starts for one in self._flushed] or [self._wanted.starts])
        lengths = np.concatenate([one.lengths for one in self._flushed] or [self._wanted.lengths])
        got = self.zero_bytes + self.written_bytes
        if got != self._wanted.total_bytes or Extents.of(starts, lengths) != self._wanted:
            raise ReaderFault(
                f"The reader handed over {got} bytes, not just the {self._wanted.total_bytes} that were asked for.",
                "This is a defect of Snapferry: report it.",
            )

    def _check_wanted(self, block: "Block") -> None:
        run = bisect_right(self._starts, block.offset) - 1
        inside = run >= 0 and block.length > 0 and block.offset + block.length <= self._ends[run]
        if not inside or (block.data is not None and block.data.nbytes != block.length):
            raise ReaderFault(
                f"The reader handed over {block.length} bytes at offset {block.offset}, which nobody asked for.",
                "This is a defect of Snapferry: report it.",
            )

    def _write(self, offset: int, data: memoryview) -> None:
        if data:
            self._writer.write(offset, data)
            self.written_bytes += data.nbytes

    def _zero(self, offset: int, length: int) -> None:
        self._writer.zero(offset, length)
        self.zero_bytes += length


def zero_runs(data: memoryview) -> list[tuple[int, int]]:
    """(start, end) of the runs of zeros in `data`, by pages of 4 KiB, that are worth a hole: 64 KiB, or all of it."""
    if data.nbytes <= _HOLE_BYTES and any(data[:_GLANCE_BYTES]):
        return []  # only zeros from its first byte to its last were worth a hole
    whole = data.nbytes // _PAGE_BYTES * _PAGE_BYTES
    pages = np.frombuffer(data[:whole], dtype=np.uint64).reshape(-1, _PAGE_BYTES // 8)
    # the largest word of a page: the fastest reduction numpy has for this, about 25 GB/s
    zero = pages.max(axis=1) == 0
    if whole < data.nbytes:
        zero = np.append(zero, not np.frombuffer(data[whole:], dtype=np.uint8).any())
    if not zero.any():
        return []
    edges = np.flatnonzero(np.diff(zero, prepend=False, append=False)) * _PAGE_BYTES
    runs = np.minimum(edges, data.nbytes).reshape(-1, 2)
    worth = np.minimum(_HOLE_BYTES, data.nbytes)
    return [(start, end) for start, end in runs.tolist() if end - start >= worth]


def _zero_all(writer: "DiskWriter", zeros: Extents, stop: Event) -> None:
    """In steps, because a file system without holes has to write them."""
    for start, length in zip(*(one.tolist() for one in zeros.split(_ZERO_STEP_BYTES)), strict=True):
        if stop.is_set():
            raise Stopped("The copy was told to stop.", "Run it again: it goes on where it was.")
        writer.zero(start, length)


@contextmanager
def _closing(blocks: "Iterator[Block]") -> "Iterator[Iterator[Block]]":
    """Ends a reader's generator at once when the copy fails, with its threads and connections."""
    try:
        yield blocks
    finally:
        if isinstance(blocks, Generator):
            blocks.close()
