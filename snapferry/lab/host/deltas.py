"""The sparse files of deltas, as hosts write them: seSparse and COWD."""

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from snapferry.lab.host.extents import create_file, runs_of, write_fully
from snapferry.vmdk import cowd, sesparse
from snapferry.vmdk.tables import DATA, SECTOR, UNMAPPED, ZERO, Decoded

_GROW_BYTES = 64 << 20
_ZEROS = memoryview(bytes(1 << 20))
_TABLE_ENTRIES = 4096  # in both formats

Entries = NDArray[np.unsignedinteger]
Positions = NDArray[np.int64]


class DeltaExtent(ABC):
    """A delta's file: grains are handed out in the order in which they are needed.

    The tables live in memory while the extent is open for writing, and only then differ from those on disk; a mark in
    the file says so.

    Args:
        path: of the file; it is made.
        capacity_bytes: of the disk.
        start: the byte of the file where there is room for grains.
    """

    grain_bytes: ClassVar[int]
    entry: ClassVar[np.dtype[np.unsignedinteger]]

    def __init__(self, path: Path, capacity_bytes: int, start: int) -> None:
        self.path = path
        self.capacity_bytes = capacity_bytes
        self._tables: dict[int, Entries] = {}
        self._changed: set[int] = set()
        self._end = self._size = start
        self.fd = create_file(path)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, start)

    def grains(self, first: int, count: int) -> Decoded:
        """What the delta says of `count` grains of the disk from grain `first` on."""
        out = np.zeros(count, dtype=self.entry)
        grain, end = first, first + count
        while grain < end:
            slot, index = divmod(grain, _TABLE_ENTRIES)
            take = min(_TABLE_ENTRIES - index, end - grain)
            table = self._tables.get(slot)
            if table is not None:
                out[grain - first : grain - first + take] = table[index : index + take]
            grain += take
        return self._decode(out)

    def write(self, offset: int, data: memoryview) -> None:
        """Writes whole grains: `offset` is a multiple of a grain, and so is the length."""
        first, count = offset // self.grain_bytes, len(data) // self.grain_bytes
        kinds, places = self.grains(first, count)
        fresh = kinds != DATA
        if fresh.any():
            needed = int(fresh.sum())
            places[fresh] = self._take(needed * self.grain_bytes) + np.arange(needed) * self.grain_bytes
            self._set(first, self._encode(places))
        for start, end in runs_of(np.diff(places) == self.grain_bytes):
            write_fully(self.fd, data[start * self.grain_bytes : end * self.grain_bytes], int(places[start]))

    @abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Makes whole grains read as zeros."""

    @abstractmethod
    def unmap(self, offset: int, length: int) -> None:
        """Gives whole grains back: they read as zeros."""

    @abstractmethod
    def open_for_writing(self) -> None:
        """Marks the file as in use."""

    @abstractmethod
    def close(self) -> None:
        """Puts the tables on disk and marks the file as cleanly closed."""

    def data_runs(self) -> NDArray[np.int64]:
        """Rows (start, end) of the disk that the delta holds data of, in disk order."""
        runs = [np.empty((0, 2), dtype=np.int64)]
        for slot in sorted(self._tables):
            data = self._decode(self._tables[slot]).kinds == DATA
            edges = np.flatnonzero(np.diff(np.concatenate(([False], data, [False])).astype(np.int8)))
            runs.append((edges.reshape(-1, 2) + slot * _TABLE_ENTRIES) * self.grain_bytes)
        return np.concatenate(runs)

    def table_runs(self) -> list[tuple[int, int]]:
        """(start, end) of the disk for each table that there is, in disk order."""
        covers = _TABLE_ENTRIES * self.grain_bytes
        return [(slot * covers, min((slot + 1) * covers, self.capacity_bytes)) for slot in sorted(self._tables)]

    @abstractmethod
    def _decode(self, entries: Entries) -> Decoded: ...

    @abstractmethod
    def _encode(self, positions: Positions) -> Entries:
        """The entries of grains whose data lies at these bytes of the file."""

    @abstractmethod
    def _add_table(self, slot: int) -> None:
        """Gives a new table its place."""

    def _set(self, first: int, entries: Entries) -> None:
        done = 0
        while done < len(entries):
            slot, index = divmod(first + done, _TABLE_ENTRIES)
            take = min(_TABLE_ENTRIES - index, len(entries) - done)
            if slot not in self._tables:
                self._add_table(slot)
                self._tables[slot] = np.zeros(_TABLE_ENTRIES, dtype=self.entry)
            self._tables[slot][index : index + take] = entries[done : done + take]
            self._changed.add(slot)
            done += take

    def _take(self, length: int) -> int:
        """Hands out room; the file grows in steps, as writes behind a file's end are slow."""
        start, self._end = self._end, self._end + length
        if self._end > self._size:
            self._size = self._end + _GROW_BYTES
            os.ftruncate(self.fd, self._size)
        return start

    def _write_table(self, slot: int, position: int) -> None:
        write_fully(self.fd, self._tables[slot].data.cast("B"), position)

    def _cut_off(self) -> None:
        """Ends the file where its last grain ends."""
        self._size = self._end
        os.ftruncate(self.fd, self._end)


