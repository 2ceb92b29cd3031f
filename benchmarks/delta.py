"""A seSparse delta of 512 MiB applied to an image that holds its base, both fsynced."""

from benchmarks.disks import copy, fill, make_delta, open_local
from benchmarks.frame import Bench, Result, compared, seconds, sync_file, warm
from snapferry.vmdk import LocalFolder, open_chain
from snapferry.writers import RawFileWriter

CAPACITY_BYTES = 4 << 30
DATA_BYTES = 512 << 20


def single_grains(bench: Bench) -> Result:
    """Grains of 4 KiB, each by itself, against a plain copy of as many bytes."""
    return _measure(bench, "delta-grains", "seSparse delta in single grains, seconds against a plain copy", 1)


def small_areas(bench: Bench) -> Result:
    """Areas of 4 to 128 KiB: guests write in them, and change tracking tells nothing smaller."""
    return _measure(bench, "delta-areas", "seSparse delta in areas of 4 to 128 KiB, seconds against a plain copy", 32)


def _measure(bench: Bench, case: str, what: str, most_grains: int) -> Result:
    capacity, data = bench.bytes(CAPACITY_BYTES), bench.bytes(DATA_BYTES)
    delta, image = make_delta(bench.folder, capacity, data, most_grains), bench.folder / "image.raw"
    warm(delta)
    chain = open_chain(LocalFolder(bench.folder), "delta.vmdk")
    extents = chain.layer_extents(1)
    chain.close()
    plain = bench.folder / "plain.raw"
    fill(image, capacity)

    def ours() -> None:
        reader, writer = open_local(bench.folder, "delta.vmdk", capacity), RawFileWriter(image, capacity)
        copy(reader, writer, extents)
        reader.close()
        writer.close()

    def theirs() -> None:
        plain.unlink(missing_ok=True)
        with delta.open("rb") as source, plain.open("wb") as target:
            left = data
            source.seek(delta.stat().st_size - data)
            while left:
                left -= target.write(source.read(min(left, 1 << 20)))
        sync_file(plain)

    assert extents.total_bytes == data
    return compared(bench, case, what, 1.5, lambda: seconds(ours), lambda: seconds(theirs))
