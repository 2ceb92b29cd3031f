"""Writes only what differs from what an image holds: how a disk in doubt is brought up to date.

The source's blocks have to come here anyway, since no route hashes at the source. So both sides' bytes are compared
themselves, which is exact, and several times faster than hashing either of them.
"""

from collections.abc import Iterator
from threading import Event
from typing import Final

import numpy as np

from snapferry.errors import Stopped
from snapferry.writers.raw import RawFileWriter

_PIECE_BYTES: Final = 2 << 20
_UNIT_BYTES: Final = 64 << 10
"""What is written again where a byte of it differs."""


class ComparingWriter:
    """A writer over an image that holds something already; a `DiskWriter`.

    The image is read from its storage, not from the page cache, which may hold what a failed flush lost. So a block
    that is left alone is on stable storage as surely as one that is written and flushed.

    Args:
        image: closed with this writer.
        stop: looked at before each piece, since a hole of the source may be as long as the disk.

    Raises:
        FlushFailed: the image's storage is failing.
    """

    def __init__(self, image: RawFileWriter, stop: Event) -> None:
        self._image = image
        self._stop = stop
        self._held = memoryview(bytearray(_PIECE_BYTES))
        self.differing_bytes = 0
        """What was written or zeroed so far, because it differed."""
        image.flush()  # which drops the pages, too

    @property
    def capacity_bytes(self) -> int:
        return self._image.capacity_bytes

    def write(self, offset: int, data: memoryview) -> None:
        """Writes what of `data` differs from what is there.

        Raises:
            WriteFailed: as `RawFileWriter.write`, and where the image can't be read.
            Stopped: `stop` was set.
        """
        for at in range(0, data.nbytes, _PIECE_BYTES):
            piece = data[at : at + _PIECE_BYTES]
            held = self._read(offset + at, piece.nbytes)
            for start, end in differing_runs(piece, held):
                self._image.write(offset + at + start, piece[start:end])
                self.differing_bytes += end - start

    def zero(self, offset: int, length: int) -> None:
        """Makes holes where anything but zeros is there.

        Raises:
            WriteFailed: as `write`.
        """
        for start, end in self._pieces(offset, offset + length):
            held = self._read(start, end - start)
            if np.frombuffer(held, dtype=np.uint8).any():
                self._image.zero(start, end - start)
                self.differing_bytes += end - start

    def flush(self) -> None:
        """As `RawFileWriter.flush`."""
        self._image.flush()

    def close(self) -> None:
        self._image.close()

    def _read(self, offset: int, length: int) -> memoryview:
        """What the image holds there; the buffer is used again by the next read."""
        if self._stop.is_set():
            raise Stopped("The copy was told to stop.", "Run it again: it goes on where it was.")
        held = self._held[:length]
        self._image.read_into(offset, held)
        return held

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What lies outside the file's holes, in pieces."""
        for low, high in self._image.data_runs(start, end):
            for at in range(low, high, _PIECE_BYTES):
                yield at, min(at + _PIECE_BYTES, high)


def differing_runs(one: memoryview, other: memoryview) -> list[tuple[int, int]]:
    """(start, end) of the runs in which two buffers of one length differ, in units of 64 KiB."""
    # whole 8-byte words first: the fastest comparison that numpy has
    words = one.nbytes // 8 * 8
    equal = np.frombuffer(one[:words], dtype=np.uint64) == np.frombuffer(other[:words], dtype=np.uint64)
    if equal.all() and one[words:] == other[words:]:
        return []
    apart = [
        (start, min(start + _UNIT_BYTES, one.nbytes))
        for start in range(0, one.nbytes, _UNIT_BYTES)
        if one[start : start + _UNIT_BYTES].tobytes() != other[start : start + _UNIT_BYTES].tobytes()
    ]
    runs = apart[:1]
    for start, end in apart[1:]:
        if start == runs[-1][1]:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((start, end))
    return runs