class SeSparseExtent(DeltaExtent):
    """A `-sesparse.vmdk`. The free bitmap and the back map have their place in the file but aren't kept."""

    grain_bytes = sesparse.GRAIN_BYTES
    entry = np.dtype("<u8")

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self._layout = sesparse.Layout.for_capacity(capacity_bytes)
        self._grains_start = self._layout.grains_offset * SECTOR
        self._numbers: dict[int, int] = {}
        self._transaction = 1
        super().__init__(path, capacity_bytes, self._grains_start)
        write_fully(self.fd, memoryview(self._layout.const_header()), 0)
        self.open_for_writing()

    def zero(self, offset: int, length: int) -> None:
        self._mark(offset, length, ZERO)

    def unmap(self, offset: int, length: int) -> None:
        self._mark(offset, length, UNMAPPED)

    def open_for_writing(self) -> None:
        self._volatile_header(replay_journal=True)

    def close(self) -> None:
        for slot in sorted(self._changed):
            self._write_table(slot, self._layout.table_position(self._numbers[slot]))
        if self._changed:
            directory = np.zeros(max(self._numbers) + 1, dtype="<u8")
            slots = np.fromiter(self._numbers, dtype=np.int64)
            numbers = np.fromiter(self._numbers.values(), dtype=np.uint64)
            directory[slots] = numbers | np.uint64(sesparse.DIRECTORY_FLAG)
            write_fully(self.fd, directory.data.cast("B"), self._layout.grain_dir_offset * SECTOR)
        self._changed.clear()
        self._cut_off()
        self._volatile_header(replay_journal=False)

    def _decode(self, entries: Entries) -> Decoded:
        found = entries.astype(np.uint64, copy=False)
        return Decoded(sesparse.kinds(found), self._grains_start + sesparse.grain_indices(found) * self.grain_bytes)

    def _encode(self, positions: Positions) -> Entries:
        return sesparse.data_entries((positions - self._grains_start) // self.grain_bytes)

    def _add_table(self, slot: int) -> None:
        self._numbers[slot] = len(self._numbers)

    def _mark(self, offset: int, length: int, kind: int) -> None:
        self._set(offset // self.grain_bytes, np.full(length // self.grain_bytes, sesparse.plain_entry(kind)))

    def _volatile_header(self, replay_journal: bool) -> None:
        free = self._layout.grain_tables_size * SECTOR // sesparse.TABLE_BYTES - len(self._numbers)
        self._transaction += 1
        header = sesparse.volatile_header(free, self._transaction, replay_journal)
        write_fully(self.fd, memoryview(header), SECTOR)


class CowdExtent(DeltaExtent):
    """A `-delta.vmdk` of VMFS 5 and NFS: tables and grains of a sector lie mixed, as they were needed.

    The format has no entry for zeros: they are stored.
    """

    grain_bytes = cowd.GRAIN_BYTES
    entry = cowd.ENTRY

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self._directory = np.zeros(-(-capacity_bytes // cowd.TABLE_COVERS), dtype=cowd.ENTRY)
        start = cowd.DIRECTORY_SECTOR * SECTOR + self._directory.nbytes
        super().__init__(path, capacity_bytes, -(-start // SECTOR) * SECTOR)
        self.open_for_writing()

    def zero(self, offset: int, length: int) -> None:
        for start in range(offset, offset + length, len(_ZEROS)):
            self.write(start, _ZEROS[: offset + length - start])

    def unmap(self, offset: int, length: int) -> None:
        self.zero(offset, length)

    def open_for_writing(self) -> None:
        self._header(unclean=True)

    def close(self) -> None:
        for slot in sorted(self._changed):
            self._write_table(slot, int(self._directory[slot]) * SECTOR)
        write_fully(self.fd, self._directory.data.cast("B"), cowd.DIRECTORY_SECTOR * SECTOR)
        self._changed.clear()
        self._cut_off()
        self._header(unclean=False)

    def _decode(self, entries: Entries) -> Decoded:
        return cowd.decode(entries)

    def _encode(self, positions: Positions) -> Entries:
        return (positions // SECTOR).astype(cowd.ENTRY)

    def _add_table(self, slot: int) -> None:
        self._directory[slot] = self._take(_TABLE_ENTRIES * self.entry.itemsize) // SECTOR

    def _header(self, unclean: bool) -> None:
        header = cowd.header(self.capacity_bytes // SECTOR, len(self._directory), self._end // SECTOR, unclean=unclean)
        write_fully(self.fd, memoryview(header), 0)


DELTA_EXTENTS: Final[dict[str, Callable[[Path, int], DeltaExtent]]] = {
    "VMFSSPARSE": CowdExtent,
    "SESPARSE": SeSparseExtent,
    "VSANSPARSE": SeSparseExtent,  # what vSAN's objects hold inside is nobody's business
}
"""What holds a delta's blocks, by the type that its descriptor names."""
