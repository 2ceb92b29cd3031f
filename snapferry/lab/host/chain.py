"""A disk as a chain of layers sees it: a flat base and the deltas on top of it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snapferry.lab.digest import BLOCK_BYTES
from snapferry.lab.host.deltas import DeltaExtent
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.extents import FlatExtent, read_fully, runs_of
from snapferry.vmdk import Descriptor
from snapferry.vmdk.tables import DATA, FROM_PARENT

_NOWHERE = -2
_ZEROS = -1


@dataclass(eq=False)
class Layer:
    """One VMDK of a chain: its descriptor's file, what stands in it, and the extent that holds its blocks."""

    path: Path
    descriptor: Descriptor
    extent: FlatExtent | DeltaExtent
    live: bool = True
    """Whether it is open for writing: the leaf of a running VM, or a file that takes up its child."""
    written: bool = False
    """Whether anything was written since it was opened."""

    def save_descriptor(self, **changes: object) -> None:
        """Rewrites the descriptor's file in place of the old one, in one step."""
        self.descriptor = self.descriptor.model_copy(update=changes)
        fresh = self.path.with_suffix(".tmp")
        fd = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(self.descriptor.text())
        fresh.replace(self.path)

    def open_for_writing(self) -> None:
        self.live, self.written = True, False
        self.extent.open_for_writing()

    def close(self, new_cid: int) -> None:
        """Closes the layer cleanly; its CID changes if it was written."""
        self.extent.close()
        self.live = False
        if self.written:
            self.save_descriptor(cid=new_cid)

    def remove(self) -> None:
        """Takes the files away; readers that have them open go on."""
        for path in (self.path, self.extent.path, track_path(self.path)):
            path.unlink(missing_ok=True)


def track_path(descriptor: Path) -> Path:
    """The change tracking file beside a descriptor."""
    return descriptor.with_name(f"{descriptor.stem}-ctk.vmdk")


@dataclass(frozen=True)
class View:
    """The blocks of one disk as of one layer; parents included.

    A view of a frozen layer stays right while its children are consolidated into it or into its parents: what a
    child holds is looked up in the child first, and the view keeps its files open.
    """

    label: str
    capacity_bytes: int
    layers: tuple[Layer, ...]
    valid: Callable[[], bool] = lambda: True

    def check(self) -> None:
        """Raises HostError (locked) once the view's snapshot is gone or its leaf is being written again."""
        if not self.valid():
            raise HostError("locked", f"{self.layers[-1].path.name} may have changed since it was opened.")

    def read(self, offset: int, view: memoryview) -> None:
        """Fills `view` with the disk's bytes from `offset` (both multiples of 512)."""
        read_chain(self.layers, offset, view)

    def data_runs(self) -> NDArray[np.int64]:
        """Rows of (start, end), in disk order and apart, that cover all data; the rest reads as zeros."""
        return merge_runs(np.concatenate([layer.extent.data_runs() for layer in self.layers]))

    def blocks(self, chunk_bytes: int = 4 << 20) -> Iterator[tuple[int, memoryview]]:
        """The bytes of every data run, widened to whole blocks of `lab.digest`, piece by piece in disk order.

        A piece is valid until the next one.
        """
        buffer = memoryview(bytearray(chunk_bytes))
        for start, end in merge_runs(self.data_runs(), BLOCK_BYTES).tolist():
            for offset in range(start, min(end, self.capacity_bytes), chunk_bytes):
                piece = buffer[: min(chunk_bytes, end - offset, self.capacity_bytes - offset)]
                self.read(offset, piece)
                yield offset, piece

    def ddb(self, key: str) -> str | None:
        """A value of the disk database, from the leaf down to the base."""
        values = (layer.descriptor.ddb.get(key) for layer in reversed(self.layers))
        return next((value for value in values if value is not None), None)


def merge_runs(runs: NDArray[np.int64], block_bytes: int = 1) -> NDArray[np.int64]:
    """Rows (start, end) in order and apart, widened to whole blocks."""
    if not len(runs):
        return runs.reshape(-1, 2)
    widened = np.stack([runs[:, 0] // block_bytes, -(-runs[:, 1] // block_bytes)], axis=1)
    widened = widened[np.argsort(widened[:, 0], kind="stable")]
    ends = np.maximum.accumulate(widened[:, 1])
    first = np.concatenate(([True], widened[1:, 0] > ends[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.stack([widened[first, 0], ends[last]], axis=1) * block_bytes


def read_chain(layers: Sequence[Layer], offset: int, view: memoryview) -> None:
    """Fills `view` with the bytes from `offset` on as the chain has them, topmost layer first."""
    top = layers[-1].extent
    if isinstance(top, FlatExtent):
        read_fully(top.fd, view, offset)
        return
    grain_bytes = top.grain_bytes  # all deltas of a chain have one format
    first = offset // grain_bytes
    count = -(-(offset + len(view)) // grain_bytes) - first
    source = np.full(count, _NOWHERE, dtype=np.int16)
    position = np.zeros(count, dtype=np.int64)
    for index in range(len(layers) - 1, -1, -1):
        extent = layers[index].extent
        open_grains = source == _NOWHERE
        if isinstance(extent, FlatExtent):
            source[open_grains] = index
            position[open_grains] = (np.flatnonzero(open_grains) + first) * grain_bytes
            break
        kinds, positions = extent.grains(first, count)
        data = open_grains & (kinds == DATA)
        source[data] = index
        position[data] = positions[data]
        source[open_grains & ~data & (kinds != FROM_PARENT)] = _ZEROS
    _read_grains(layers, source, position, grain_bytes, offset - first * grain_bytes, view)


def _read_grains(
    layers: Sequence[Layer],
    source: NDArray[np.int16],
    position: NDArray[np.int64],
    grain_bytes: int,
    skip: int,
    view: memoryview,
) -> None:
    """Reads runs of grains that follow each other in one file; `skip` bytes of the first grain aren't wanted."""
    same = source[1:] == source[:-1]
    joined = same & ((source[1:] < 0) | (np.diff(position) == grain_bytes))
    for start, end in runs_of(joined):
        low, high = max(0, start * grain_bytes - skip), min(len(view), end * grain_bytes - skip)
        where = int(source[start])
        if where < 0:
            view[low:high] = bytes(high - low)
        else:
            inside = low + skip - start * grain_bytes
            read_fully(layers[where].extent.fd, view[low:high], int(position[start]) + inside)
