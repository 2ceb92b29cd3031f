"""The files that hold a simulated disk's blocks: flat bases and seSparse deltas."""

import ctypes
import os
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snapferry.vmdk import sesparse
from snapferry.vmdk.sesparse import GRAIN_BYTES, SECTOR, TABLE_ENTRIES, Entries, Layout

_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_GROW_BYTES = 64 << 20
_ZEROS = memoryview(bytes(1 << 20))

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


def create_file(path: Path) -> int:
    """A new file that only its owner can read; its descriptor."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)


def read_fully(fd: int, view: memoryview, position: int) -> None:
    """Fills `view` from the file; what lies behind its end reads as zeros."""
    while view:
        got = os.preadv(fd, [view], position)
        if not got:
            view[:] = bytes(len(view))
            return
        view, position = view[got:], position + got


def _write_fully(fd: int, data: memoryview, position: int) -> None:
    while data:
        done = os.pwrite(fd, data, position)
        data, position = data[done:], position + done


class FlatExtent:
    """A thin `-flat.vmdk`: the disk's bytes at their own offsets, holes where nothing was written."""

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self.path = path
        self.capacity_bytes = capacity_bytes
        self.fd = create_file(path)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, capacity_bytes)

    def write(self, offset: int, data: memoryview) -> None:
        _write_fully(self.fd, data[: self.capacity_bytes - offset], offset)

    def zero(self, offset: int, length: int) -> None:
        end = min(offset + length, self.capacity_bytes)
        for start in range(offset, end, len(_ZEROS)):
            _write_fully(self.fd, _ZEROS[: end - start], start)

    def unmap(self, offset: int, length: int) -> None:
        length = min(length, self.capacity_bytes - offset)
        if _libc.fallocate(self.fd, _PUNCH_HOLE, offset, length):
            raise OSError(ctypes.get_errno(), "fallocate failed", str(self.path))

    def open_for_writing(self) -> None:
        """A flat file carries no mark while it is in use."""

    def close(self) -> None:
        """A flat file has nothing to put in order."""

    def data_runs(self) -> NDArray[np.int64]:
        runs: list[tuple[int, int]] = []
        end = 0
        while end < self.capacity_bytes:
            try:
                start = os.lseek(self.fd, end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            end = os.lseek(self.fd, start, os.SEEK_HOLE)
            runs.append((start, min(end, self.capacity_bytes)))
        return np.array(runs, dtype=np.int64).reshape(-1, 2)


class SeSparseExtent:
    """A `-sesparse.vmdk`: tables and grains are handed out in the order in which they are needed.

    The tables live in memory while the extent is open for writing, and only then differ from those on disk; the
    volatile header says so. The free bitmap and the back map have their place in the file but aren't kept.
    """

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self.path = path
        self.layout = Layout.for_capacity(capacity_bytes)
        self.grains_position = self.layout.grains_offset * SECTOR
        self.tables: dict[int, Entries] = {}
        self._numbers: dict[int, int] = {}
        self._changed: set[int] = set()
        self._next_grain = 0
        self._transaction = 1
        self._size = self.grains_position
        self.fd = create_file(path)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, self._size)
        _write_fully(self.fd, memoryview(self.layout.const_header()), 0)
        self.open_for_writing()

    def entries(self, first: int, count: int) -> Entries:
        """A copy of the entries of `count` grains of the disk from grain `first` on."""
        out = np.zeros(count, dtype=np.uint64)
        grain, end = first, first + count
        while grain < end:
            slot, index = divmod(grain, TABLE_ENTRIES)
            take = min(TABLE_ENTRIES - index, end - grain)
            table = self.tables.get(slot)
            if table is not None:
                out[grain - first : grain - first + take] = table[index : index + take]
            grain += take
        return out

    def write(self, offset: int, data: memoryview) -> None:
        """Writes whole grains: `offset` is a multiple of a grain, and so is the length."""
        first, count = offset // GRAIN_BYTES, len(data) // GRAIN_BYTES
        entries = self.entries(first, count)
        kept = sesparse.kinds(entries) == sesparse.DATA
        places = np.where(kept, sesparse.grain_indices(entries), 0)
        fresh = count - int(kept.sum())
        places[~kept] = np.arange(self._next_grain, self._next_grain + fresh)
        self._reserve(fresh)
        for start, end in runs_of(np.diff(places) == 1):
            position = self.grains_position + int(places[start]) * GRAIN_BYTES
            _write_fully(self.fd, data[start * GRAIN_BYTES : end * GRAIN_BYTES], position)
        if fresh:
            self._set(first, sesparse.data_entries(places))

    def zero(self, offset: int, length: int) -> None:
        self._mark(offset, length, sesparse.ZERO)

    def unmap(self, offset: int, length: int) -> None:
        self._mark(offset, length, sesparse.UNMAPPED)

    def open_for_writing(self) -> None:
        self._volatile_header(replay_journal=True)

    def close(self) -> None:
        """Puts tables and directory on disk and marks the file as cleanly closed."""
        for slot in sorted(self._changed):
            table = self.tables[slot].astype("<u8", copy=False)
            _write_fully(self.fd, table.data.cast("B"), self.layout.table_position(self._numbers[slot]))
        if self._changed:
            directory = np.zeros(max(self._numbers) + 1, dtype="<u8")
            slots = np.fromiter(self._numbers, dtype=np.int64)
            numbers = np.fromiter(self._numbers.values(), dtype=np.uint64)
            directory[slots] = numbers | np.uint64(sesparse.DIRECTORY_FLAG)
            _write_fully(self.fd, directory.data.cast("B"), self.layout.grain_dir_offset * SECTOR)
        self._changed.clear()
        self._size = self.grains_position + self._next_grain * GRAIN_BYTES
        os.ftruncate(self.fd, self._size)
        self._volatile_header(replay_journal=False)

    def data_runs(self) -> NDArray[np.int64]:
        runs = [np.empty((0, 2), dtype=np.int64)]
        for slot in sorted(self.tables):
            data = sesparse.kinds(self.tables[slot]) == sesparse.DATA
            edges = np.flatnonzero(np.diff(np.concatenate(([False], data, [False])).astype(np.int8)))
            runs.append((edges.reshape(-1, 2) + slot * TABLE_ENTRIES) * GRAIN_BYTES)
        return np.concatenate(runs)

    def _mark(self, offset: int, length: int, kind: int) -> None:
        count = length // GRAIN_BYTES
        self._set(offset // GRAIN_BYTES, np.full(count, sesparse.plain_entry(kind)))

    def _set(self, first: int, entries: Entries) -> None:
        done = 0
        while done < len(entries):
            slot, index = divmod(first + done, TABLE_ENTRIES)
            take = min(TABLE_ENTRIES - index, len(entries) - done)
            if slot not in self.tables:
                self.tables[slot] = np.zeros(TABLE_ENTRIES, dtype=np.uint64)
                self._numbers[slot] = len(self._numbers)
            self.tables[slot][index : index + take] = entries[done : done + take]
            self._changed.add(slot)
            done += take

    def _reserve(self, grains: int) -> None:
        """Hands out grains; the file grows in steps, as writes behind a file's end are slow."""
        self._next_grain += grains
        needed = self.grains_position + self._next_grain * GRAIN_BYTES
        if needed > self._size:
            self._size = needed + _GROW_BYTES
            os.ftruncate(self.fd, self._size)

    def _volatile_header(self, replay_journal: bool) -> None:
        free = self.layout.grain_tables_size * SECTOR // sesparse.TABLE_BYTES - len(self._numbers)
        self._transaction += 1
        header = sesparse.volatile_header(free, self._transaction, replay_journal)
        _write_fully(self.fd, memoryview(header), SECTOR)


def runs_of(joined: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Index ranges (start, end) of the runs among `len(joined) + 1` items; `joined[i]` ties item i to item i + 1."""
    cuts = np.flatnonzero(~joined) + 1
    edges = [0, *cuts.tolist(), len(joined) + 1]
    return list(pairwise(edges))
