"""One virtual disk: its chain of files, its change tracking, and what snapshots do to both."""

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snapferry.lab.host import content
from snapferry.lab.host.chain import Layer, View, merge_runs, read_chain, track_path
from snapferry.lab.host.deltas import DELTA_EXTENTS, DeltaExtent
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.extents import FlatExtent, create_file, runs_of
from snapferry.lab.host.tracking import BLOCK_BYTES, ChangeTracker, block_runs
from snapferry.lab.kinds import DatastoreKind, Lock
from snapferry.vmdk import NO_PARENT_CID, Descriptor, ExtentLine, tables
from snapferry.vmdk.tables import SECTOR

_MERGE_BYTES = 2 << 20


class Disk:
    """A disk of a VM. Whoever calls what changes its blocks or layers holds the VM's I/O lock.

    Args:
        path: of its descriptor.
        kind: of its datastore.
        objects: the folder for the extents, where they are no files of the datastore.

    Attributes:
        layers: the chain, the base first and the leaf last.
        tracker: change tracking, None while it is off.
    """

    def __init__(
        self, key: int, path: Path, capacity_bytes: int, rng: random.Random, label: str, kind: DatastoreKind,
        objects: Path,
    ) -> None:  # fmt: skip
        self.key = key
        self.kind = kind
        self.capacity_bytes = capacity_bytes
        self.label = label
        self.folder = path.parent
        self.stem = path.stem
        self.rng = rng
        self.tracker: ChangeTracker | None = None
        self._objects = objects
        self._mirror: Layer | None = None
        raw = (b"\x60\x00\xc2\x9a" + rng.randbytes(12)).hex()
        self.uuid = f"6000C29a-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
        pairs = [raw[at : at + 2] for at in range(0, 32, 2)]
        ddb = {
            "adapterType": "lsilogic",
            "geometry.cylinders": str(min(65535, capacity_bytes // (255 * 63 * SECTOR))),
            "geometry.heads": "255",
            "geometry.sectors": "63",
            "longContentID": rng.randbytes(16).hex(),
            "thinProvisioned": "1",
            "toolsInstallType": "4",
            "toolsVersion": "12389",
            "uuid": " ".join(pairs[:8]) + "-" + " ".join(pairs[8:]),
            "virtualHWVersion": "19",
        }
        flat = FlatExtent(self._extent_path(path, "-flat"), capacity_bytes)
        descriptor = Descriptor(
            cid=self._new_cid(), create_type="vmfs", extents=(self._extent_line("VMFS", flat.path),), ddb=ddb
        )
        base = Layer(path, descriptor, flat, live=False)
        base.save_descriptor()
        self.layers = [base]

    @property
    def leaf(self) -> Layer:
        return self.layers[-1]

    def fill(self, data_bytes: int, runs: int, seed: int) -> None:
        """Gives the new disk its seeded content."""
        base = self.layers[0].extent
        assert isinstance(base, FlatExtent)
        content.fill(base, content.data_runs(self.capacity_bytes, data_bytes, runs, self.rng), seed)

    def _extent_path(self, descriptor: Path, suffix: str) -> Path:
        """Where a new extent's bytes lie."""
        if self.kind.has_files:
            return descriptor.with_name(f"{descriptor.stem}{suffix}.vmdk")
        words = self.rng.randbytes(16).hex()
        return self._objects / f"{words[:8]}-{words[8:12]}-{words[12:16]}-{words[16:20]}-{words[20:]}"

    def _extent_line(self, extent: str, path: Path) -> ExtentLine:
        """How a descriptor names an extent."""
        name = path.name if self.kind.has_files else f"vsan://{path.name}"
        return ExtentLine(self.capacity_bytes // SECTOR, extent, name)

    def locked_files(self, in_use: bool) -> set[Path]:
        """The files that the datastore gives nobody, because a host has them open."""
        if self.kind.lock is Lock.NONE:
            return set()
        whole = self.kind.lock is Lock.CHAIN and in_use
        held = [layer for layer in self.layers if whole or layer.live or (in_use and layer is self.leaf)]
        return {path for layer in held for path in (layer.extent.path, track_path(layer.path))}

    def view(self, layer: Layer, valid: Callable[[], bool] = lambda: True) -> View:
        """The disk as of a layer, parents included."""
        layers = tuple(self.layers[: self.layers.index(layer) + 1])
        return View(self.label, self.capacity_bytes, layers, valid)

    def grow(self, capacity_bytes: int) -> None:
        """Makes it larger; what is new reads as zeros. Raises HostError (bad_request) for a disk with deltas."""
        base = self.layers[0].extent
        if len(self.layers) > 1 or not isinstance(base, FlatExtent):
            raise HostError("bad_request", f"{self.stem} has deltas.")
        self.capacity_bytes = capacity_bytes
        base.grow(capacity_bytes)
        self.leaf.save_descriptor(extents=(self._extent_line("VMFS", base.path),))

    # What the guest does -------------------------------------------------------------------------------------------

    def write(self, offset: int, data: memoryview) -> None:
        """Writes to the leaf (offset and length in multiples of 512)."""
        self._mark(offset, len(data))
        targets = self._targets()
        if len(self.layers) > 1:
            offset, data = self._whole_grains(offset, data)
        for layer in targets:
            layer.extent.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Makes the leaf read as zeros there, without storing them where its format can say so."""
        self._mark(offset, length)
        self._without_data(offset, length, unmap=False)

    def unmap(self, offset: int, length: int) -> None:
        """Gives the bytes back (TRIM): they read as zeros. Tracking names the blocks beside them as well."""
        start = max(0, offset - BLOCK_BYTES)
        self._mark(start, min(self.capacity_bytes, offset + length + BLOCK_BYTES) - start)
        self._without_data(offset, length, unmap=True)

    def _mark(self, offset: int, length: int) -> None:
        if self.tracker:
            self.tracker.mark(offset, length)

    def _targets(self) -> list[Layer]:
        targets = [self.leaf, self._mirror] if self._mirror else [self.leaf]
        for layer in targets:
            layer.written = True
        return targets

    @property
    def _grain_bytes(self) -> int:
        """Of the leaf, which is a delta."""
        assert isinstance(self.leaf.extent, DeltaExtent)
        return self.leaf.extent.grain_bytes

    def _whole_grains(self, offset: int, data: memoryview) -> tuple[int, memoryview]:
        """The write widened to whole grains, with what the chain holds around it."""
        grain_bytes = self._grain_bytes
        start = offset // grain_bytes * grain_bytes
        end = -(-(offset + len(data)) // grain_bytes) * grain_bytes
        if start == offset and end - start == len(data):
            return start, data
        whole = memoryview(bytearray(end - start))
        read_chain(self.layers, start, whole[:grain_bytes])
        read_chain(self.layers, end - grain_bytes, whole[-grain_bytes:])
        whole[offset - start : offset - start + len(data)] = data
        return start, whole

    def _without_data(self, offset: int, length: int, unmap: bool) -> None:
        """Zeros or unmaps: whole grains by their entries, the rest by writing zeros."""
        targets = self._targets()
        if len(self.layers) == 1:
            _erase(self.leaf, offset, length, unmap)
            return
        end, grain_bytes = offset + length, self._grain_bytes
        low = -(-offset // grain_bytes) * grain_bytes
        at_end = end == self.capacity_bytes
        high = (-(-end // grain_bytes) if at_end else end // grain_bytes) * grain_bytes
        if low < high:
            for layer in targets:
                _erase(layer, low, high - low, unmap)
        for start, stop in ((offset, min(low, end)), (max(high, low), end)):
            if start < stop:
                grain, whole = self._whole_grains(start, memoryview(bytes(stop - start)))
                for layer in targets:
                    layer.extent.write(grain, whole)

    # Power and snapshots -------------------------------------------------------------------------------------------

    def open_leaf(self) -> None:
        self.leaf.open_for_writing()

    def close_leaf(self) -> None:
        self.leaf.close(self._new_cid())

    def freeze(self, live: bool) -> tuple[Layer, Layer]:
        """Closes the leaf and puts a new delta on top of it; (frozen layer, new leaf)."""
        frozen = self.leaf
        if frozen.live:
            frozen.close(self._new_cid())
        path, deltas = self._next_path(), self.kind.deltas(self.capacity_bytes)
        extent = DELTA_EXTENTS[deltas.extent](self._extent_path(path, deltas.suffix), self.capacity_bytes)
        descriptor = Descriptor(
            cid=frozen.descriptor.cid,
            parent_cid=frozen.descriptor.cid,
            create_type=deltas.create_type,
            parent_file_name_hint=frozen.path.name,
            extents=(self._extent_line(deltas.extent, extent.path),),
            ddb={"longContentID": self.rng.randbytes(16).hex()},
        )
        leaf = Layer(path, descriptor, extent)
        self.layers.append(leaf)
        self._save(leaf)
        if not live:
            leaf.close(descriptor.cid)
        return frozen, leaf

    def revert(self, frozen: Layer, change_id: str | None) -> Layer:
        """Drops what lies above a snapshot's layer, and puts a new leaf there; tracking goes back, too."""
        while self.leaf is not frozen:
            dropped = self.layers.pop()
            dropped.extent.close()
            dropped.remove()
        if self.tracker and change_id:
            self.tracker.revert(change_id)
        return self.freeze(live=False)[1]

    def remove(self) -> None:
        """Takes every file away; readers that have them open go on."""
        for layer in self.layers:
            layer.remove()

    def rename(self, stem: str) -> None:
        """Gives every file of the chain another name; whoever has one open reads on."""
        old, self.stem = self.stem, stem
        below: str | None = None
        for layer in self.layers:
            track = track_path(layer.path)
            if track.exists():
                track.rename(_renamed(track, old, stem))
            layer.path = layer.path.rename(_renamed(layer.path, old, stem))
            (line,) = layer.descriptor.extents
            if self.kind.has_files:
                layer.extent.path = layer.extent.path.rename(_renamed(layer.extent.path, old, stem))
                line = line._replace(file=layer.extent.path.name)
            names = {"extents": (line,), "parent_file_name_hint": below}
            layer.descriptor = layer.descriptor.model_copy(update=names)
            self._save(layer)
            below = layer.path.name

    def set_tracker(self, tracker: ChangeTracker | None) -> None:
        """Switches change tracking on or off for every file of the chain."""
        self.tracker = tracker
        for layer in self.layers:
            track_path(layer.path).unlink(missing_ok=True)
            self._save(layer)

    def consolidate(self, parent: Layer, io: AbstractContextManager[object]) -> None:
        """Copies the child of `parent` into it, piece by piece under the I/O lock, while the guest goes on writing.

        Where the child is the leaf, new writes go to both from here on; `finish` then makes the parent the leaf.
        """
        child = self.layers[self.layers.index(parent) + 1]
        with io:
            parent.open_for_writing()
            parent.written = True
            if child is self.leaf:
                self._mirror = parent
            assert isinstance(child.extent, DeltaExtent)
            runs = child.extent.table_runs()
        for start, end in runs:
            for offset in range(start, end, _MERGE_BYTES):
                with io:
                    _merge(child, parent, offset, min(offset + _MERGE_BYTES, end))

    def finish(self, parent: Layer, live: bool) -> None:
        """Takes the child, whose blocks are all in `parent` now, out of the chain and removes its files."""
        at = self.layers.index(parent) + 1
        child = self.layers.pop(at)
        was_leaf = at == len(self.layers)
        self._mirror = None
        # What hangs on the child goes by its CID, so the parent takes it over.
        parent.save_descriptor(cid=child.descriptor.cid)
        if not (was_leaf and live):
            parent.extent.close()
            parent.live = False
        if not was_leaf:
            grandchild = self.layers[at]
            grandchild.save_descriptor(parent_file_name_hint=parent.path.name)
        child.remove()

    def changed_runs(self, layer: Layer, change_id: str, until: str | None) -> NDArray[np.int64]:
        """Rows (start, end) that changed since `change_id`; the allocated ones as of `layer` for `*`."""
        if self.tracker is None:
            raise HostError("file_fault", f"Error caused by file: change tracking is off for {self.stem}.vmdk.")
        if change_id != "*":
            return block_runs(self.tracker.changed(change_id, until), self.capacity_bytes)
        if self.tracker.snapshots_present:
            raise HostError("file_fault", "Error caused by file: tracking was enabled while snapshots existed.")
        return np.minimum(merge_runs(self.view(layer).data_runs(), BLOCK_BYTES), self.capacity_bytes)

    def _save(self, layer: Layer) -> None:
        """Writes the descriptor, with the change tracking file that it names."""
        if self.tracker is None:
            layer.save_descriptor(change_track_path=None)
            return
        path = track_path(layer.path)
        if not path.exists():
            with os.fdopen(create_file(path), "wb") as file:
                file.truncate(SECTOR + self.capacity_bytes // BLOCK_BYTES // 8 + 1)
        layer.save_descriptor(change_track_path=path.name)

    def _next_path(self) -> Path:
        used = [int(layer.path.stem.rsplit("-", 1)[1]) for layer in self.layers[1:]]
        return self.folder / f"{self.stem}-{max(used, default=0) + 1:06d}.vmdk"

    def _new_cid(self) -> int:
        return self.rng.randrange(1, NO_PARENT_CID - 1)


def _renamed(path: Path, old: str, new: str) -> Path:
    return path.with_name(new + path.name.removeprefix(old))


def _erase(layer: Layer, offset: int, length: int, unmap: bool) -> None:
    if unmap:
        layer.extent.unmap(offset, length)
    else:
        layer.extent.zero(offset, length)


def _merge(child: Layer, parent: Layer, start: int, end: int) -> None:
    """Copies what the child holds of the disk from `start` to `end` into the parent."""
    extent = child.extent
    assert isinstance(extent, DeltaExtent)
    first, count = start // extent.grain_bytes, -(-(end - start) // extent.grain_bytes)
    kinds = extent.grains(first, count).kinds
    if not kinds.any():
        return
    for low, high in runs_of(kinds[1:] == kinds[:-1]):
        offset, length = (first + low) * extent.grain_bytes, (high - low) * extent.grain_bytes
        match int(kinds[low]):
            case tables.DATA:
                data = memoryview(bytearray(length))
                read_chain([child], offset, data)
                parent.extent.write(offset, data)
            case tables.ZERO:
                parent.extent.zero(offset, length)
            case tables.UNMAPPED:
                parent.extent.unmap(offset, length)
