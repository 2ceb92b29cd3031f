"""One VM of a host: its disks, its snapshots, its power, and the guest that writes."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from snapferry.lab.config import Workload
from snapferry.lab.host.chain import Layer, View
from snapferry.lab.host.disk import Disk
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.tracking import ChangeTracker, Page, new_uuid, page, with_false_blocks
from snapferry.lab.host.writer import Contents, Kind, Write, Writer, writes


class Frozen(NamedTuple):
    """What a snapshot holds of one disk: the layer that it froze and the change id of that moment."""

    layer: Layer
    change_id: str | None


class Room:
    """Whether deltas may grow; looked up ten times a second at most.

    Args:
        look: whether the datastore has room.
    """

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._found = True
        self._until = 0.0

    def __call__(self) -> bool:
        if time.monotonic() >= self._until:
            self._found, self._until = self._look(), time.monotonic() + 0.1
        return self._found


class Vm:
    """A VM. `operation` keeps snapshot and power operations apart; `io` is held for each write and during a stun."""

    def __init__(
        self, vm_id: str, folder: Path, name: str, disks: Sequence[Disk], workload: Workload, seed: int,
        room: Room,
    ) -> None:  # fmt: skip
        self.vm_id = vm_id
        self.folder = folder
        self.name = name
        self.disks = {disk.key: disk for disk in disks}
        self.powered_on = False
        self.generation = 0
        self.powered_off_at = datetime.min.replace(tzinfo=UTC)
        self.sequence = 0
        self.snapshots: dict[str, dict[int, Frozen]] = {}
        self.operation = threading.RLock()
        self.io = threading.RLock()
        self._workload = workload
        self._room = room
        self._seed = seed
        self._rng = random.Random(f"{seed}/vm")
        self._contents = Contents(seed)
        self._writer: Writer | None = None
        self._pending_tracking: bool | None = None
        self.log(f"Log for VMware ESX, VM {name}")
        self._write_vmx()

    @property
    def folders(self) -> list[Path]:
        """Its own folder, and those of its disks on other datastores."""
        return list(dict.fromkeys([self.folder, *(disk.folder for disk in self.disks.values())]))

    def locked_files(self, folder: Path, busy_seconds: float = 0.0) -> set[str]:
        """The names of files in a folder that a host has open, so that nobody else can read them.

        Args:
            folder: where they lie.
            busy_seconds: how long it keeps them open after power-off.
        """
        with self.io:
            held = self.powered_on or datetime.now(UTC) < self.powered_off_at + timedelta(seconds=busy_seconds)
            locked = {path for disk in self.disks.values() for path in disk.locked_files(held)}
        return {path.name for path in locked if path.parent.resolve() == folder}

    # Power ---------------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        with self.operation, self.io:
            if self.powered_on:
                raise HostError("invalid_power_state", f"{self.name} is powered on already.")
            self.powered_on = True
            self.generation += 1
            for disk in self.disks.values():
                disk.open_leaf()
            disks = list(self.disks.values())
            capacities = [disk.capacity_bytes for disk in disks]
            stream = writes(self._workload, capacities, self._seed * 1000 + self.generation, self.sequence + 1)
            self._writer = Writer(
                stream, lambda write: self._apply(disks[write.disk], write), self.name, self._may_write
            )
            self._writer.last_sequence = self.sequence
            self._writer.start()
            self.log("Power on")

    def power_off(self) -> int:
        """Ends the guest and closes every leaf; the number of its last write."""
        with self.operation:
            if not self.powered_on or not self._writer:
                raise HostError("invalid_power_state", f"{self.name} is powered off already.")
            self.sequence = self._writer.stop()
            with self.io:
                self._writer = None
                for disk in self.disks.values():
                    disk.close_leaf()
                self.powered_on = False
                self.powered_off_at = datetime.now(UTC)
            self.log(f"Power off, last write of the guest: {self.sequence}")
            return self.sequence

    @property
    def last_write(self) -> int:
        """Number of the guest's last write so far."""
        writer = self._writer
        return writer.last_sequence if writer else self.sequence

    def _may_write(self) -> bool:
        """A VM with a delta is paused while its datastore is full."""
        return not self.snapshots or self._room()

    def guest_unmaps(self, share: float) -> None:
        """The guest gives back about that share of each disk's data, the largest runs first."""
        with self.io:
            if not self.powered_on:
                raise HostError("invalid_power_state", f"{self.name} is off: it has no guest.")
            for disk in self.disks.values():
                runs = disk.view(disk.leaf).data_runs().tolist()
                left = share * sum(end - start for start, end in runs)
                for start, end in sorted(runs, key=lambda run: run[0] - run[1]):
                    if left > 0:
                        disk.unmap(start, min(end, disk.capacity_bytes) - start)
                        left -= end - start

    def _apply(self, disk: Disk, write: Write) -> None:
        with self.io:
            if disk.key not in self.disks:  # it was removed
                return
            if write.kind is Kind.UNMAP:
                disk.unmap(write.offset, write.length)
            elif write.kind is Kind.DATA:
                disk.write(write.offset, self._contents.of(write))
            elif write.sequence % 2:
                disk.zero(write.offset, write.length)
            else:
                disk.write(write.offset, memoryview(bytes(write.length)))

    # Disks ---------------------------------------------------------------------------------------------------------

    def add_disk(self, disk: Disk) -> None:
        """Gives the VM another disk; its guest writes to it once it has been powered on anew."""
        with self.operation, self.io:
            tracked = [one.tracker for one in self.disks.values() if one.tracker]
            self.disks[disk.key] = disk
            if tracked:
                disk.set_tracker(ChangeTracker(new_uuid(self._rng), snapshots_present=False))
            if self.powered_on:
                disk.open_leaf()
            self._write_vmx()

    def grow_disk(self, key: int, capacity_bytes: int) -> None:
        """Makes a disk without snapshots larger; its guest uses that once it has been powered on anew."""
        with self.operation, self.io:
            self.disk(key).grow(capacity_bytes)

    def remove_disk(self, key: int) -> Disk:
        """Takes a disk away from the VM. Raises HostError (bad_request) while snapshots hold it."""
        with self.operation, self.io:
            disk = self.disk(key)
            if any(key in disks for disks in self.snapshots.values()):
                raise HostError("bad_request", f"{disk.stem} is held by a snapshot.")
            del self.disks[key]
            if self.powered_on:
                disk.close_leaf()
            self._write_vmx()
            return disk

    # Snapshots -----------------------------------------------------------------------------------------------------

    def create_snapshot(self, snapshot_id: str) -> dict[int, tuple[Frozen, Layer]]:
        """Freezes every disk at one moment; per disk what was frozen, and the new leaf."""
        with self.operation:
            if snapshot_id in self.snapshots:
                raise HostError("exists", f"{self.name} has a snapshot {snapshot_id} already.")
            made = {}
            with self.io:
                self._switch_tracking()
                for key, disk in self.disks.items():
                    layer, leaf = disk.freeze(self.powered_on)
                    change_id = disk.tracker.snapshot() if disk.tracker else None
                    made[key] = Frozen(layer, change_id), leaf
                self.snapshots[snapshot_id] = {key: frozen for key, (frozen, _) in made.items()}
            self._write_vmx()
            self.log(f"Snapshot {snapshot_id} created")
            return made

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Consolidates the snapshot's children into its layers; the guest writes on, but for a short stun."""
        with self.operation:
            with self.io:
                removed = self._snapshot(snapshot_id)
                del self.snapshots[snapshot_id]
            for key, frozen in removed.items():
                self.disks[key].consolidate(frozen.layer, self.io)
            with self.io:
                for key, frozen in removed.items():
                    self._finish(key, frozen.layer)
                self._switch_tracking()
            self._write_vmx()
            self.log(f"Snapshot {snapshot_id} removed")

    def revert(self, snapshot_id: str) -> dict[int, tuple[Frozen, Layer]]:
        """Takes content and change tracking back to the newest snapshot; per disk what it froze, and the new leaf."""
        with self.operation:
            newest = self._snapshot(snapshot_id)
            if list(self.snapshots)[-1] != snapshot_id:
                raise HostError("bad_request", f"{snapshot_id} isn't the newest snapshot of {self.name}.")
            was_on = self.powered_on
            if was_on:
                self.power_off()
            with self.io:
                made = {key: (frozen, self.disks[key].revert(*frozen)) for key, frozen in newest.items()}
            self.log(f"Reverted to snapshot {snapshot_id}")
            if was_on:
                self.power_on()
            return made

    def rename_files(self, stem: str) -> None:
        """Gives the files of disk n the name `stem_n`, those of the first `stem`."""
        with self.operation, self.io:
            for number, disk in enumerate(self.disks.values()):
                disk.rename(f"{stem}_{number}" if number else stem)
            self._write_vmx()

    def _finish(self, key: int, parent: Layer) -> None:
        disk = self.disks[key]
        child = disk.layers[disk.layers.index(parent) + 1]
        disk.finish(parent, self.powered_on)
        for disks in self.snapshots.values():
            if key in disks and disks[key].layer is child:
                disks[key] = disks[key]._replace(layer=parent)

    def _frozen(self, key: int, snapshot_id: str) -> Frozen:
        """What a snapshot holds of a disk."""
        disks = self._snapshot(snapshot_id)
        if key not in disks:
            raise HostError("invalid_device_key", f"{snapshot_id} has no disk {key}.")
        return disks[key]

    def _snapshot(self, snapshot_id: str) -> dict[int, Frozen]:
        if snapshot_id not in self.snapshots:
            raise HostError("not_found", f"{self.name} has no snapshot {snapshot_id}.")
        return self.snapshots[snapshot_id]

    # Change tracking -----------------------------------------------------------------------------------------------

    def set_change_tracking(self, enabled: bool, immediate: bool) -> None:
        """Switches tracking at the next stun, or at once where `immediate` (the VM is off)."""
        with self.operation, self.io:
            self._pending_tracking = enabled
            if immediate:
                self._switch_tracking()

    @property
    def pending_tracking(self) -> bool | None:
        return self._pending_tracking

    def _switch_tracking(self) -> None:
        wanted, self._pending_tracking = self._pending_tracking, None
        if wanted is None:
            return
        for disk in self.disks.values():
            if wanted and disk.tracker is None:
                disk.set_tracker(ChangeTracker(new_uuid(self._rng), bool(self.snapshots)))
            elif not wanted:
                disk.set_tracker(None)

    def changed_areas(
        self, key: int, snapshot_id: str | None, change_id: str, start: int, max_extents: int, false_blocks: int = 0
    ) -> Page:
        """One page of the areas that changed since `change_id` (`*`: the allocated ones), as of a snapshot or now.

        Args:
            false_blocks: so many blocks are named besides; the same ones for the same change id.
        """
        disk = self.disk(key)
        if not 0 <= start < disk.capacity_bytes:
            raise HostError("invalid_start", f"Start offset {start} isn't on the disk ({disk.capacity_bytes} bytes).")
        with self.io:
            if snapshot_id is None:
                if self.powered_on:
                    raise HostError("file_fault", f"Error caused by file {disk.leaf.path.name}: it is in use.")
                layer, until = disk.leaf, None
            else:
                layer, until = self._frozen(key, snapshot_id)
                if until is None:
                    raise HostError("file_fault", "Error caused by file: the snapshot has no change id.")
            changed = disk.changed_runs(layer, change_id, until)
            runs = with_false_blocks(changed, disk.capacity_bytes, false_blocks, change_id)
            return page(runs, disk.capacity_bytes, start, max_extents, self._rng)

    # Reads ---------------------------------------------------------------------------------------------------------

    def disk(self, key: int) -> Disk:
        if key not in self.disks:
            raise HostError("invalid_device_key", f"{self.name} has no disk {key}.")
        return self.disks[key]

    def snapshot_view(self, key: int, snapshot_id: str) -> View:
        """The disk as of a snapshot, valid until the snapshot's removal begins."""
        disk, layer = self.disk(key), self._frozen(key, snapshot_id).layer
        return disk.view(layer, lambda: snapshot_id in self.snapshots)

    def leaf_view(self, key: int) -> View:
        """The disk as it is now, valid until the VM is powered on again.

        Raises:
            HostError: locked: the VM is running.
        """
        disk, generation = self.disk(key), self.generation
        if self.powered_on:
            raise HostError("locked", f"Failed to lock the file {disk.leaf.path.name}: {self.name} is running.")
        return disk.view(disk.leaf, lambda: not self.powered_on and self.generation == generation)

    def log(self, line: str) -> None:
        """Adds a line to the VM's vmware.log."""
        path = self.folder / "vmware.log"
        path.touch(mode=0o600, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} In(05) vmx - {line}\n")

    def _write_vmx(self) -> None:
        lines = ['.encoding = "UTF-8"', 'config.version = "8"', f'displayName = "{self.name}"']
        for number, disk in enumerate(self.disks.values()):
            path = disk.leaf.path
            file = path.name if disk.folder == self.folder else f"/vmfs/volumes/{'/'.join(path.parts[-3:])}"
            lines += [f'scsi0:{number}.present = "TRUE"', f'scsi0:{number}.fileName = "{file}"']
            if disk.tracker:
                lines.append(f'scsi0:{number}.ctkEnabled = "TRUE"')
        path = self.folder / f"{self.folder.name}.vmx"
        path.touch(mode=0o600, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
