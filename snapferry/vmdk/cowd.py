"""The layout of a COWD extent (`vmfsSparse`), the delta format of VMFS 5 below 2 TB and of NFS.

All numbers are little-endian; offsets count sectors of 512 bytes. Facts: QEMU's block/vmdk.c and libvmdk's description.
"""

import struct
from typing import Final, NamedTuple

import numpy as np

from snapferry.vmdk.errors import VmdkCorrupt, VmdkInUse, VmdkUnsupported
from snapferry.vmdk.files import RangeFile, read_range
from snapferry.vmdk.tables import SECTOR, GrainTables, check_sizes, directory_entries, sector_entries

MAGIC: Final = b"COWD"
HEADER_BYTES: Final = 2048
TABLE_ENTRIES: Final = 4096
ENTRY: Final = np.dtype("<u4")

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


def open_cowd(file: RangeFile) -> GrainTables:
    """Reads header and directory of a COWD extent.

    Raises:
        VmdkError: it is in use, truncated, or no COWD extent that can be read.
    """
    raw = read_range(file, 0, HEADER_BYTES, "the header")
    header = Header(*_FIELDS.unpack_from(raw))
    if header.magic != MAGIC:
        raise VmdkCorrupt(f"{file.name} isn't a COWD extent.")
    if (header.version, header.flags) != (_VERSION, _FLAGS):
        raise VmdkUnsupported(f"{file.name}: COWD version {header.version} with flags {header.flags}.")
    if raw[_UNCLEAN_AT]:
        raise VmdkInUse(f"{file.name} wasn't closed: its VM runs, or the host crashed while it did.")
    capacity, grain_bytes = header.capacity * SECTOR, header.grain * SECTOR
    check_sizes(file.name, capacity, grain_bytes)
    count = directory_entries(file.name, capacity, TABLE_ENTRIES * grain_bytes, 4, header.directory_entries)
    names = read_range(file, header.directory * SECTOR, count * 4, "the grain directory")
    directory = np.frombuffer(names, dtype=ENTRY).astype(np.int64) * SECTOR

    tables = GrainTables(
        file, capacity, grain_bytes, ENTRY, TABLE_ENTRIES, directory, lambda one: sector_entries(one, one_is_zero=False)
    )
    tables.check()
    return tables
