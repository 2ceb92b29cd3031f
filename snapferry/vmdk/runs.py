"""Runs of a disk and where in which file their bytes lie: what tables say, and what is read."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from snapferry.transfer.extents import Array, Extents

ZEROS: Final = -1
"""Instead of a file's number: the run reads as zeros."""


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """Runs of a disk's bytes, each with its place in a file; four arrays of the same length.

    Attributes:
        offsets: on the disk, in bytes.
        lengths: bytes of each run.
        files: the number of the file, or ZEROS.
        positions: in the file, in bytes; for ZEROS the offset again.
    """

    offsets: Array
    lengths: Array
    files: Array
    positions: Array

    @classmethod
    def merged(cls, offsets: Array, lengths: Array, files: Array, positions: Array) -> Self:
        """These runs, neighbours in the arrays made one where they follow each other on the disk and in the file."""
        if not offsets.size:
            return cls(offsets, lengths, files, positions)
        first = np.empty(offsets.size, dtype=np.bool_)
        first[0] = True
        np.not_equal(offsets[1:], offsets[:-1] + lengths[:-1], out=first[1:])
        first[1:] |= positions[1:] != positions[:-1] + lengths[:-1]
        first[1:] |= files[1:] != files[:-1]
        if first.all():
            return cls(offsets, lengths, files, positions)
        starts = np.flatnonzero(first)
        return cls(offsets[starts], np.add.reduceat(lengths, starts), files[starts], positions[starts])

    @classmethod
    def in_file(cls, extents: Extents, file: int, shift_bytes: int = 0) -> Self:
        """Extents of the disk that lie in a file at their own offset plus `shift_bytes`."""
        files = np.full(len(extents), file, dtype=np.int64)
        return cls(extents.starts, extents.lengths, files, extents.starts + shift_bytes)

    @classmethod
    def zeros(cls, extents: Extents) -> Self:
        """Extents of the disk that read as zeros."""
        return cls.in_file(extents, ZEROS)

    @classmethod
    def joined(cls, parts: "list[Runs]") -> Self:
        """All runs of the parts, one part after the other."""
        names = ("offsets", "lengths", "files", "positions")
        empty = np.empty(0, dtype=np.int64)
        return cls(*(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in names))

    def __len__(self) -> int:
        return self.offsets.size

    @property
    def extents(self) -> Extents:
        """The bytes of the disk that the runs name."""
        return Extents.of(self.offsets, self.lengths)

    def take(self, which: NDArray[np.bool_] | Array) -> "Runs":
        """The runs that a mask or their numbers pick."""
        return Runs(self.offsets[which], self.lengths[which], self.files[which], self.positions[which])

    def moved(self, by_bytes: int) -> "Runs":
        """The same runs further back on the disk."""
        if not by_bytes:
            return self
        positions = np.where(self.files == ZEROS, self.positions + by_bytes, self.positions)
        return Runs(self.offsets + by_bytes, self.lengths, self.files, positions)

    def cut(self, wanted: Extents) -> "Runs":
        """What of the runs lies within `wanted`; the runs are in disk order and apart."""
        ends = self.offsets + self.lengths
        low = np.searchsorted(ends, wanted.starts, side="right")
        counts = np.maximum(np.searchsorted(self.offsets, wanted.ends, side="left") - low, 0)
        before = np.cumsum(counts) - counts
        run = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(low - before, counts)
        offsets = np.maximum(self.offsets[run], np.repeat(wanted.starts, counts))
        lengths = np.minimum(ends[run], np.repeat(wanted.ends, counts)) - offsets
        return Runs(offsets, lengths, self.files[run], self.positions[run] + (offsets - self.offsets[run]))

    def by_position(self) -> "Runs":
        """In the order in which the files have them, merged; zeros come first, in disk order."""
        runs = self.take(np.lexsort((self.positions, self.files)))
        return Runs.merged(runs.offsets, runs.lengths, runs.files, runs.positions)

    def overlapping(self) -> int | None:
        """The number of a file of which two runs name the same byte, for runs ordered `by_position`."""
        same = (self.files[1:] == self.files[:-1]) & (self.files[1:] != ZEROS)
        bad = same & (self.positions[1:] < self.positions[:-1] + self.lengths[:-1])
        return int(self.files[1:][bad][0]) if bad.any() else None

    def in_requests(self, max_bytes: int, gap_bytes: int = 0) -> "tuple[Runs, Array]":
        """Runs ordered `by_position`, cut up for reading.

        Args:
            max_bytes: the longest range that is read at once.
            gap_bytes: what a range may go over between two runs, to be thrown away.

        Returns:
            The pieces, and the edges of the requests: pieces `edges[n]` to `edges[n + 1]` follow each other in one file
            and are read at once, or are one run of zeros of any length.
        """
        if not len(self):
            return self, np.zeros(1, dtype=np.int64)
        apart = np.ones(len(self), dtype=np.bool_)
        apart[1:] = (self.files[1:] != self.files[:-1]) | (self.files[1:] == ZEROS)
        apart[1:] |= self.positions[1:] > self.positions[:-1] + self.lengths[:-1] + gap_bytes
        stretch = np.cumsum(apart) - 1
        within = self.positions - self.positions[apart][stretch]
        chunk = within // max_bytes
        counts = np.where(self.files == ZEROS, 1, (within + self.lengths - 1) // max_bytes - chunk + 1)
        row = np.repeat(np.arange(len(self)), counts)
        number = chunk[row] + np.arange(row.size) - (np.cumsum(counts) - counts)[row]
        whole = self.files[row] == ZEROS
        starts = np.where(whole, within[row], np.maximum(within[row], number * max_bytes))
        ends = within[row] + self.lengths[row]
        ends = np.where(whole, ends, np.minimum(ends, (number + 1) * max_bytes))
        inside = starts - within[row]
        pieces = Runs(self.offsets[row] + inside, ends - starts, self.files[row], self.positions[row] + inside)
        first = np.ones(row.size, dtype=np.bool_)
        first[1:] = (np.diff(stretch[row]) != 0) | (np.diff(number) != 0)
        return pieces, np.append(np.flatnonzero(first), row.size)
