"""What the fuzzers share: files in memory, what is done with an extent, and mutations for a quick look."""

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from snapferry.transfer import Extents
from snapferry.vmdk import ZEROS, Chain, ChainError, Layer, VmdkError
from snapferry.vmdk.chain import Part
from snapferry.vmdk.files import RangeFile
from snapferry.vmdk.tables import GrainTables

from .builders import descriptor

CORPUS = Path(__file__).parent / "corpus"
PARSERS = ("descriptor", "cowd", "sesparse", "stream")
HUGE_BYTES = 1 << 46
_READ_BYTES = 4 << 20
_LOOK_BYTES = 64 << 20
_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 47, 1 << 52, (1 << 63) - 1, (1 << 64) - 1)


class MemoryFile:
    """A file of these bytes; zeros follow where it is said to be longer."""

    def __init__(self, data: bytes, size_bytes: int | None = None, name: str = "web01-000001-delta.vmdk") -> None:
        self.name, self._data = name, data
        self.size_bytes = len(data) if size_bytes is None else size_bytes

    def read(self, offset: int, length: int) -> memoryview:
        assert 0 <= offset <= offset + length <= self.size_bytes, "nothing behind a file's end is asked for"
        out = bytearray(length)
        piece = self._data[offset : offset + length]
        out[: len(piece)] = piece
        return memoryview(out)

    def data_extents(self) -> Extents:
        return Extents.whole(self.size_bytes)

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self.read(offset, len(view))

    def abort(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing to close."""


class MemoryFolder:
    """A datastore of these files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def open(self, path: str) -> MemoryFile:
        if path not in self._files:
            raise ChainError(f"There is no file {path!r}.")
        return MemoryFile(self._files[path], name=path)

    def answers(self) -> int:
        return 0


def look_at_extent(data: bytes, opener: Callable[[RangeFile], GrainTables]) -> None:
    """Opens an extent, resolves parts of its disk and reads a little; as it is, and as a huge file with a hole."""
    for size in (len(data), HUGE_BYTES):
        with_named_errors(lambda size=size: _look(MemoryFile(data, size), opener))


def _look(file: MemoryFile, opener: Callable[[RangeFile], GrainTables]) -> None:
    tables = opener(file)
    capacity = tables.capacity_bytes
    said = descriptor(512, "seSparse", "SESPARSE", file.name)
    chain = Chain((Layer("web01.vmdk", said, (Part(0, capacity, 0, tables),)),), (file,), lambda: 0)
    last = max(0, capacity - _LOOK_BYTES)
    parts = Extents.from_pairs([(0, min(capacity, _LOOK_BYTES)), (last, capacity - last)])
    look_at_chain(chain, parts)


def look_at_chain(chain: Chain, parts: Extents) -> None:
    """Resolves these parts and reads a little of them; each byte has to be there once."""
    for plan in chain.plans(parts):
        assert plan.extents == parts.intersect(plan.extents)
    if chain.capacity_bytes <= _LOOK_BYTES:
        assert chain.layer_extents(0).end <= chain.capacity_bytes
        assert chain.allocated().end <= chain.capacity_bytes
    left = _READ_BYTES
    for plan in chain.plans(parts):
        pieces, _ = plan.in_requests(1 << 20)
        for file, position, length in zip(pieces.files, pieces.positions, pieces.lengths, strict=True):
            if file != ZEROS:
                assert len(chain.files[file].read(int(position), int(length))) == length
                left -= int(length)
            if left < 0:
                return


def with_named_errors(act: Callable[[], None]) -> None:
    """Does it; where that fails, the error has to be one that helps an operator."""
    try:
        act()
    except VmdkError as error:
        assert error.cause.endswith(".")
        assert error.next_step


def mutations(seeds: list[bytes], count: int, rng: random.Random) -> Iterator[bytes]:
    """So many damaged copies of the seeds: numbers changed, pieces moved, doubled, cut off."""
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(max(1, len(data)))
            at = rng.choice([at, at // 8 * 8, rng.randrange(min(2048, max(1, len(data)))) // 4 * 4])
            match rng.randrange(6):
                case 0:
                    del data[at:]
                case 1:
                    data[at : at + 8] = struct.pack("<Q", rng.choice(_NUMBERS))
                case 2:
                    data[at : at + 4] = struct.pack("<I", rng.choice(_NUMBERS) & 0xFFFFFFFF)
                case 3:
                    data[at : at + 1] = rng.randbytes(1)
                case 4:
                    data[at:at] = data[at : at + rng.choice([1, 4, 8, 512])]
                case _:
                    where = rng.randrange(max(1, len(data)))
                    data[at : at + 8] = data[where : where + 8]
        yield bytes(data)
