"""The layout of a sparse extent as VMware's desktop products and exports have it: `KDMV`.

All numbers are little-endian; offsets count sectors of 512 bytes. Facts: VMware's "Virtual Disk Format 5.0" and QEMU's
block/vmdk.c.
"""

import struct
from typing import Final, NamedTuple, Self

import numpy as np

from snapferry.vmdk.descriptor import MOST_BYTES, Descriptor
from snapferry.vmdk.errors import VmdkCorrupt, VmdkInUse, VmdkUnsupported
from snapferry.vmdk.files import RangeFile, read_range
from snapferry.vmdk.tables import SECTOR, GrainTables, check_sizes, directory_entries, sector_entries

MAGIC: Final = b"KDMV"
DIRECTORY_AT_END: Final = 0xFFFF_FFFF_FFFF_FFFF
COMPRESSED: Final = 0x10000
MARKERS: Final = 0x20000
DEFLATE: Final = 1
ENTRY: Final = np.dtype("<u4")

_ZERO_GRAINS: Final = 0x4
_FIELDS: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
_LINE_ENDS: Final = b"\n \r\n"


class Header(NamedTuple):
    """The fields of the header, as they lie from its start."""

    magic: bytes
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    table_entries: int
    redundant_directory: int
    directory: int
    overhead: int
    unclean: int
    line_ends: bytes
    compression: int

    @classmethod
    def parse(cls, name: str, raw: bytes | memoryview) -> Self:
        """Reads the first sector.

        Raises:
            VmdkCorrupt: it is no such header, or its sizes can't be.
            VmdkUnsupported: a version that nobody described.
            VmdkInUse: the extent wasn't closed.
        """
        header = cls(*_FIELDS.unpack_from(raw))
        if header.magic != MAGIC:
            raise VmdkCorrupt(f"{name} isn't a sparse extent.")
        if not 1 <= header.version <= 3:
            raise VmdkUnsupported(f"{name}: sparse extents of version {header.version}.")
        if header.line_ends != _LINE_ENDS:
            raise VmdkCorrupt(f"{name} was changed on its way: its line ends were converted.")
        if header.unclean:
            raise VmdkInUse(f"{name} wasn't closed: a VM uses it, or its writer crashed.")
        check_sizes(name, header.capacity * SECTOR, header.grain * SECTOR)
        if not 1 <= header.table_entries <= 4096:
            raise VmdkCorrupt(f"{name}: a grain table can't have {header.table_entries} entries.")
        if header.descriptor_size * SECTOR > MOST_BYTES:
            raise VmdkCorrupt(f"{name}: a descriptor can't have {header.descriptor_size} sectors.")
        return header

    @property
    def tables(self) -> int:
        """How many grain tables the disk needs."""
        return -(-self.capacity // (self.grain * self.table_entries))


def embedded_descriptor(file: RangeFile) -> Descriptor:
    """The descriptor within a `monolithicSparse` file.

    Raises:
        VmdkError: there is none that can be read.
    """
    header = Header.parse(file.name, read_range(file, 0, SECTOR, "the header"))
    raw = read_range(file, header.descriptor * SECTOR, header.descriptor_size * SECTOR, "the descriptor")
    return Descriptor.decode(file.name, bytes(raw))


def open_hosted(file: RangeFile) -> GrainTables:
    """Reads header and directory of a sparse extent that isn't compressed.

    Raises:
        VmdkError: it is compressed, in use, truncated, or no sparse extent that can be read.
    """
    header = Header.parse(file.name, read_range(file, 0, SECTOR, "the header"))
    if header.flags & (COMPRESSED | MARKERS) or header.compression:
        raise VmdkUnsupported(f"{file.name} is compressed: it can only be read as a stream.")
    capacity, grain_bytes = header.capacity * SECTOR, header.grain * SECTOR
    count = directory_entries(file.name, capacity, header.table_entries * grain_bytes, 4, header.tables)
    names = read_range(file, header.directory * SECTOR, count * 4, "the grain directory")
    directory = np.frombuffer(names, dtype=ENTRY).astype(np.int64) * SECTOR
    zeros = bool(header.flags & _ZERO_GRAINS)

    tables = GrainTables(
        file, capacity, grain_bytes, ENTRY, header.table_entries, directory, lambda one: sector_entries(one, zeros)
    )
    tables.check()
    return tables
