"""The layout of a COWD extent (`vmfsSparse`), the delta format of VMFS 5 below 2 TB and of NFS.

All numbers are little-endian; offsets count sectors of 512 bytes. Facts: QEMU's block/vmdk.c and libvmdk's description.
"""

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snapferry.vmdk.errors import VmdkCorrupt, VmdkInUse, VmdkUnsupported
from snapferry.vmdk.files import RangeFile, read_range
from snapferry.vmdk.tables import SECTOR, Decoded, GrainTables, check_sizes, directory_entries, sector_entries

MAGIC: Final = b"COWD"
HEADER_BYTES: Final = 2048
TABLE_ENTRIES: Final = 4096
ENTRY: Final = np.dtype("<u4")
GRAIN_BYTES: Final = SECTOR
"""Of the extents that hosts write; a header may name another size."""
TABLE_COVERS: Final = TABLE_ENTRIES * GRAIN_BYTES
"""Bytes of the disk that one grain table describes then: 2 MiB."""
DIRECTORY_SECTOR: Final = HEADER_BYTES // SECTOR
"""Where hosts put the grain directory."""

_FIELDS: Final = struct.Struct("<4s7I")
_VERSION: Final = 1
_FLAGS: Final = 3
_UNCLEAN_AT: Final = 1648


class Header(NamedTuple):
    """The fields of a COWD header that reading needs, as they lie from its start."""

    magic: bytes
    version: int
    flags: int
    capacity: int
    grain: int
    directory: int
    directory_entries: int
    free: int


def header(capacity: int, directory_entries: int, free: int, *, unclean: bool) -> bytes:
    """The header of an extent as hosts write it.

    Args:
        capacity: of the disk, in sectors.
        directory_entries: grain tables of the disk.
        free: the first sector behind the tables and grains.
        unclean: while it is set, the tables on disk can't be trusted.
    """
    fields = (MAGIC, _VERSION, _FLAGS, capacity, GRAIN_BYTES // SECTOR, DIRECTORY_SECTOR, directory_entries, free)
    raw = bytearray(_FIELDS.pack(*fields).ljust(HEADER_BYTES, b"\0"))
    raw[_UNCLEAN_AT] = unclean
    return bytes(raw)


def decode(entries: NDArray[np.unsignedinteger]) -> Decoded:
    """Reads entries of grain tables.

    Raises:
        ValueError: an entry is 1, which readers take for different things.
    """
    return sector_entries(entries, one_is_zero=False)


def open_cowd(file: RangeFile) -> GrainTables:
    """Reads header and directory of a COWD extent.

    Raises:
        VmdkError: it is in use, truncated, or no COWD extent that can be read.
    """
    raw = read_range(file, 0, HEADER_BYTES, "the header")
    fields = Header(*_FIELDS.unpack_from(raw))
    if fields.magic != MAGIC:
        raise VmdkCorrupt(f"{file.name} isn't a COWD extent.")
    if (fields.version, fields.flags) != (_VERSION, _FLAGS):
        raise VmdkUnsupported(f"{file.name}: COWD version {fields.version} with flags {fields.flags}.")
    if raw[_UNCLEAN_AT]:
        raise VmdkInUse(f"{file.name} wasn't closed: its VM runs, or the host crashed while it did.")
    capacity, grain_bytes = fields.capacity * SECTOR, fields.grain * SECTOR
    check_sizes(file.name, capacity, grain_bytes)
    count = directory_entries(file.name, capacity, TABLE_ENTRIES * grain_bytes, 4, fields.directory_entries)
    names = read_range(file, fields.directory * SECTOR, count * 4, "the grain directory")
    directory = np.frombuffer(names, dtype=ENTRY).astype(np.int64) * SECTOR

    tables = GrainTables(file, capacity, grain_bytes, ENTRY, TABLE_ENTRIES, directory, decode)
    tables.check()
    return tables
