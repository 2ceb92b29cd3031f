"""System calls of Linux that Python's os module doesn't have."""

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final

_PUNCH_HOLE: Final = 0x02  # FALLOC_FL_PUNCH_HOLE
_KEEP_SIZE: Final = 0x01  # FALLOC_FL_KEEP_SIZE
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE
_FLOCK: Final = struct.Struct("@hhqqi0q")  # type, whence, start, length, pid of struct flock

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Makes the range a hole, which reads as zeros; the file's size stays. See fallocate(2).

    Raises:
        OSError: EOPNOTSUPP where the file system has no holes, or what else the kernel says.
    """
    while _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Has the kernel begin to write the range out, without waiting; only a hint, so its answer doesn't matter."""
    _libc.sync_file_range(fd, offset, length, _WRITE)


def lock_exclusively(fd: int) -> None:
    """Takes a lock of the open file description on the whole file. See fcntl(2), F_OFD_SETLK.

    Unlike flock(2) it works over NFS and is what QEMU locks its images with, and unlike a POSIX lock it also keeps two
    threads of one process apart. It goes when the last copy of the descriptor is closed.

    Raises:
        BlockingIOError: somebody else holds the file.
        OSError: the file system can't lock.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except PermissionError as error:  # POSIX allows EACCES as well as EAGAIN
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
