"""The layout of a seSparse extent, the delta format of VMFS 6: headers, grain directory, grain tables and grains.

All numbers are little-endian; offsets in the header count sectors of 512 bytes. Facts: QEMU's block/vmdk.c.
"""

import struct
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from snapferry.vmdk.errors import VmdkCorrupt, VmdkInUse, VmdkTruncated, VmdkUnsupported
from snapferry.vmdk.files import RangeFile, read_range
from snapferry.vmdk.tables import (
    DATA,
    FROM_PARENT,
    SECTOR,
    UNMAPPED,
    ZERO,
    Decoded,
    GrainTables,
    check_sizes,
    directory_entries,
)

__all__ = ["DATA", "FROM_PARENT", "SECTOR", "UNMAPPED", "ZERO"]

GRAIN_BYTES = 4096
TABLE_ENTRIES = 4096
TABLE_BYTES = TABLE_ENTRIES * 8
TABLE_COVERS = TABLE_ENTRIES * GRAIN_BYTES
"""Bytes of the disk that one grain table describes: 16 MiB."""

MAGIC = 0xCAFEBABE
VOLATILE_MAGIC = 0xCAFECAFE
VERSION = 0x0000000200000001
DIRECTORY_FLAG = 0x1000000000000000
"""Set in a directory entry that names a grain table (its number is in the low half)."""

_TYPE_SHIFT = np.uint64(60)
_LOW_MASK = np.uint64(0xFFF)
_LOW_SHIFT = np.uint64(48)
_HIGH_SHIFT = np.uint64(12)
_HIGH_MASK = np.uint64(0x0000_FFFF_FFFF_FFFF)

_DIRECTORY_SHIFT = np.uint64(32)
_TABLE_MASK = np.uint64(0xFFFF_FFFF)
_ENTRY = np.dtype("<u8")
_KNOWN_RESERVED1 = (0, 0x200)  # both were seen on disks that hosts wrote

Entries = NDArray[np.uint64]


_JOURNALS = [1, 1, 2, 2, 2048, 2048]
"""Offset and size in sectors of the volatile header, the journal's header and the journal."""


