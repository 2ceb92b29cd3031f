"""File systems of their own under a datastore's folder: one that runs full, one whose device fails. Root only."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
_GET_STATUS, _SET_STATUS = 0x4C05, 0x4C04  # LOOP_GET_STATUS64, LOOP_SET_STATUS64 of linux/loop.h
_STATUS_BYTES = 232
_SIZE_LIMIT_AT = 32  # lo_sizelimit, behind device, inode, rdevice and offset


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


class SmallStorage(NamedTuple):
    """A file system of a few MiB; what is written beyond them fails with ENOSPC."""

    folder: Path

    def fill(self, free_bytes: int) -> None:
        """Leaves only so much."""
        found = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_bsize - free_bytes)

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


@contextmanager
def small_storage(folder: Path, size_bytes: int) -> Iterator[SmallStorage]:
    """Mounts a small file system there for as long as the context lasts."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=755", "tmpfs", str(folder))
    try:
        yield SmallStorage(folder)
    finally:
        _run("umount", str(folder))


class FailingStorage(NamedTuple):
    """A file system whose device answers with I/O errors while it is broken."""

    device: str

    def fail_beyond(self, size_bytes: int) -> None:
        """Every block behind so many bytes fails from now on; 0 mends the device."""
        device = os.open(self.device, os.O_RDWR)
        try:
            status = bytearray(_STATUS_BYTES)
            fcntl.ioctl(device, _GET_STATUS, status)
            struct.pack_into("<Q", status, _SIZE_LIMIT_AT, size_bytes)
            fcntl.ioctl(device, _SET_STATUS, bytes(status))
        finally:
            os.close(device)


@contextmanager
def failing_storage(folder: Path, backing: Path, size_bytes: int) -> Iterator[FailingStorage]:
    """Mounts a file system on a loop device there for as long as the context lasts."""
    with backing.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal", "-E", "lazy_itable_init=0", str(backing))
    device = _run("losetup", "--find", "--show", str(backing))
    try:
        # no delayed allocation, no unwritten extents: ext4 may lose what is written again to those after an error
        _run("mount", "-o", "errors=continue,nodelalloc,dioread_lock", device, str(folder))
        try:
            yield FailingStorage(device)
        finally:
            _run("umount", str(folder))
    finally:
        _run("losetup", "--detach", device)
