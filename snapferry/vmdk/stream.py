"""streamOptimized: a whole disk, compressed, read from front to back as it arrives.

Facts: VMware's "Virtual Disk Format 5.0"; QEMU's block/vmdk.c, whose own files have the tables in front instead of
behind, and end without a marker.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snapferry.seams import Block
from snapferry.vmdk.descriptor import Descriptor
from snapferry.vmdk.errors import VmdkCorrupt, VmdkTruncated, VmdkUnsupported
from snapferry.vmdk.hosted import COMPRESSED, DEFLATE, DIRECTORY_AT_END, ENTRY, MARKERS, Header
from snapferry.vmdk.tables import SECTOR

_END, _TABLE, _DIRECTORY, _FOOTER = 0, 1, 2, 3
_MARKER: Final = struct.Struct("<QII")
_GRAIN_DATA_AT: Final = 12
_LEAST_GRAIN_SECTORS: Final = 128
_PIECE_BYTES: Final = 1 << 20
_MORE_MARKERS: Final = 16


class PackedGrain(NamedTuple):
    """A grain as it was sent; `StreamOptimized.unpack` makes its bytes of it."""

    offset: int
    length: int
    """Bytes of the disk that it holds; shorter than a grain only at the disk's end."""
    data: bytes


class StreamOptimized:
    """A disk as an export lease or an OVA sends it. What no grain names reads as zeros.

    Args:
        read: gives up to so many of the next bytes; none at the end.
        name: what error messages call the stream.

    Raises:
        VmdkError: it doesn't begin like such a stream.
    """

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._read = read
        self._name = name
        self._header = Header.parse(name, self._exactly(SECTOR))
        flags = COMPRESSED | MARKERS
        if self._header.flags & flags != flags or self._header.compression != DEFLATE:
            raise VmdkUnsupported(f"{name} isn't streamOptimized.")
        if self._header.grain < _LEAST_GRAIN_SECTORS:
            raise VmdkUnsupported(f"{name}: streamOptimized with grains of {self._header.grain} sectors.")
        self.capacity_bytes = self._header.capacity * SECTOR
        self.grain_bytes = self._header.grain * SECTOR
        self.descriptor = self._descriptor()
        self._grains_named = self._count_grains()

    def grains(self) -> Iterator[Block]:
        """The grains as they come, each once.

        Raises:
            VmdkCorrupt: a marker or a grain says what can't be, or a grain comes twice.
            VmdkTruncated: the stream ends before its disk does.
        """
        for grain in self.packed():
            yield Block(grain.offset, grain.length, memoryview(self.unpack(grain)))

    def packed(self) -> Iterator[PackedGrain]:
        """The grains as they come, each once, to be unpacked elsewhere; raises as `grains`."""
        count = passed = named = 0
        # one bit a grain; costs memory only where it's written to
        seen = np.zeros(-(-self._header.capacity // self._header.grain) // 8 + 1, dtype=np.uint8)
        while marker := self._marker():
            value, size, kind = _MARKER.unpack_from(marker)
            if size:
                yield self._grain(value, size, marker, seen)
                count += 1
            elif kind == _END:
                break
            else:
                passed += 1
                if passed > 2 * self._header.tables + _MORE_MARKERS:
                    raise VmdkCorrupt(f"{self._name} names more tables than its disk can have.")
                named += self._metadata(value, kind)
        if self._grains_named is not None and self._grains_named != count:
            cause = f"{self._name} has {count} grains, but its tables name {self._grains_named}."
            raise VmdkTruncated(cause)
        if named > count and named != 2 * count:  # a writer may send every table twice
            raise VmdkTruncated(f"{self._name} has {count} grains, but its tables name {named}.")

    def _descriptor(self) -> Descriptor | None:
        header = self._header
        if not header.descriptor:
            return None
        if header.descriptor + header.descriptor_size > header.overhead:
            raise VmdkCorrupt(f"{self._name}: the descriptor reaches into the grains.")
        self._skip(header.descriptor - 1)
        raw = self._exactly(header.descriptor_size * SECTOR)
        return Descriptor.decode(self._name, raw)

    def _count_grains(self) -> int | None:
        """Goes on to the first marker; how many grains the tables in front of it name, None where there are none."""
        header = self._header
        at = header.descriptor + header.descriptor_size if header.descriptor else 1
        if header.directory == DIRECTORY_AT_END:
            self._skip(header.overhead - at)
            return None
        tables = header.directory + -(-header.tables * ENTRY.itemsize // SECTOR)
        if not at <= header.directory < tables <= header.overhead:
            raise VmdkCorrupt(f"{self._name}: the grain directory doesn't lie in front of the grains.")
        self._skip(tables - at)
        return self._named(header.overhead - tables)

    def _marker(self) -> bytes | None:
        """The next marker's sector; None at the end of a stream that has its tables in front."""
        first = self._read(SECTOR)
        if first:
            return first if len(first) == SECTOR else first + self._exactly(SECTOR - len(first))
        if self._grains_named is None:
            raise VmdkTruncated(f"{self._name} ended without the marker of its end.")
        return None

    def _grain(self, sector: int, size: int, marker: bytes, seen: NDArray[np.uint8]) -> PackedGrain:
        grain_bytes = self._header.grain * SECTOR
        number, within = divmod(sector, self._header.grain)
        if within or sector >= self._header.capacity:
            raise VmdkCorrupt(f"{self._name}: no grain of the disk begins at sector {sector}.")
        if size > grain_bytes + grain_bytes // 8 + SECTOR:  # deflate can't make data longer than by a few bytes
            raise VmdkCorrupt(f"{self._name}: the grain at sector {sector} has {size} compressed bytes.")
        if int(seen[number >> 3]) >> (number & 7) & 1:
            raise VmdkCorrupt(f"{self._name}: the grain at sector {sector} comes twice.")
        seen[number >> 3] |= 1 << (number & 7)
        rest = max(0, -(-(_GRAIN_DATA_AT + size) // SECTOR) - 1) * SECTOR
        packed = (marker + self._exactly(rest))[_GRAIN_DATA_AT : _GRAIN_DATA_AT + size]
        offset = sector * SECTOR
        length = min(grain_bytes, self.capacity_bytes - offset)
        return PackedGrain(offset, length, packed)

    def unpack(self, grain: PackedGrain) -> bytes:
        """The grain's bytes; by any thread, side by side. Raises VmdkCorrupt."""
        sector, length = grain.offset // SECTOR, grain.length
        unpack = zlib.decompressobj()
        try:
            data = unpack.decompress(grain.data, self.grain_bytes + 1)
        except zlib.error as error:
            raise VmdkCorrupt(f"{self._name}: the grain at sector {sector} can't be unpacked: {error}.") from error
        # the last one may be whole, or end with the disk
        if len(data) not in (length, self.grain_bytes) or not unpack.eof:
            raise VmdkCorrupt(f"{self._name}: the grain at sector {sector} doesn't unpack to {length} bytes.")
        return data if len(data) == length else data[:length]

    def _metadata(self, sectors: int, kind: int) -> int:
        """Passes a table, a directory or a footer, whose size some writers leave out; how many grains a table names."""
        header = self._header
        sizes = {
            _TABLE: -(-header.table_entries * ENTRY.itemsize // SECTOR),
            _DIRECTORY: -(-header.tables * ENTRY.itemsize // SECTOR),
            _FOOTER: 1,
        }
        if kind not in sizes:
            raise VmdkCorrupt(f"{self._name}: a marker of the unknown type {kind}.")
        if sectors not in (0, sizes[kind]):
            raise VmdkCorrupt(f"{self._name}: a marker of type {kind} says that {sectors} sectors follow it.")
        if kind == _TABLE:
            return self._named(sizes[kind])
        if kind == _DIRECTORY:
            self._skip(sizes[kind])
            return 0
        footer = Header.parse(self._name, self._exactly(SECTOR))
        if (footer.capacity, footer.grain) != (header.capacity, header.grain):
            raise VmdkCorrupt(f"{self._name}: header and footer name different disks.")
        return 0

    def _named(self, sectors: int) -> int:
        """How many grains the tables in the next sectors name."""
        return sum(int((np.frombuffer(piece, dtype=ENTRY) > 1).sum()) for piece in self._pieces(sectors))

    def _exactly(self, length: int) -> bytes:
        parts = []
        while length:
            part = self._read(length)
            if not part:
                raise VmdkTruncated(f"{self._name} ended before its disk did.")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _pieces(self, sectors: int) -> Iterator[bytes]:
        if sectors < 0:
            raise VmdkCorrupt(f"{self._name}: header and descriptor reach into the grains.")
        left = sectors * SECTOR
        while left:
            piece = self._exactly(min(left, _PIECE_BYTES))
            left -= len(piece)
            yield piece

    def _skip(self, sectors: int) -> None:
        for _ in self._pieces(sectors):
            pass
