"""A sparse extent, whatever its format: tables that say for each grain of the disk where its bytes are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snapferry.transfer.extents import Array, Extents
from snapferry.vmdk.errors import VmdkCorrupt, VmdkTruncated
from snapferry.vmdk.files import RangeFile
from snapferry.vmdk.runs import ZEROS, Runs

SECTOR: Final = 512
MOST_CAPACITY_BYTES: Final = 64 << 40
"""No VMDK is larger: vSphere's limit is 62 TB."""
MOST_DIRECTORY_BYTES: Final = 32 << 20
"""The directory of the largest seSparse extent; with other formats, what asks for more isn't sane."""

FROM_PARENT, UNMAPPED, ZERO, DATA = 0, 1, 2, 3
"""What a table says of a grain; the numbers are seSparse's."""


class Decoded(NamedTuple):
    """What entries of a table say: a kind for each, and the byte of the file where DATA starts."""

    kinds: NDArray[np.uint8]
    positions: Array


@dataclass(frozen=True, eq=False, slots=True)
class GrainTables:
    """One sparse extent, its header and directory read and checked; the tables are read when they are needed.

    Attributes:
        file: the extent's file.
        capacity_bytes: of the part of the disk that it describes.
        grain_bytes: a power of two.
        entry: the type of a table's entry.
        table_entries: entries of one table.
        directory: the byte of the file where each table starts; 0 where the whole table is the parent's.
        decode: reads entries; raises ValueError where one can't be.
    """

    file: RangeFile
    capacity_bytes: int
    grain_bytes: int
    entry: np.dtype[np.unsignedinteger]
    table_entries: int
    directory: Array
    decode: Callable[[NDArray[np.unsignedinteger]], Decoded]

    @property
    def table_bytes(self) -> int:
        return self.table_entries * self.entry.itemsize

    def check(self) -> None:
        """Looks whether the tables lie in the file, and apart.

        Raises:
            VmdkTruncated: a table lies outside of the file.
            VmdkCorrupt: two tables overlap, or the sizes are none that a VMDK has.
        """
        check_sizes(self.file.name, self.capacity_bytes, self.grain_bytes)
        tables = self.directory[self.directory != 0]
        tables.sort()
        if tables.size and (tables[0] < 0 or int(tables[-1]) + self.table_bytes > self.file.size_bytes):
            raise VmdkTruncated(f"{self.file.name}: a grain table lies outside of the file.")
        if tables.size > 1 and (tables[1:] - tables[:-1]).min() < self.table_bytes:
            raise VmdkCorrupt(f"{self.file.name}: two grain tables overlap.")

    def runs(self, wanted: Extents, file: int) -> Runs:
        """What the tables that `wanted` touches name, in disk order; it can lie outside of `wanted`, too.

        Args:
            wanted: bytes of this extent, few enough that `entries` are some million at most.
            file: the number that the file has in the result.

        Raises:
            VmdkCorrupt: an entry says what can't be.
            VmdkTruncated: a grain lies outside of the file.
        """
        slots = self._touched(wanted)
        if not slots.size:
            return Runs.joined([])
        entries = self._read(slots)
        try:
            kinds, positions = self.decode(entries)
        except ValueError as error:
            raise VmdkCorrupt(f"{self.file.name}: {error}.") from error
        named = np.flatnonzero(kinds != FROM_PARENT)
        slot, within = np.divmod(named, self.table_entries)
        offsets = (slots[slot] * self.table_entries + within) * self.grain_bytes
        on_disk = offsets < self.capacity_bytes  # the last table can be longer than the disk
        named, offsets = named[on_disk], offsets[on_disk]
        lengths = np.minimum(self.grain_bytes, self.capacity_bytes - offsets)
        data = kinds[named] == DATA
        places = np.where(data, positions[named], offsets)
        if (data & ((places < SECTOR) | (places > self.file.size_bytes - lengths))).any():
            raise VmdkTruncated(f"{self.file.name}: a grain lies outside of the file.")
        return Runs.merged(offsets, lengths, np.where(data, file, ZEROS), places)

    def entries(self, wanted: Extents) -> int:
        """How many entries have to be read to know the `runs` of `wanted`."""
        return self._touched(wanted).size * self.table_entries

    def _touched(self, wanted: Extents) -> Array:
        """The numbers of the tables that exist and describe anything of `wanted`."""
        covers = self.table_entries * self.grain_bytes
        first, end = int(wanted.starts[0]) // covers, -(-wanted.end // covers)
        slots = first + np.flatnonzero(self.directory[first:end])
        starts = slots * covers
        low = np.searchsorted(wanted.ends, starts, side="right")
        return slots[np.searchsorted(wanted.starts, starts + covers, side="left") > low]

    def _read(self, slots: Array) -> NDArray[np.unsignedinteger]:
        """The entries of these tables, one after the other; tables that follow each other are read at once."""
        out = np.empty((slots.size, self.table_entries), dtype=self.entry)
        places = self.directory[slots]
        order = np.argsort(places)
        places = places[order]
        breaks = np.flatnonzero(np.diff(places) != self.table_bytes) + 1
        for group in np.split(order, breaks):
            raw = self.file.read(int(self.directory[slots[group[0]]]), group.size * self.table_bytes)
            out[group] = np.frombuffer(raw, dtype=self.entry).reshape(group.size, self.table_entries)
        return out.reshape(-1)


def check_sizes(name: str, capacity_bytes: int, grain_bytes: int) -> None:
    """Looks whether a disk and its grains have a size that a VMDK can have.

    Raises:
        VmdkCorrupt: they don't.
    """
    if not 0 < capacity_bytes <= MOST_CAPACITY_BYTES:
        raise VmdkCorrupt(f"{name}: a disk can't have {capacity_bytes} bytes.")
    if not SECTOR <= grain_bytes <= 1 << 20 or grain_bytes & (grain_bytes - 1):
        raise VmdkCorrupt(f"{name}: a grain can't have {grain_bytes} bytes.")


def directory_entries(name: str, capacity_bytes: int, covers_bytes: int, entry_bytes: int, stated: int) -> int:
    """How many entries the directory of a disk has.

    Args:
        name: of the file.
        capacity_bytes: of the disk.
        covers_bytes: of the disk, described by one table.
        entry_bytes: of the directory's entries.
        stated: how many entries its header says that the directory has room for.

    Raises:
        VmdkCorrupt: there is no room for them, or there are too many.
    """
    needed = -(-capacity_bytes // covers_bytes)
    if stated < needed:
        raise VmdkCorrupt(f"{name}: the directory has room for {stated} tables, but the disk needs {needed}.")
    if needed * entry_bytes > MOST_DIRECTORY_BYTES:
        raise VmdkCorrupt(f"{name}: a directory of {needed} tables isn't one of this format.")
    return needed


def sector_entries(entries: NDArray[np.unsignedinteger], one_is_zero: bool) -> Decoded:
    """Reads entries of 32 bits: 0 is the parent's, any other the sector of the data.

    Args:
        entries: of one or more tables.
        one_is_zero: whether the extent's header says that an entry of 1 reads as zeros.

    Raises:
        ValueError: an entry is 1 and the header doesn't say what that means.
    """
    kinds = np.where(entries == 0, np.uint8(FROM_PARENT), np.uint8(DATA))
    ones = entries == 1
    if ones.any():
        if not one_is_zero:
            raise ValueError("a grain table has the entry 1, which is data to some readers and zeros to others")
        kinds[ones] = ZERO
    return Decoded(kinds, entries.astype(np.int64) * SECTOR)
