"""Writes VMDK files field by field, as the formats' descriptions have them, and reads them back grain by grain.

Nothing here uses `snapferry.vmdk` but to write descriptors: it is the other opinion.
"""

import random
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from snapferry.vmdk import NO_PARENT_CID, Descriptor, ExtentLine

SECTOR = 512
SESPARSE_GRAIN = 4096
SESPARSE_TABLE_COVERS = 4096 * SESPARSE_GRAIN
COWD_TABLE_COVERS = 4096 * SECTOR
Grain = bytes | Literal["unmapped", "zero"]


class Entry(NamedTuple):
    """What a table says of one place of the disk, read the slow way."""

    kind: Literal["parent", "zeros", "data"]
    position: int = 0


def sesparse(
    capacity: int, grains: Mapping[int, Grain], rng: random.Random, reserved1: int = 0, directory: int = 4096
) -> bytearray:
    """A seSparse extent whose tables and grains were handed out in any order; its directory lies at that sector."""
    count = -(-capacity // SESPARSE_TABLE_COVERS)
    used = sorted({grain // 4096 for grain in grains})
    rng.shuffle(used)
    data = [grain for grain, what in grains.items() if isinstance(what, bytes)]
    rng.shuffle(data)
    tables = directory + -(-count * 8 // 4096) * 8
    start = tables + max(1, len(used)) * 64
    fields = [0xCAFEBABE, 0x200000001, capacity // SECTOR, 8, 64, 0, reserved1, 0, 0, 0, 1, 1, 2, 2, 2048, 2048]
    fields += [directory, tables - directory, tables, start - tables, start, 0, start, 0, start, len(data) * 8]
    out = bytearray(start * SECTOR + len(data) * SESPARSE_GRAIN)
    struct.pack_into("<26Q", out, 0, *fields)
    struct.pack_into("<4Q", out, SECTOR, 0xCAFECAFE, 0, 2, 0)
    for number, slot in enumerate(used):
        struct.pack_into("<Q", out, directory * SECTOR + slot * 8, 0x10000000 << 32 | number)
    places = {grain: index for index, grain in enumerate(data)}
    for grain, what in grains.items():
        if isinstance(what, bytes):
            place = places[grain]
            entry = 3 << 60 | (place & 0xFFF) << 48 | place >> 12
            at = start * SECTOR + place * SESPARSE_GRAIN
            out[at : at + SESPARSE_GRAIN] = what.ljust(SESPARSE_GRAIN, b"\0")
        else:
            entry = (1 if what == "unmapped" else 2) << 60
        at = tables * SECTOR + used.index(grain // 4096) * 32768 + grain % 4096 * 8
        struct.pack_into("<Q", out, at, entry)
    return out


def sesparse_entry(raw: bytes, offset: int) -> Entry:
    """What a seSparse extent says of the byte at `offset`."""
    header = struct.unpack_from("<26Q", raw)
    slot, inside = divmod(offset, SESPARSE_TABLE_COVERS)
    (table,) = struct.unpack_from("<Q", raw, header[16] * SECTOR + slot * 8)
    if not table:
        return Entry("parent")
    at = header[18] * SECTOR + (table & 0xFFFFFFFF) * 32768 + inside // SESPARSE_GRAIN * 8
    (entry,) = struct.unpack_from("<Q", raw, at)
    if entry >> 60 != 3:
        return Entry("zeros" if entry else "parent")
    grain = (entry & 0x0FFF000000000000) >> 48 | (entry & 0xFFFFFFFFFFFF) << 12
    return Entry("data", (header[24] + grain * 8) * SECTOR + offset % SESPARSE_GRAIN)


def cowd(capacity: int, grains: Mapping[int, bytes], rng: random.Random) -> bytearray:
    """A COWD extent with grains of one sector, whose tables and grains were handed out in any order."""
    count = -(-capacity // COWD_TABLE_COVERS)
    used = sorted({grain // 4096 for grain in grains})
    rng.shuffle(used)
    data = list(grains)
    rng.shuffle(data)
    tables = 4 + -(-count * 4 // SECTOR)
    start = tables + len(used) * 32
    out = bytearray((start + len(data)) * SECTOR)
    struct.pack_into("<4s7I", out, 0, b"COWD", 1, 3, capacity // SECTOR, 1, 4, count, start + len(data))
    for number, slot in enumerate(used):
        struct.pack_into("<I", out, 4 * SECTOR + slot * 4, tables + number * 32)
    for index, grain in enumerate(data):
        at = (tables + used.index(grain // 4096) * 32) * SECTOR + grain % 4096 * 4
        struct.pack_into("<I", out, at, start + index)
        out[(start + index) * SECTOR : (start + index + 1) * SECTOR] = grains[grain]
    return out


def cowd_entry(raw: bytes, offset: int) -> Entry:
    """What a COWD extent says of the byte at `offset`."""
    directory = struct.unpack_from("<I", raw, 20)[0] * SECTOR
    slot, inside = divmod(offset, COWD_TABLE_COVERS)
    (table,) = struct.unpack_from("<I", raw, directory + slot * 4)
    entry = struct.unpack_from("<I", raw, table * SECTOR + inside // SECTOR * 4)[0] if table else 0
    return Entry("data", entry * SECTOR + offset % SECTOR) if entry else Entry("parent")


def stream(
    capacity: int, grains: Mapping[int, bytes], *, sized: bool = True, zlib_level: int = 6, overhead: int = 128
) -> bytearray:
    """A streamOptimized export with its tables behind the grains, as a host sends it.

    Args:
        capacity: of the disk, in bytes.
        grains: of 64 KiB, by their number.
        sized: whether the markers of tables say how long these are.
        zlib_level: of the grains.
        overhead: sectors in front of the first marker.
    """
    text = descriptor(capacity, "streamOptimized", "SPARSE", "disk.vmdk").text().encode()
    fields = (3, 0x30001, capacity // SECTOR, 128, 1, 20, 512, 0, 0xFFFFFFFFFFFFFFFF, overhead, 0, b"\n \r\n", 1)
    header = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", *fields).ljust(SECTOR, b"\0")
    out = bytearray((header + text).ljust(overhead * SECTOR, b"\0"))
    entries: dict[int, int] = {}
    for grain, data in grains.items():
        entries[grain] = len(out) // SECTOR
        packed = zlib.compress(data, zlib_level)
        out += padded(struct.pack("<QI", grain * 128, len(packed)) + packed)
    tables = -(-capacity // (512 * 128 * SECTOR))
    directory = []
    for table in range(tables):
        out += marker(4 if sized else 0, 1)
        directory.append(len(out) // SECTOR)
        out += struct.pack("<512I", *(entries.get(table * 512 + grain, 0) for grain in range(512)))
    places = padded(struct.pack(f"<{tables}I", *directory))
    out += marker(len(places) // SECTOR if sized else 0, 2) + places
    return out + marker(1 if sized else 0, 3) + header + marker(0, 0)


def marker(sectors: int, kind: int) -> bytes:
    """The sector in front of a table, a directory (2), a footer (3), or at the end (0)."""
    return padded(struct.pack("<QII", sectors, 0, kind))


def padded(data: bytes) -> bytes:
    """Filled up to whole sectors."""
    return data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")


def descriptor(
    capacity: int, create_type: str, kind: str, file: str, *, cid: int = 1, parent: tuple[int, str] | None = None
) -> Descriptor:
    """The descriptor of a disk with one extent."""
    return Descriptor(
        cid=cid,
        parent_cid=parent[0] if parent else NO_PARENT_CID,
        create_type=create_type,
        parent_file_name_hint=parent[1] if parent else None,
        extents=(ExtentLine(capacity // SECTOR, kind, file),),
        ddb={"adapterType": "lsilogic"},
    )


class ChainBuilder:
    """Builds a chain layer by layer, and keeps what the disk has to read as.

    Attributes:
        bytes: the disk's.
        leaf: the file name of the topmost descriptor.
        named: for each delta the numbers of the grains that it names.
    """

    def __init__(self, folder: Path, capacity: int, rng: random.Random, base: bytes | None = None) -> None:
        self.folder, self.capacity, self.rng = folder, capacity, rng
        self.bytes = bytearray(
            base if base is not None else np.random.default_rng(rng.randrange(1 << 32)).bytes(capacity)
        )
        self.leaf, self.depth = "web01.vmdk", 0
        self.extents: list[tuple[str, bytes]] = [("VMFS", bytes(self.bytes))]
        self.named: list[set[int]] = []
        (folder / "web01-flat.vmdk").write_bytes(self.bytes)
        self._save("vmfs", "VMFS", "web01-flat.vmdk")

    def add_sesparse(self, count: int, reserved1: int = 0) -> None:
        """A delta with so many grains: data, zeros and unmapped ones; the disk's last grain is one of them."""
        last = (self.capacity - 1) // SESPARSE_GRAIN
        grains: dict[int, Grain] = {}
        for number in {last, *(self.rng.randrange(last + 1) for _ in range(count))}:
            grains[number] = self.rng.choice(["unmapped", "zero", self.rng.randbytes(SESPARSE_GRAIN)])
            what = grains[number]
            self._put(number * SESPARSE_GRAIN, what if isinstance(what, bytes) else bytes(SESPARSE_GRAIN))
        self.named.append(set(grains))
        self._add("seSparse", "SESPARSE", "sesparse", sesparse(self.capacity, grains, self.rng, reserved1))

    def add_cowd(self, count: int) -> None:
        """A delta with so many grains; the disk's last one is one of them, and some follow each other."""
        last = (self.capacity - 1) // SECTOR
        numbers = {last, *(self.rng.randrange(last + 1) for _ in range(count))}
        numbers |= {min(last, number + 1) for number in list(numbers)[: count // 2]}
        grains = {number: self.rng.randbytes(SECTOR) for number in numbers}
        for number, data in grains.items():
            self._put(number * SECTOR, data)
        self.named.append(set(grains))
        self._add("vmfsSparse", "VMFSSPARSE", "delta", cowd(self.capacity, grains, self.rng))

    def slowly(self, offset: int) -> int:
        """The byte at `offset`, looked up in the files one layer after the other."""
        for kind, raw in reversed(self.extents):
            if kind == "VMFS":
                return raw[offset]
            entry = (sesparse_entry if kind == "SESPARSE" else cowd_entry)(raw, offset)
            if entry.kind != "parent":
                return raw[entry.position] if entry.kind == "data" else 0
        raise AssertionError("a chain has a base")

    def _put(self, offset: int, data: bytes) -> None:
        end = min(self.capacity, offset + len(data))
        self.bytes[offset:end] = data[: end - offset]

    def _add(self, create_type: str, kind: str, suffix: str, raw: bytearray) -> None:
        parent, self.depth = (self.depth + 1, self.leaf), self.depth + 1
        self.leaf = f"web01-{self.depth:06d}.vmdk"
        file = f"web01-{self.depth:06d}-{suffix}.vmdk"
        (self.folder / file).write_bytes(raw)
        self.extents.append((kind, bytes(raw)))
        self._save(create_type, kind, file, parent)

    def _save(self, create_type: str, kind: str, file: str, parent: tuple[int, str] | None = None) -> None:
        made = descriptor(self.capacity, create_type, kind, file, cid=self.depth + 1, parent=parent)
        (self.folder / self.leaf).write_text(made.text())