class Layout(NamedTuple):
    """Where the parts of one seSparse file lie, in sectors (the names of the const header)."""

    capacity: int
    grain_dir_offset: int
    grain_dir_size: int
    grain_tables_offset: int
    grain_tables_size: int
    free_bitmap_offset: int
    free_bitmap_size: int
    backmap_offset: int
    backmap_size: int
    grains_offset: int
    grains_size: int

    @classmethod
    def parse(cls, name: str, header: bytes | memoryview) -> Self:
        """Reads the const header.

        Raises:
            VmdkCorrupt: it is none.
            VmdkUnsupported: another version, or something in it that no known host writes.
        """
        magic, version, capacity, grain, table, flags, *more = struct.unpack_from("<26Q", header)
        reserved, journals, parts = more[:4], more[4:10], more[10:]
        if magic != MAGIC:
            raise VmdkCorrupt(f"{name} isn't a seSparse extent.")
        if (version, grain, table) != (VERSION, GRAIN_BYTES // SECTOR, TABLE_BYTES // SECTOR):
            raise VmdkUnsupported(
                f"{name}: seSparse version {version:#x}, grains of {grain} and tables of {table} sectors."
            )
        if flags or reserved[0] not in _KNOWN_RESERVED1 or any(reserved[1:]):
            raise VmdkUnsupported(f"{name}: flags {flags:#x} and reserved fields {reserved} mean something unknown.")
        if journals[:2] != _JOURNALS[:2]:
            raise VmdkUnsupported(f"{name}: the volatile header lies at sector {journals[0]}.")
        return cls(capacity, *parts)

    @classmethod
    def for_capacity(cls, capacity_bytes: int) -> Self:
        """The layout of a delta of a disk of this size; every part starts at a grain boundary."""
        grains = -(-capacity_bytes // GRAIN_BYTES)
        tables = -(-grains // TABLE_ENTRIES)
        sizes = [tables * 8, tables * TABLE_BYTES, -(-grains // 8), grains * 8, grains * GRAIN_BYTES]
        sectors = [-(-size // GRAIN_BYTES) * (GRAIN_BYTES // SECTOR) for size in sizes]
        fields = [capacity_bytes // SECTOR]
        offset = 4096
        for size in sectors:
            fields += [offset, size]
            offset += size
        return cls(*fields)

    def const_header(self, reserved1: int = 0) -> bytes:
        """The first sector; `reserved1` is 0 or 0x200 on real disks."""
        head = (MAGIC, VERSION, self.capacity, GRAIN_BYTES // SECTOR, TABLE_BYTES // SECTOR, 0, reserved1, 0, 0, 0)
        return struct.pack("<26Q", *head, *_JOURNALS, *self[1:]).ljust(SECTOR, b"\0")

    def table_position(self, number: int) -> int:
        """The byte of the file where grain table `number` starts."""
        return self.grain_tables_offset * SECTOR + number * TABLE_BYTES


def volatile_header(free_tables: int, next_transaction: int, replay_journal: bool) -> bytes:
    """The second sector; while `replay_journal` is set the tables on disk can't be trusted."""
    fields = (VOLATILE_MAGIC, free_tables, next_transaction, int(replay_journal))
    return struct.pack("<4Q", *fields).ljust(SECTOR, b"\0")


def data_entries(grains: NDArray[np.int64]) -> Entries:
    """The table entries that place data in these grains of the file."""
    index = grains.astype(np.uint64)
    placed = ((index & _LOW_MASK) << _LOW_SHIFT) | (index >> _HIGH_SHIFT)
    return placed | (np.uint64(DATA) << _TYPE_SHIFT)


def plain_entry(kind: int) -> np.uint64:
    """The entry of a grain without data: UNMAPPED or ZERO."""
    return np.uint64(kind << 60)


def kinds(entries: Entries) -> NDArray[np.uint8]:
    """FROM_PARENT, UNMAPPED, ZERO or DATA for each entry."""
    return (entries >> _TYPE_SHIFT).astype(np.uint8)


def grain_indices(entries: Entries) -> NDArray[np.int64]:
    """The grain of the file that each DATA entry names."""
    low = (entries >> _LOW_SHIFT) & _LOW_MASK
    return (low | ((entries & _HIGH_MASK) << _HIGH_SHIFT)).astype(np.int64)


def open_sesparse(file: RangeFile) -> GrainTables:
    """Reads headers and directory of a seSparse extent.

    Raises:
        VmdkError: it is in use, truncated, or no seSparse extent that can be read.
    """
    layout = Layout.parse(file.name, read_range(file, 0, SECTOR, "the header"))
    _check_clean(file)
    capacity = layout.capacity * SECTOR
    check_sizes(file.name, capacity, GRAIN_BYTES)
    count = directory_entries(file.name, capacity, TABLE_COVERS, 8, layout.grain_dir_size * SECTOR // 8)
    directory = _table_positions(file, layout, count)
    start = layout.grains_offset * SECTOR

    def decode(entries: NDArray[np.unsignedinteger]) -> Decoded:
        return _decode(entries.astype(np.uint64, copy=False), start, file.size_bytes)

    tables = GrainTables(file, capacity, GRAIN_BYTES, _ENTRY, TABLE_ENTRIES, directory, decode)
    tables.check()
    return tables


def _check_clean(file: RangeFile) -> None:
    magic, _, _, replay_journal = struct.unpack_from("<4Q", read_range(file, SECTOR, SECTOR, "the volatile header"))
    if magic != VOLATILE_MAGIC:
        raise VmdkCorrupt(f"{file.name}: the volatile header isn't one.")
    if replay_journal:
        raise VmdkInUse(f"{file.name} has a journal to replay: its VM runs, or the host crashed while it did.")


def _table_positions(file: RangeFile, layout: Layout, count: int) -> NDArray[np.int64]:
    """The byte where each table starts, 0 for none; tables are numbered in the order in which they were handed out.

    The directory of a disk of 64 TiB has 32 MB: few copies are made of it.
    """
    raw = read_range(file, layout.grain_dir_offset * SECTOR, count * 8, "the grain directory")
    entries = np.frombuffer(raw, dtype=_ENTRY)
    named = entries != 0
    if (named & ((entries >> _DIRECTORY_SHIFT) != np.uint64(DIRECTORY_FLAG >> 32))).any():
        raise VmdkCorrupt(f"{file.name}: the grain directory has an entry that names no table.")
    numbers = (entries & _TABLE_MASK).view(np.int64)
    if (numbers >= layout.grain_tables_size * SECTOR // TABLE_BYTES).any():
        raise VmdkCorrupt(f"{file.name}: the grain directory names a table that the extent doesn't have.")
    if layout.grain_tables_offset * SECTOR > file.size_bytes or layout.grains_offset * SECTOR > file.size_bytes:
        raise VmdkTruncated(f"{file.name} ends before its grain tables or grains.")
    numbers *= TABLE_BYTES
    numbers += layout.grain_tables_offset * SECTOR
    numbers[~named] = 0
    return numbers


def _decode(entries: Entries, start: int, size_bytes: int) -> Decoded:
    found = kinds(entries)
    if (found > DATA).any():
        raise ValueError("a grain table has an entry of a kind that the format doesn't have")
    if (entries[found == FROM_PARENT] != 0).any():
        raise ValueError("a grain table has an entry of the parent's that names a grain")
    grains = np.minimum(grain_indices(entries), size_bytes // GRAIN_BYTES + 1)  # what's outside stays outside
    return Decoded(found, grains * GRAIN_BYTES + start)
