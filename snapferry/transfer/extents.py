"""Runs of bytes on a disk, as one frozen value over two arrays."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snapferry.errors import TransferError

Array = NDArray[np.int64]

_MOST: Final = np.iinfo(np.int64).max


class BadExtents(TransferError):
    """Runs that can't be on the disk: negative, past its end, or no whole numbers."""


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Extents:
    """A set of bytes of one disk: sorted, disjoint, non-empty runs, of which no two touch.

    Two sets of the same bytes are equal, however they came to be. Made by `of`, `from_pairs`, `whole` and `empty`; the
    arrays can't be written to.

    Attributes:
        starts: byte offsets, ascending.
        lengths: bytes of each run.
    """

    starts: Array
    lengths: Array

    def __post_init__(self) -> None:
        self.starts.flags.writeable = False
        self.lengths.flags.writeable = False

    @classmethod
    def of(cls, starts: ArrayLike, lengths: ArrayLike, capacity_bytes: int | None = None) -> "Extents":
        """The bytes that any of these runs names; the runs may come in any order, overlap, touch or be empty.

        Args:
            starts: byte offsets.
            lengths: bytes, as many as there are offsets.
            capacity_bytes: where given, a run past it is refused.

        Raises:
            BadExtents: a run is negative, too large, outside the capacity, or no whole number.
        """
        first, size = _whole_numbers(starts), _whole_numbers(lengths)
        if first.shape != size.shape or first.ndim != 1:
            raise BadExtents(f"{first.size} offsets came with {size.size} lengths.")
        limit = _MOST if capacity_bytes is None else capacity_bytes
        bad = (first < 0) | (size < 0) | (first > limit) | (size > limit - first)
        if bad.any():
            worst = int(np.argmax(bad))
            raise BadExtents(
                f"The run of {size[worst]} bytes at offset {first[worst]} isn't on a disk of {limit} bytes.",
                "Doubt what named it, and copy the disk in full.",
            )
        return _merged(first, first + size)

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[int, int]], capacity_bytes: int | None = None) -> "Extents":
        """The bytes of these (offset, length) pairs; otherwise as `of`."""
        rows = list(pairs)
        return cls.of([start for start, _ in rows], [length for _, length in rows], capacity_bytes)

    @classmethod
    def whole(cls, capacity_bytes: int) -> "Extents":
        """Every byte of a disk of `capacity_bytes`."""
        return cls.of([0], [capacity_bytes])

    @classmethod
    def empty(cls) -> "Extents":
        """No byte."""
        return cls.of([], [])

    @property
    def ends(self) -> Array:
        """The offset behind each run."""
        return self.starts + self.lengths

    @property
    def end(self) -> int:
        """The offset behind the last run; 0 where there is none."""
        return int(self.starts[-1] + self.lengths[-1]) if len(self) else 0

    @property
    def total_bytes(self) -> int:
        """How many bytes the set has."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return self.starts.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each run, as plain ints."""
        return zip(self.starts.tolist(), self.lengths.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extents):
            return NotImplemented
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        return hash((self.starts.tobytes(), self.lengths.tobytes()))

    def __repr__(self) -> str:
        return f"<{len(self)} extents, {self.total_bytes} bytes, end {self.end}>"

    def union(self, other: "Extents") -> "Extents":
        """The bytes in either."""
        return _merged(np.concatenate((self.starts, other.starts)), np.concatenate((self.ends, other.ends)))

    def subtract(self, other: "Extents") -> "Extents":
        """The bytes that aren't in `other`."""
        return self._segments(other, inside=False) if len(other) else self

    def intersect(self, other: "Extents") -> "Extents":
        """The bytes in both."""
        return self._segments(other, inside=True)

    def complement(self, capacity_bytes: int) -> "Extents":
        """The bytes of a disk of `capacity_bytes` that aren't in the set."""
        starts = np.concatenate(([0], self.ends))
        ends = np.concatenate((self.starts, [capacity_bytes]))
        return _merged(np.minimum(starts, capacity_bytes), np.minimum(ends, capacity_bytes))

    def coalesce(self, gap_bytes: int) -> "Extents":
        """Runs that lie at most `gap_bytes` apart made one; takes in bytes of the gaps, and saves requests."""
        return _merged(self.starts, self.ends, gap_bytes)

    def aligned(self, block_bytes: int, capacity_bytes: int | None = None) -> "Extents":
        """Each run grown to whole blocks; the last one ends at `capacity_bytes` where that is given."""
        starts = self.starts // block_bytes * block_bytes
        ends = -(-self.ends // block_bytes) * block_bytes
        return _merged(starts, ends if capacity_bytes is None else np.minimum(ends, capacity_bytes))

    def split(self, max_bytes: int) -> tuple[Array, Array]:
        """Offsets and lengths of pieces of at most `max_bytes`, in order; only the last piece of a run is shorter."""
        counts = -(-self.lengths // max_bytes)
        first = np.cumsum(counts) - counts
        within = (np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(first, counts)) * max_bytes
        starts = np.repeat(self.starts, counts) + within
        return starts, np.minimum(np.repeat(self.lengths, counts) - within, max_bytes)

    def _segments(self, other: "Extents", *, inside: bool) -> "Extents":
        """Cuts the disk at every edge of both sets and keeps the segments of ours that are, or aren't, in `other`."""
        # not np.unique, whose hashing takes a hundred times as long on numbers as regular as these; no harm in twins
        edges = np.sort(np.concatenate((self.starts, self.ends, other.starts, other.ends)))
        starts, ends = edges[:-1], edges[1:]
        keep = self._covers(starts) & (other._covers(starts) == inside)
        return _merged(starts[keep], ends[keep])

    def _covers(self, points: Array) -> NDArray[np.bool_]:
        begun = np.searchsorted(self.starts, points, side="right")
        return begun > np.searchsorted(self.ends, points, side="right")


def _whole_numbers(values: ArrayLike) -> Array:
    array = np.asarray(values)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu" or (array.dtype == np.uint64 and array.max() > _MOST):
        raise BadExtents("Offsets and lengths have to be whole numbers below 2^63.")
    return array.astype(np.int64)


def _merged(starts: Array, ends: Array, gap_bytes: int = 0) -> Extents:
    """Sorts the runs [start, end), drops empty ones, and makes one of those at most `gap_bytes` apart."""
    real = ends > starts
    if not real.all():
        starts, ends = starts[real], ends[real]
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
    reach = np.maximum.accumulate(ends)
    apart = starts[1:] - reach[:-1] > gap_bytes
    begins = np.concatenate((np.ones(min(starts.size, 1), dtype=np.bool_), apart))
    finishes = np.concatenate((apart, np.ones(min(starts.size, 1), dtype=np.bool_)))
    merged_starts = starts[begins]
    return Extents(merged_starts, reach[finishes] - merged_starts)
