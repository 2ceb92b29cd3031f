"""A flat disk of 4 GiB with 1.5 GiB of data into a raw image, both warm, both fsynced, through user space."""

from benchmarks.disks import copy, fresh_image, make_flat, open_local
from benchmarks.frame import Bench, Result, compared, run, seconds, sync_file, warm
from snapferry.transfer import Extents

CAPACITY_BYTES = 4 << 30
DATA_BYTES = 3 << 29


def measure(bench: Bench) -> Result:
    """Against `qemu-img convert -m 8 -W`."""
    capacity = bench.bytes(CAPACITY_BYTES)
    flat, image = make_flat(bench.folder, capacity, bench.bytes(DATA_BYTES)), bench.folder / "image.raw"
    warm(flat)

    def ours() -> None:
        reader, writer = open_local(bench.folder, "disk.vmdk", capacity), fresh_image(image, capacity)
        copy(reader, writer, Extents.whole(capacity))
        reader.close()
        writer.close()

    def theirs() -> None:
        image.unlink(missing_ok=True)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", "-m", "8", "-W", flat, image)
        sync_file(image)

    what = "flat to raw, seconds against qemu-img convert -m 8 -W"
    return compared(bench, "raw", what, 1.1, lambda: seconds(ours), lambda: seconds(theirs))
