"""A mount whose server is gone: every look at it hangs in the kernel. Root only.

`python -m tests.readers.dead_mount open|read FOLDER` opens a disk there, or reads one whose file hangs; it is told to
stop, says after how many seconds it did, closes what it has, and ends.
"""

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import NoReturn

from snapferry.errors import Stopped
from snapferry.readers import DatastoreReader
from snapferry.transfer import Extents
from snapferry.vmdk import Chain, Layer, LocalFolder, Runs
from snapferry.vmdk.chain import Part

from ..vmdk.builders import descriptor
from ..vmdk.fuzzing import MemoryFile

CAPACITY = 4 << 20
_MNT_DETACH = 2


@contextlib.contextmanager
def dead_mount(folder: Path) -> Iterator[None]:
    """Mounts a FUSE file system there that nobody answers for; whoever hangs in it is let go at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"dead", os.fsencode(folder), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield
    finally:
        os.close(device)
        libc.umount2(os.fsencode(folder), _MNT_DETACH)


class _HangingFile(MemoryFile):
    def read_into(self, offset: int, view: memoryview) -> NoReturn:
        while True:
            Event().wait()

    def close(self) -> NoReturn:
        while True:
            Event().wait()


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    stop = Event()
    told: list[float] = []
    Timer(0.5, lambda: (told.append(time.monotonic()), stop.set())).start()
    with contextlib.suppress(Stopped):
        if what == "open":
            DatastoreReader.open(LocalFolder(folder), "[nfs1] vm/disk.vmdk", CAPACITY, stop)
        else:
            whole = Extents.whole(CAPACITY)
            layer = Layer("", descriptor(CAPACITY, "vmfs", "VMFS", ""), (Part(0, CAPACITY, 0, Runs.in_file(whole, 0)),))
            with contextlib.closing(
                DatastoreReader(Chain((layer,), (_HangingFile(b"", CAPACITY),), lambda: 0))
            ) as reader:
                list(reader.read(whole, stop))
    sys.stdout.write(f"{time.monotonic() - told[0]}\n")


if __name__ == "__main__":
    main()
