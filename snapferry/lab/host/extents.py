"""The files that hold a simulated disk's blocks: what all have in common, and the flat base."""

import ctypes
import os
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
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


def write_fully(fd: int, data: memoryview, position: int) -> None:
    """Writes all of it."""
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

    def grow(self, capacity_bytes: int) -> None:
        """Makes it larger; what is new reads as zeros."""
        self.capacity_bytes = capacity_bytes
        os.ftruncate(self.fd, capacity_bytes)

    def write(self, offset: int, data: memoryview) -> None:
        write_fully(self.fd, data[: self.capacity_bytes - offset], offset)

    def zero(self, offset: int, length: int) -> None:
        end = min(offset + length, self.capacity_bytes)
        for start in range(offset, end, len(_ZEROS)):
            write_fully(self.fd, _ZEROS[: end - start], start)

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


def runs_of(joined: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Index ranges (start, end) of the runs among `len(joined) + 1` items; `joined[i]` ties item i to item i + 1."""
    cuts = np.flatnonzero(~joined) + 1
    edges = [0, *cuts.tolist(), len(joined) + 1]
    return list(pairwise(edges))
