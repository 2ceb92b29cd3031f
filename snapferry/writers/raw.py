"""Writes a disk into a raw image file."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Final, NoReturn

from snapferry.writers import linux
from snapferry.writers.errors import FlushFailed, ImageBusy, NoSpace, WriteFailed, WrongImage

_MIB: Final = 1 << 20
_ZEROS: Final = memoryview(bytes(_MIB))
_WRITEBACK_BYTES: Final = 8 << 20
_NO_HOLES: Final = (errno.EOPNOTSUPP, errno.ENOSYS)


class RawFileWriter:
    """A raw image file, held exclusively while it is open.

    The file has to be there; it is made exactly as long as the disk. An image may be up to 1 MiB longer before, since
    OpenNebula counts sizes in whole MiB; an empty file may take any disk; another size is refused, because then it is
    another image.

    Args:
        path: the image file; no symbolic link.
        capacity_bytes: of the disk.
        pristine: the image was made for this disk and no byte of it was written yet: what isn't written is zero.

    Raises:
        WrongImage: there is no such file, it is no regular file, can't be opened, or has another size.
        ImageBusy: another worker, or a virtual machine, holds it.
    """

    def __init__(self, path: Path, capacity_bytes: int, *, pristine: bool = False) -> None:
        self._path = path
        self._capacity = capacity_bytes
        self._holes = True
        self._unsent_bytes = 0
        self._sending: Thread | None = None
        # one byte a MiB: whether it has been written to; only kept where that spares writing zeros over zeros
        self._touched = bytearray(capacity_bytes // _MIB + 1) if pristine else None
        self._fd = _open(path)
        try:
            self._lock()
            self._size()
        except BaseException:
            self.close()
            raise

    @property
    def capacity_bytes(self) -> int:
        return self._capacity

    def write(self, offset: int, data: memoryview) -> None:
        """Writes `data`; it is on stable storage after the next `flush`.

        Raises:
            NoSpace: the file system is full.
            WriteFailed: another failure, or a range that isn't on the disk.
        """
        self._check(offset, data.nbytes)
        self._touch(offset, data.nbytes)
        start, rest = offset, data
        try:
            while rest:
                sent = os.pwrite(self._fd, rest, start)
                start, rest = start + sent, rest[sent:]
        except OSError as error:
            self._fail(error, start)
        self._unsent_bytes += data.nbytes
        if self._unsent_bytes >= _WRITEBACK_BYTES:
            self._start_writeback()

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fills the view with what the image holds from the offset on.

        Raises:
            WriteFailed: it can't be read, or a range that isn't on the disk.
        """
        self._check(offset, view.nbytes)
        while view:
            try:
                got = os.preadv(self._fd, [view], offset)
            except OSError as error:
                raise WriteFailed(
                    f"{self._path}: reading at offset {offset} failed: {error.strerror}.",
                    "Look at the storage (kernel log, mounts), then run again.",
                ) from error
            if not got:
                raise WriteFailed(
                    f"{self._path}: the file ended at offset {offset} while it was read: somebody made it shorter.",
                    "Find out who writes to the image; then run again.",
                )
            view, offset = view[got:], offset + got

    def data_runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(start, end) of what lies outside the file's holes in a range; see lseek(2), SEEK_DATA."""
        while start < end:
            try:
                low = os.lseek(self._fd, start, os.SEEK_DATA)
                high = os.lseek(self._fd, low, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # nothing but a hole is left
                low, high = start, end  # a file system that can't tell
            if low < end:
                yield low, min(high, end)
            start = high

    def zero(self, offset: int, length: int) -> None:
        """Makes the range read as zeros: as a hole, or with zeros written where the file system has no holes.

        Raises:
            WriteFailed: as `write`.
        """
        self._check(offset, length)
        if length == 0 or not self._may_hold_data(offset, length):
            return
        if self._holes:
            try:
                linux.punch_hole(self._fd, offset, length)
                return
            except OSError as error:
                if error.errno not in _NO_HOLES:
                    self._fail(error, offset)
                self._holes = False
        for start in range(offset, offset + length, _MIB):
            self.write(start, _ZEROS[: offset + length - start])

    def flush(self) -> None:
        """Puts everything written so far on stable storage.

        Raises:
            FlushFailed: what was written since the last good flush is lost, or the file was removed meanwhile.
        """
        try:
            os.fsync(self._fd)
            removed = os.fstat(self._fd).st_nlink == 0
        except OSError as error:
            raise FlushFailed(
                f"{self._path}: what was written couldn't be put on stable storage: {error.strerror}.",
                "Look at the storage (kernel log, free space); then run again: what this round wrote is copied again.",
            ) from error
        if removed:
            raise FlushFailed(
                f"{self._path}: the file was removed while it was written.",
                "Find out who deleted the image; then prepare the migration again.",
            )
        # the pages are clean now; a disk larger than the memory shouldn't push everything else out of the cache
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        self._unsent_bytes = 0

    def close(self) -> None:
        """Lets the file go; waits for write-back that has begun. What wasn't flushed may be lost. Repeatable."""
        if self._sending:
            self._sending.join()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _lock(self) -> None:
        try:
            linux.lock_exclusively(self._fd)
        except BlockingIOError as error:
            raise ImageBusy(
                f"{self._path}: somebody else holds the file: another Snapferry worker, or a virtual machine or "
                "qemu-img that has the image open.",
                f"Wait until it is done; `lsof {self._path}` on the storage's hosts names it.",
            ) from error
        except OSError as error:
            raise WrongImage(
                f"{self._path}: the file can't be locked: {error.strerror}.",
                "Use a file system that has locks (for NFS: version 4, or a running lock manager).",
            ) from error

    def _size(self) -> None:
        size = os.fstat(self._fd).st_size
        if size and not self._capacity <= size <= self._capacity + _MIB:
            raise WrongImage(
                f"{self._path}: the file has {size} bytes, but the disk has {self._capacity}.",
                "It isn't a raw image made for this disk; check the image, and prepare the migration again.",
            )
        if size == self._capacity:
            return
        try:
            os.ftruncate(self._fd, self._capacity)
        except OSError as error:
            self._fail(error, self._capacity)

    def _start_writeback(self) -> None:
        """Has the disk work while the next blocks come in, so that a flush has little left to wait for.

        In a thread: where blocks are scattered, the call waits for the device's queue again and again.
        """
        self._unsent_bytes = 0
        if self._sending and self._sending.is_alive():
            return
        sending = Thread(target=linux.start_writeback, args=(self._fd, 0, 0), name="write-back", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be had: then the flush does it all
            sending.start()
            self._sending = sending

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._capacity:
            raise WriteFailed(
                f"{self._path}: {length} bytes at offset {offset} aren't on the disk of {self._capacity} bytes."
            )

    def _touch(self, offset: int, length: int) -> None:
        if self._touched is not None and length:
            first, last = offset // _MIB, (offset + length - 1) // _MIB
            self._touched[first : last + 1] = b"\1" * (last + 1 - first)

    def _may_hold_data(self, offset: int, length: int) -> bool:
        if self._touched is None:
            return True
        return self._touched.find(1, offset // _MIB, (offset + length - 1) // _MIB + 1) >= 0

    def _fail(self, error: OSError, offset: int) -> NoReturn:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"{self._path}: no space is left to write at offset {offset}: {error.strerror}.",
                "Make room in the datastore, then run again: what was flushed isn't copied twice.",
            ) from error
        raise WriteFailed(
            f"{self._path}: writing at offset {offset} failed: {error.strerror}.",
            "Look at the storage (kernel log, mounts), then run again.",
        ) from error


def _open(path: Path) -> int:
    """Opens an existing regular file; O_NONBLOCK so that a FIFO or device at its place can't hold us up."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise WrongImage(
            f"{path}: the image can't be opened: {reason}.",
            "Run the worker as the owner of the datastore's files, on a host that has the datastore mounted.",
        ) from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise WrongImage(f"{path}: it is no regular file.", "Check the image's SOURCE and its datastore's driver.")
