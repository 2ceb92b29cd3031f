"""A disk as its chain of files has it: a base and the deltas on top of it, resolved to ranges of files."""

import posixpath
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from typing import Final

import numpy as np

from snapferry.transfer.extents import BadExtents, Extents
from snapferry.vmdk import hosted
from snapferry.vmdk.cowd import open_cowd
from snapferry.vmdk.descriptor import MOST_BYTES, NO_PARENT_CID, Descriptor, ExtentLine
from snapferry.vmdk.errors import ChainError, DescriptorError, VmdkCorrupt, VmdkTruncated, VmdkUnsupported
from snapferry.vmdk.files import Folder, RangeFile, on_datastore
from snapferry.vmdk.hosted import open_hosted
from snapferry.vmdk.runs import ZEROS, Runs
from snapferry.vmdk.sesparse import open_sesparse
from snapferry.vmdk.tables import MOST_CAPACITY_BYTES, SECTOR, GrainTables

_MOST_LAYERS: Final = 256  # vSphere allows 32 snapshots on top of a base
_MOST_FILES: Final = 4096
_MOST_RUNS: Final = 1 << 18  # in one plan, more or less
_MOST_EXTENTS: Final = 1 << 19
_MOST_ENTRIES: Final = 1 << 18  # of tables that are decoded at once
_LARGEST_WINDOW_BYTES: Final = 1 << 40
_SMALLEST_WINDOW_BYTES: Final = 16 << 20
_TABLE_FORMATS: Final[dict[str, Callable[[RangeFile], GrainTables]]] = {
    "VMFSSPARSE": open_cowd,
    "SESPARSE": open_sesparse,
    "SPARSE": open_hosted,
}


@dataclass(frozen=True, eq=False)
class Part:
    """One extent of a layer.

    Attributes:
        start: where on the disk it begins, in bytes.
        end: the byte behind it.
        file: its number within the chain; ZEROS for an extent without a file.
        source: its tables; for a flat file the runs that it holds and that it leaves out, from the extent's start on.
    """

    start: int
    end: int
    file: int
    source: GrainTables | Runs

    def runs(self, wanted: Extents) -> Runs:
        """What the extent names of `wanted`, in disk order; it lies within this part of the disk."""
        if isinstance(self.source, Runs):
            return self.source.moved(self.start).cut(wanted)
        return self.source.runs(self._inside(wanted), self.file).moved(self.start).cut(wanted)

    def entries(self, wanted: Extents) -> int:
        """How many entries of tables have to be read for `runs`."""
        return 0 if isinstance(self.source, Runs) else self.source.entries(self._inside(wanted))

    def _inside(self, wanted: Extents) -> Extents:
        return Extents(wanted.starts - self.start, wanted.lengths) if self.start else wanted


@dataclass(frozen=True, eq=False)
class Layer:
    """One VMDK of a chain.

    Attributes:
        path: of its descriptor, on its datastore.
        descriptor: what it says.
        parts: its extents, in disk order.
    """

    path: str
    descriptor: Descriptor
    parts: tuple[Part, ...]

    @property
    def capacity_bytes(self) -> int:
        return self.parts[-1].end

    def runs(self, wanted: Extents) -> Runs:
        """What of `wanted` this layer names, in disk order; what it leaves out is its parent's."""
        return Runs.joined([part.runs(mine) for part, mine in self._shared_out(wanted)])

    def entries(self, wanted: Extents) -> int:
        """How many entries of tables have to be read for `runs`."""
        return sum(part.entries(mine) for part, mine in self._shared_out(wanted))

    def _shared_out(self, wanted: Extents) -> Iterator[tuple[Part, Extents]]:
        """The parts that have to do with `wanted`, and what of it is theirs."""
        if len(self.parts) == 1:
            yield self.parts[0], wanted
            return
        first = bisect_right(self.parts, int(wanted.starts[0]), key=lambda part: part.end)
        for part in takewhile(lambda part: part.start < wanted.end, islice(self.parts, first, None)):
            if len(mine := wanted.intersect(Extents.of([part.start], [part.end - part.start]))):
                yield part, mine


