"""A disk of which nothing differs, held against its image block by block."""

import os
from threading import Event

from benchmarks.disks import copy, fresh_image, make_flat, open_local, read_all
from benchmarks.frame import Bench, Result, compared, seconds
from snapferry.transfer import Extents
from snapferry.writers import ComparingWriter, RawFileWriter

BYTES = 1 << 30
PIECE_BYTES = 2 << 20


def measure(bench: Bench) -> Result:
    """Speed against that of the slower side read by itself; both are read from storage, not from the page cache."""
    size = bench.bytes(BYTES)
    flat, image = make_flat(bench.folder, size, size), bench.folder / "image.raw"
    whole = Extents.whole(size)
    first = fresh_image(image, size)
    copy(open_local(bench.folder, "disk.vmdk", size), first, whole)
    first.close()

    def forget() -> None:
        fd = os.open(flat, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def ours() -> None:
        reader = open_local(bench.folder, "disk.vmdk", size)
        writer = ComparingWriter(RawFileWriter(image, size), Event())
        copy(reader, writer, whole)
        assert writer.differing_bytes == 0
        reader.close()
        writer.close()

    def source() -> None:
        reader = open_local(bench.folder, "disk.vmdk", size)
        read_all(reader, whole)
        reader.close()

    def target() -> None:
        writer, view = RawFileWriter(image, size), memoryview(bytearray(PIECE_BYTES))
        writer.flush()  # drops its pages
        for offset in range(0, size, PIECE_BYTES):
            writer.read_into(offset, view[: min(PIECE_BYTES, size - offset)])
        writer.close()

    def once() -> float:
        forget()
        return seconds(ours)

    def slower() -> float:
        forget()
        return max(seconds(source), seconds(target))

    what = "comparison of equal disks, speed against the slower side's"
    return compared(bench, "comparison", what, 0.8, once, slower, faster=True)
