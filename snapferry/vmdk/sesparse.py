"""The layout of a seSparse extent, the delta format of VMFS 6: headers, grain directory, grain tables and grains.

All numbers are little-endian; offsets in the header count sectors of 512 bytes. Facts: QEMU's block/vmdk.c.
"""

import struct
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

SECTOR = 512
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

FROM_PARENT, UNMAPPED, ZERO, DATA = 0, 1, 2, 3
"""What the top four bits of a grain's entry say."""

_TYPE_SHIFT = np.uint64(60)
_LOW_MASK = np.uint64(0xFFF)
_LOW_SHIFT = np.uint64(48)
_HIGH_SHIFT = np.uint64(12)
_HIGH_MASK = np.uint64(0x0000_FFFF_FFFF_FFFF)

Entries = NDArray[np.uint64]


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
        journal = (1, 1, 2, 2, 2048, 2048)
        return struct.pack("<26Q", *head, *journal, *self[1:]).ljust(SECTOR, b"\0")

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
