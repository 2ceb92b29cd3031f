"""A disk of which nothing differs, held against its image block by block; the image is read from storage."""

import os
from threading import Event

from benchmarks.disks import copy, fresh_image, make_flat, open_local, read_all
from benchmarks.frame import Bench, Result, compared, seconds, sync_file, warm
from snapferry.transfer import Extents
from snapferry.writers import ComparingWriter, RawFileWriter

BYTES = 1 << 30
PIECE_BYTES = 2 << 20


def apart(bench: Bench) -> Result:
    """Speed against the slower side's read by itself; the source lies in the page cache, as on storage of its own."""
    return _measure(bench, "comparison", "comparison of equal disks, speed against the slower side's", shared=False)


def one_disk(bench: Bench) -> Result:
    """The same where both sides are read from one disk, which they share."""
    what = "comparison of equal disks, both on one disk, speed against the slower side's"
    return _measure(bench, "comparison-one-disk", what, shared=True)


def _measure(bench: Bench, case: str, what: str, *, shared: bool) -> Result:
    size = bench.bytes(BYTES)
    flat, image = make_flat(bench.folder, size, size), bench.folder / "image.raw"
    whole = Extents.whole(size)
    first = fresh_image(image, size)
    copy(open_local(bench.folder, "disk.vmdk", size), first, whole)
    first.close()
    sync_file(flat)

    def place_source() -> None:
        if shared:
            with flat.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            warm(flat)

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
        writer.flush()  # so that the next measurement finds what one of ours leaves
        writer.close()

    def once() -> float:
        place_source()
        return seconds(ours)

    def slower() -> float:
        place_source()
        return max(seconds(source), seconds(target))

    return compared(bench, case, what, 0.8, once, slower, faster=True)