@dataclass(frozen=True, eq=False)
class Chain:
    """A disk, ready to be read: headers and directories are read and checked, tables are read when they are needed.

    Attributes:
        layers: the base first, the leaf last.
        files: every file with bytes of the disk; the numbers in `Runs.files` count them.
        answers: as `Folder.answers`.
    """

    layers: tuple[Layer, ...]
    files: tuple[RangeFile, ...]
    answers: Callable[[], int]

    @property
    def capacity_bytes(self) -> int:
        return self.layers[-1].capacity_bytes

    def allocated(self) -> Extents:
        """The bytes that may be other than zero; never one too few, and a few more where there are very many runs.

        Raises:
            VmdkError: a table says what can't be.
            TransferError: a file can't be read.
        """
        resolved = (self._resolved(wanted) for wanted in self._windows(Extents.whole(self.capacity_bytes)))
        return _all_of(runs.take(runs.files != ZEROS) for runs in resolved)

    def layer_extents(self, number: int) -> Extents:
        """What a layer names: data, zeros and unmapped alike; all that differs from its parent, and maybe more.

        Args:
            number: of the layer; the base is 0.

        Raises:
            VmdkError: a table says what can't be.
            TransferError: a file can't be read.
        """
        layer = self.layers[number]
        return _all_of(layer.runs(wanted) for wanted in self._windows(Extents.whole(self.capacity_bytes)))

    def plans(self, extents: Extents) -> Iterator[Runs]:
        """Where the bytes of `extents` lie, each byte once, in the order in which the files have them.

        A plan has some hundred thousand runs: with more, the next one starts at the files' beginning again.

        Raises:
            BadExtents: they reach past the disk's end.
            VmdkError: a table says what can't be.
            TransferError: a file can't be read.
        """
        if extents.end > self.capacity_bytes:
            raise BadExtents(f"{extents!r} reach past the end of a disk of {self.capacity_bytes} bytes.")
        found: list[Runs] = []
        count = 0
        for wanted in self._windows(extents):
            found.append(self._resolved(wanted))
            count += len(found[-1])
            if count > _MOST_RUNS:
                yield self._ordered(found)
                found, count = [], 0
        if found:
            yield self._ordered(found)

    def close(self) -> None:
        """Closes every file."""
        with ExitStack() as stack:
            for file in self.files:
                stack.callback(file.close)

    def _resolved(self, wanted: Extents) -> Runs:
        """Each byte of `wanted` from the topmost layer that names it; what none names is zeros."""
        found = []
        for layer in reversed(self.layers):
            if not len(wanted):
                break
            if len(named := layer.runs(wanted)):
                found.append(named)
                complete = int(named.lengths.sum()) == wanted.total_bytes
                wanted = Extents.empty() if complete else wanted.subtract(named.extents)
        return Runs.joined([*found, Runs.zeros(wanted)])

    def _ordered(self, found: list[Runs]) -> Runs:
        plan = Runs.joined(found).by_position()
        if (number := plan.overlapping()) is not None:
            raise VmdkCorrupt(f"{self.files[number].name}: two places of the disk share a grain.")
        return plan

    def _windows(self, extents: Extents, size: int = _LARGEST_WINDOW_BYTES) -> Iterator[Extents]:
        """The extents, so much of the disk at a time that the tables to be read for it are some megabytes."""
        for wanted in _pieces(extents, size):
            if size > _SMALLEST_WINDOW_BYTES and sum(layer.entries(wanted) for layer in self.layers) > _MOST_ENTRIES:
                yield from self._windows(wanted, size // 16)
            else:
                yield wanted


class _Opening:
    """Opens the files of a chain, the leaf first, and closes them again when one can't be read."""

    def __init__(self, folder: Folder, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._paths: set[str] = set()
        self.files: list[RangeFile] = []

    def layer(self, path: str) -> Layer:
        """Reads a descriptor and opens its extents."""
        start = self._folder.open(path)
        try:
            head = bytes(start.read(0, min(len(hosted.MAGIC), start.size_bytes)))
            within = head == hosted.MAGIC
            descriptor = hosted.embedded_descriptor(start) if within else _descriptor(start)
        finally:
            start.close()
        if within and [line.kind for line in descriptor.extents] != ["SPARSE"]:
            raise DescriptorError(f"{path} is one sparse extent, but describes something else.")
        if not descriptor.extents or descriptor.capacity_sectors * SECTOR > MOST_CAPACITY_BYTES:
            raise DescriptorError(f"{path} describes a disk of {descriptor.capacity_sectors} sectors.")
        parts, at = [], 0
        for line in descriptor.extents:
            if not line.sectors:
                raise DescriptorError(f"{path} describes an extent of no sectors.")
            parts.append(self._part(path, line, at, posixpath.basename(path) if within else line.file))
            at = parts[-1].end
        return Layer(path, descriptor, tuple(parts))

    def _part(self, path: str, line: ExtentLine, start: int, name: str | None) -> Part:
        length = line.sectors * SECTOR
        whole = Extents.whole(length)
        if line.kind == "ZERO":
            return Part(start, start + length, ZEROS, Runs.zeros(whole))
        if line.kind not in ("VMFS", "FLAT", *_TABLE_FORMATS):
            raise VmdkUnsupported(f"{path} has an extent of type {line.kind}, whose bytes lie in no file of its own.")
        if name and "://" in name:
            raise VmdkUnsupported(f"{path} is held by the object {name}: its bytes lie in no file.")
        if not name or "/" in name:
            raise DescriptorError(f"{path} names {name!r} as the file of an extent.")
        file = self._open(posixpath.join(posixpath.dirname(path), name))
        number = len(self.files) - 1
        if line.kind in _TABLE_FORMATS:
            tables = _TABLE_FORMATS[line.kind](file)
            if tables.capacity_bytes < length:
                raise VmdkCorrupt(f"{file.name} describes {tables.capacity_bytes} bytes of a disk of {length}.")
            return Part(start, start + length, number, tables)
        shift = line.offset_sectors * SECTOR
        if shift + length > file.size_bytes:
            raise VmdkTruncated(f"{file.name} has {file.size_bytes} bytes, but should have {shift + length}.")
        return Part(start, start + length, number, _flat(file, number, shift, whole))

    def _open(self, path: str) -> RangeFile:
        place = on_datastore(path)
        if place in self._paths or len(self._paths) == _MOST_FILES:
            raise ChainError(f"The chain names {path} twice, or far too many files.")
        self._paths.add(place)
        file = self._folder.open(path)
        self._stack.callback(file.close)
        self.files.append(file)
        return file


def open_chain(folder: Folder, path: str) -> Chain:
    """Opens a disk with all its parents.

    Args:
        folder: the datastore, or what stands for it.
        path: of the descriptor of the disk as it is wanted: the leaf, or the frozen file of a snapshot.

    Raises:
        VmdkError: a file is missing, in use, damaged, of a format that isn't read here, or doesn't fit the others.
        TransferError: a file can't be read.
    """
    with ExitStack() as stack:
        opening = _Opening(folder, stack)
        layers: list[Layer] = []
        seen: set[str] = set()
        while True:
            if on_datastore(path) in seen or len(seen) == _MOST_LAYERS:
                raise ChainError(f"The parents of {layers[0].path} go round in a circle, or are far too many.")
            seen.add(on_datastore(path))
            layers.append(opening.layer(path))
            if len(layers) > 1:
                _check_fit(layers[-2], layers[-1])
            descriptor = layers[-1].descriptor
            if descriptor.parent_cid == NO_PARENT_CID:
                break
            hint = descriptor.parent_file_name_hint
            if not hint:
                raise ChainError(f"{path} has a parent, but doesn't name it.")
            path = posixpath.join(posixpath.dirname(path), hint)
        chain = Chain(tuple(reversed(layers)), tuple(opening.files), folder.answers)
        stack.pop_all()
        return chain


def _pieces(extents: Extents, size: int) -> Iterator[Extents]:
    """The extents, in pieces that end where a multiple of `size` bytes does."""
    if not len(extents):
        return
    edges = np.arange(extents.starts[0] // size, -(-extents.end // size) + 1) * size
    first = np.searchsorted(extents.ends, edges, side="right").tolist()
    behind = np.searchsorted(extents.starts, edges, side="left").tolist()
    for number, (start, end) in enumerate(pairwise(edges.tolist())):
        low, high = first[number], behind[number + 1]
        if low < high:
            starts = np.maximum(extents.starts[low:high], start)
            yield Extents(starts, np.minimum(extents.ends[low:high], end) - starts)


def _descriptor(file: RangeFile) -> Descriptor:
    if file.size_bytes > MOST_BYTES:
        raise DescriptorError(f"{file.name} is too long for a VMDK descriptor.")
    return Descriptor.decode(file.name, bytes(file.read(0, file.size_bytes)))


def _flat(file: RangeFile, number: int, shift_bytes: int, whole: Extents) -> Runs:
    """What a flat file holds, and as zeros what its holes leave out."""
    data = file.data_extents()
    inside = data.intersect(Extents.of([shift_bytes], [whole.end]))
    held = Extents.of(inside.starts - shift_bytes, inside.lengths)
    both = Runs.joined([Runs.in_file(held, number, shift_bytes), Runs.zeros(whole.subtract(held))])
    return both.take(np.argsort(both.offsets))


def _check_fit(child: Layer, parent: Layer) -> None:
    """The CID is no identity, but a parent that was written to after its child was made isn't the child's any more."""
    if child.descriptor.parent_cid != parent.descriptor.cid:
        raise ChainError(f"{parent.path} was changed after {child.path} was made from it: its CID is another one.")
    if child.capacity_bytes != parent.capacity_bytes:
        sizes = f"{parent.capacity_bytes} and {child.capacity_bytes} bytes"
        raise ChainError(f"{parent.path} and {child.path} are disks of different size: {sizes}.")


def _all_of(parts: Iterator[Runs]) -> Extents:
    """The bytes that the runs name; with very many runs those in between as well, which keeps the memory bounded."""
    found = [Extents.empty()]
    count, gap_bytes = 0, 0
    for runs in parts:
        found.append(runs.extents)
        count += len(found[-1])
        if count > _MOST_EXTENTS:
            whole = _union(found)
            while len(whole) > _MOST_EXTENTS // 2:
                gap_bytes = max(2 * gap_bytes, 4096)
                whole = whole.coalesce(gap_bytes)
            found, count = [whole], len(whole)
    return _union(found)


def _union(parts: list[Extents]) -> Extents:
    return Extents.of(np.concatenate([one.starts for one in parts]), np.concatenate([one.lengths for one in parts]))
