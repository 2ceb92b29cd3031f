"""Where a VMDK's files come from: two small protocols, and their implementation for a mounted datastore."""

import errno
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from snapferry.transfer.extents import Extents
from snapferry.vmdk.errors import ChainError, FileUnreadable, VmdkTruncated

_MOST_HOLES: Final = 1 << 18  # a file with more holes than that is read as if the rest were data
_LARGE_FILE_BYTES: Final = 4 << 30  # what was read of a larger file leaves the page cache, which others need
_DATASTORE: Final = re.compile(r"^/+vmfs/volumes/[^/]+/")


class RangeFile(Protocol):
    """One file that can be read anywhere: on a mounted datastore, or over HTTPS."""

    @property
    def name(self) -> str:
        """What an error message calls it."""
        ...

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, length: int) -> memoryview:
        """The bytes of the range, all of them.

        Raises:
            TransferError: they can't be read.
        """
        ...

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fills the view with the bytes from the offset on; by any number of threads at once.

        Raises:
            TransferError: they can't be read.
        """
        ...

    def data_extents(self) -> Extents:
        """Where the file may hold anything but zeros; the whole file where that can't be told."""
        ...

    def abort(self) -> None:
        """Ends reads that are under way, where they can be ended; the file isn't read any more."""
        ...

    def close(self) -> None:
        """Repeatable."""
        ...


class Folder(Protocol):
    """A datastore: opens files by their path on it."""

    def open(self, path: str) -> RangeFile:
        """Opens a file.

        Args:
            path: relative to the datastore, or as descriptors name it: `/vmfs/volumes/<datastore>/web01/web01.vmdk`.

        Raises:
            ChainError: there is no such file, or the path leaves the datastore.
        """
        ...

    def answers(self) -> int:
        """How many requests were answered so far: whoever waits for many of them sees that it goes on."""
        ...


class LocalFile:
    """A file of a mounted datastore.

    Args:
        answered: called behind each read and each look for a hole.
    """

    def __init__(self, path: Path, name: str, answered: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self._answered = answered
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> memoryview:
        whole = memoryview(bytearray(length))
        self.read_into(offset, whole)
        return whole

    def read_into(self, offset: int, view: memoryview) -> None:
        begin, left = offset, view
        while left:
            try:
                got = os.preadv(self._fd, [left], offset)
            except OSError as error:
                raise FileUnreadable(f"{self.name} can't be read at byte {offset}: {error.strerror}.") from error
            if not got:
                raise VmdkTruncated(f"{self.name} ended at byte {offset} while it was read.")
            self._answered()
            left, offset = left[got:], offset + got
        if self.size_bytes > _LARGE_FILE_BYTES:
            os.posix_fadvise(self._fd, begin, offset - begin, os.POSIX_FADV_DONTNEED)

    def data_extents(self) -> Extents:
        """What lies outside the file's holes; see lseek(2), SEEK_DATA."""
        runs: list[tuple[int, int]] = []
        end = 0
        while end < self.size_bytes and len(runs) < _MOST_HOLES:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
                end = os.lseek(self._fd, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # a file system that can't tell
                    return Extents.whole(self.size_bytes)
                end = self.size_bytes  # nothing but a hole is left
            else:
                runs.append((start, end - start))
                self._answered()
        return Extents.from_pairs([*runs, (end, self.size_bytes - end)])

    def abort(self) -> None:
        """A read in the kernel can't be ended."""

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalFolder:
    """A mounted datastore, or a copy of a VM's files.

    Args:
        root: the folder that stands for the datastore; nothing outside of it is opened.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._answered = 0

    def open(self, path: str) -> LocalFile:
        try:
            root = self._root.resolve()
            found = (root / on_datastore(path)).resolve()
            if not found.is_relative_to(root):
                raise ChainError(f"{path!r} lies outside of the datastore.")
            if not found.is_file():
                raise ChainError(f"There is no file {path!r} on the datastore.")
            return LocalFile(found, path, self._note)
        except (OSError, ValueError) as error:  # a path that no file can have, too
            raise ChainError(f"{path!r} can't be opened: {error}.") from error

    def answers(self) -> int:
        return self._answered

    def _note(self) -> None:
        self._answered += 1


def on_datastore(path: str) -> str:
    """A path relative to its datastore, in its shortest form; the same for all ways to write it."""
    return posixpath.normpath(_DATASTORE.sub("", path).lstrip("/"))


def read_range(file: RangeFile, offset: int, length: int, what: str) -> memoryview:
    """Reads a part of a file's metadata, and looks first whether the file is that long.

    Raises:
        VmdkTruncated: the file ends before the part does.
    """
    if offset < 0 or length < 0 or offset + length > file.size_bytes:
        end = offset + length
        raise VmdkTruncated(f"{file.name}: {what} should end at byte {end}, but the file has {file.size_bytes} bytes.")
    return file.read(offset, length)
