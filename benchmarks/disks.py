"""Disks to measure with, and how we copy them."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np

from snapferry.lab.host.deltas import SeSparseExtent
from snapferry.readers import DatastoreReader
from snapferry.seams import DiskReader, DiskWriter
from snapferry.transfer import Extents, pump
from snapferry.vmdk import NO_PARENT_CID, Descriptor, ExtentLine, LocalFolder
from snapferry.writers import RawFileWriter

SECTOR = 512
GRAIN_BYTES = 4096


def make_flat(folder: Path, capacity_bytes: int, data_bytes: int, seed: int = 1) -> Path:
    """`disk.vmdk` with its `disk-flat.vmdk`, which has runs of random bytes all over it; returns the flat file."""
    flat = folder / "disk-flat.vmdk"
    rng = np.random.default_rng(seed)
    with flat.open("wb") as file:
        file.truncate(capacity_bytes)
        for offset, length in _runs(capacity_bytes, data_bytes, seed):
            file.seek(offset)
            file.write(rng.bytes(length))
    _save(folder / "disk.vmdk", capacity_bytes, ExtentLine(capacity_bytes // SECTOR, "VMFS", flat.name))
    return flat


def make_delta(folder: Path, capacity_bytes: int, data_bytes: int, most_grains: int, seed: int = 1) -> Path:
    """`delta.vmdk` over an empty base: runs of up to `most_grains` grains each, scattered over the disk and the file.

    Returns:
        The seSparse file.
    """
    make_flat(folder, capacity_bytes, 0)
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    extent = SeSparseExtent(folder / "delta-sesparse.vmdk", capacity_bytes)
    slots = list(range(capacity_bytes // GRAIN_BYTES // (most_grains + 1)))
    chance.shuffle(slots)  # grains lie in the file in the order of the guest's writes
    left = data_bytes
    for slot in slots:
        length = min(left, chance.randint(1, most_grains) * GRAIN_BYTES)
        extent.write(slot * (most_grains + 1) * GRAIN_BYTES, memoryview(rng.bytes(length)))
        left -= length
        if not left:
            break
    extent.close()
    line = ExtentLine(capacity_bytes // SECTOR, "SESPARSE", extent.path.name)
    _save(folder / "delta.vmdk", capacity_bytes, line, parent="disk.vmdk")
    return extent.path


def open_local(folder: Path, name: str, capacity_bytes: int) -> DatastoreReader:
    """The disk through its files in a folder, as on a mounted datastore."""
    return DatastoreReader.open(LocalFolder(folder), name, capacity_bytes, Event())


def fresh_image(path: Path, capacity_bytes: int) -> RawFileWriter:
    """An empty image in place of whatever is there."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(capacity_bytes)
    return RawFileWriter(path, capacity_bytes, pristine=True)


def fill(path: Path, capacity_bytes: int) -> None:
    """An image whose every block is allocated, on stable storage."""
    block = np.random.default_rng(2).bytes(1 << 20)
    with path.open("wb") as file:
        for start in range(0, capacity_bytes, len(block)):
            file.write(block[: capacity_bytes - start])
        file.flush()
        os.fsync(file.fileno())


def copy(reader: DiskReader, writer: DiskWriter, extents: Extents) -> None:
    """As a round copies, without a record."""
    pump(reader, writer, extents, stop=Event())


def read_all(reader: DiskReader, extents: Extents) -> None:
    """Reads, and throws away."""
    for _ in reader.read(extents, Event()):
        pass


def _runs(capacity_bytes: int, data_bytes: int, seed: int) -> Iterator[tuple[int, int]]:
    """Runs of 256 KiB to 16 MiB, evenly spread."""
    chance = random.Random(seed)
    lengths = []
    while (left := data_bytes - sum(lengths)) > 0:
        lengths.append(min(left, chance.randrange(64, 4096) << 12))
    step = capacity_bytes // max(1, len(lengths))
    for number, length in enumerate(lengths):
        yield number * step // GRAIN_BYTES * GRAIN_BYTES, min(length, step)


def _save(path: Path, capacity_bytes: int, extent: ExtentLine, parent: str | None = None) -> None:
    descriptor = Descriptor(
        cid=2 if parent else 1,
        parent_cid=1 if parent else NO_PARENT_CID,
        create_type="seSparse" if parent else "vmfs",
        parent_file_name_hint=parent,
        extents=(extent,),
        ddb={"adapterType": "lsilogic"},
    )
    path.write_text(descriptor.text(), encoding="utf-8")
