"""What a simulated host does for the control process: VMs, snapshots, change queries, digests, tickets."""

import hmac
import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from snapferry.lab import digest
from snapferry.lab.config import Workload
from snapferry.lab.host.answers import (
    Chains,
    ChangedAreas,
    CounterValues,
    CreatedDisk,
    CreatedSnapshot,
    CreatedVm,
    Digest,
    FolderFile,
    NewDisk,
    PoweredOff,
    Tracking,
)
from snapferry.lab.host.chain import Layer, View
from snapferry.lab.host.disk import Disk
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.export import Exports
from snapferry.lab.host.faults import Counters, Faults
from snapferry.lab.host.vm import Frozen, Room, Vm
from snapferry.lab.kinds import KINDS


class HostService:
    """One host. Every method may be called from several threads at once.

    Args:
        lab_folder: datastore `x` is the folder `datastores/x` in here, shared by all hosts; what no file of it holds
            lies in `objects/x`.
        seed: of the host's own randomness, such as the order of fragments.
        leaf_busy_seconds: how long after power-off a leaf can't be opened yet.
    """

    def __init__(self, lab_folder: Path, seed: int, leaf_busy_seconds: float = 0.3) -> None:
        self.seed = seed
        self.faults = Faults()
        self.exports = Exports(self.faults)
        self.tally = Counters()
        self._datastores = lab_folder / "datastores"
        self._objects = lab_folder / "objects"
        self._leaf_busy = timedelta(seconds=leaf_busy_seconds)
        self._lock = threading.Lock()
        self._vms: dict[str, Vm] = {}
        self._tickets: dict[str, tuple[str, int | None]] = {}
        self._credentials: tuple[str, str] | None = None
        self._space_limits: dict[str, int] = {}

    # VMs -----------------------------------------------------------------------------------------------------------

    def create_vm(
        self,
        vm_id: str,
        datastore: str,
        folder: str,
        name: str,
        disks: Sequence[NewDisk],
        workload: dict[str, Any],
        seed: int,
    ) -> CreatedVm:
        """Makes a VM's folder, on its own datastore and its disks', with seeded content; the VM is off."""
        if vm_id in self._vms:
            raise HostError("exists", f"There is a VM {vm_id} already.")
        home = self._datastores / datastore / folder
        home.mkdir(mode=0o700, parents=True)
        made = [self._new_disk(vm_id, folder, new, seed, number) for number, new in enumerate(disks)]
        room = Room(lambda: all(self._has_room(one.parent.name) for one in self._vm(vm_id).folders))
        vm = Vm(vm_id, home, name, made, Workload.model_validate(workload), seed, room)
        with self._lock:
            self._vms[vm_id] = vm
        return {"disks": [_created(disk) for disk in made]}

    def _new_disk(self, vm_id: str, folder: str, new: NewDisk, seed: int, number: int) -> Disk:
        """Makes a disk's files with its seeded content."""
        objects = self._objects / new["datastore"]
        path = self._datastores / new["datastore"] / folder / new["file"]
        for one in (objects, path.parent):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        rng, label = random.Random(f"{seed}/{number}"), f"{vm_id}/{new['key']}"
        disk = Disk(new["key"], path, new["capacity_bytes"], rng, label, KINDS[new["kind"]], objects)
        disk.fill(new["data_bytes"], new["data_runs"], seed * 100 + number)
        return disk

    def add_disk(self, vm_id: str, new: NewDisk, seed: int) -> CreatedDisk:
        """Makes a disk, and gives it to a VM, which may be on."""
        vm = self._vm(vm_id)
        disk = self._new_disk(vm_id, vm.folder.name, new, seed, 0)
        vm.add_disk(disk)
        return _created(disk)

    def grow_disk(self, vm_id: str, key: int, capacity_bytes: int) -> None:
        """Makes a disk larger. Raises HostError: bad_request: it has snapshots."""
        self._vm(vm_id).grow_disk(key, capacity_bytes)

    def remove_disk(self, vm_id: str, key: int, destroy: bool) -> None:
        """Takes a disk away, and its files where `destroy`. Raises HostError: bad_request: it has snapshots."""
        disk = self._vm(vm_id).remove_disk(key)
        if destroy:
            disk.remove()

    def destroy_vm(self, vm_id: str) -> None:
        """Removes a VM that is off, with its folder."""
        vm = self._vm(vm_id)
        with vm.operation:
            if vm.powered_on:
                raise HostError("invalid_power_state", f"{vm.name} is powered on.")
            with self._lock:
                del self._vms[vm_id]
            for disk in vm.disks.values():
                disk.remove()
            for folder in vm.folders:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()

    def power_on(self, vm_id: str) -> None:
        self._vm(vm_id).power_on()

    def power_off(self, vm_id: str) -> PoweredOff:
        return {"sequence": self._vm(vm_id).power_off()}

    def last_write(self, vm_id: str) -> int:
        """Number of the guest's last write so far."""
        return self._vm(vm_id).last_write

    def stop(self) -> None:
        """Powers every VM off, so that no thread writes any more."""
        for vm in list(self._vms.values()):
            with vm.operation:
                if vm.powered_on:
                    vm.power_off()

    def files(self, vm_id: str) -> list[FolderFile]:
        found: list[FolderFile] = []
        for path in sorted(path for folder in self._vm(vm_id).folders for path in folder.iterdir()):
            with suppress(FileNotFoundError):  # a delta that was merged just now
                size, used = path.stat().st_size, path.stat().st_blocks * 512
                file: FolderFile = {
                    "path": _wire_path(path), "name": path.name, "size_bytes": size, "allocated_bytes": used,
                }  # fmt: skip
                found.append(file)
        return found

    def used_bytes(self, datastore: str) -> int:
        """What the files and objects of a datastore occupy, whichever host made them."""
        files = [*(self._datastores / datastore).glob("*/*"), *(self._objects / datastore).glob("*")]
        return sum(_allocated(path) for path in files)

    def free_bytes(self, datastore: str, capacity_bytes: int) -> int:
        """What is left of so large a datastore, or of what the fault `datastore_full` leaves of it."""
        limit = min(capacity_bytes, self._space_limits.get(datastore, capacity_bytes))
        return max(0, limit - self.used_bytes(datastore))

    def _has_room(self, datastore: str) -> bool:
        limit = self._space_limits.get(datastore)
        return limit is None or self.used_bytes(datastore) < limit

    # Snapshots and change tracking ---------------------------------------------------------------------------------

    def create_snapshot(self, vm_id: str, snapshot_id: str) -> CreatedSnapshot:
        vm = self._vm(vm_id)
        return _snapshot_answer(vm.create_snapshot(snapshot_id))

    def remove_snapshot(self, vm_id: str, snapshot_id: str) -> Chains:
        vm = self._vm(vm_id)
        vm.remove_snapshot(snapshot_id)
        return _chains(vm)

    def revert(self, vm_id: str, snapshot_id: str) -> CreatedSnapshot:
        """Takes the VM back to its newest snapshot; one that was on starts again."""
        vm = self._vm(vm_id)
        return _snapshot_answer(vm.revert(snapshot_id))

    def rename_files(self, vm_id: str, stem: str) -> Chains:
        """Gives the disks' files other names, as a storage vMotion does."""
        vm = self._vm(vm_id)
        vm.rename_files(stem)
        return _chains(vm)

    def guest_unmaps(self, vm_id: str, share: float) -> None:
        """The guest gives back about that share of each disk's data at once."""
        self._vm(vm_id).guest_unmaps(share)

    def set_change_tracking(self, vm_id: str, enabled: bool, immediate: bool) -> None:
        self._vm(vm_id).set_change_tracking(enabled, immediate)

    def change_tracking(self, vm_id: str) -> Tracking:
        vm = self._vm(vm_id)
        trackers = {key: disk.tracker for key, disk in vm.disks.items()}
        return {
            "enabled": all(trackers.values()),
            "pending": vm.pending_tracking,
            "disks": [{"key": key, "change_id": one.change_id if one else None} for key, one in trackers.items()],
        }

    def changed_areas(
        self, vm_id: str, key: int, snapshot_id: str | None, change_id: str, start: int, max_extents: int
    ) -> ChangedAreas:
        """One page of a change query; see `tracking.page`."""
        false_blocks = int(self.faults.value("false_changes", "blocks") or 0)
        page = self._vm(vm_id).changed_areas(key, snapshot_id, change_id, start, max_extents, false_blocks)
        return {"start": page.start, "length": page.length, "areas": [list(area) for area in page.areas]}

    # Digests -------------------------------------------------------------------------------------------------------

    def digest(self, vm_id: str, key: int, snapshot_id: str | None) -> Digest:
        """SHA-256 over the capacity, as of a snapshot, or now for a VM that is off."""
        vm = self._vm(vm_id)
        with vm.operation:
            view = self._digest_view(vm, key, snapshot_id)
            return {"sha256": digest.capacity_digest(view.blocks(), view.capacity_bytes)}

    def extents_digest(self, vm_id: str, key: int, snapshot_id: str | None) -> Digest:
        """The digest of `lab.digest` that skips zeros, for huge sparse disks."""
        vm = self._vm(vm_id)
        with vm.operation:
            view = self._digest_view(vm, key, snapshot_id)
            return {"sha256": digest.extents_digest(view.blocks(), view.capacity_bytes)}

    def _digest_view(self, vm: Vm, key: int, snapshot_id: str | None) -> View:
        if snapshot_id is not None:
            return vm.snapshot_view(key, snapshot_id)
        if vm.powered_on:
            raise HostError("invalid_power_state", f"{vm.name} is running: a digest of now needs it off.")
        return vm.leaf_view(key)

    # What the servers ask ------------------------------------------------------------------------------------------

    def open_ticket(self, ticket: str, vm_id: str, key: int | None) -> None:
        """Registers a ticket that is good for one connection, to one disk of the VM or to all."""
        self._vm(vm_id)
        with self._lock:
            self._tickets[ticket] = vm_id, key

    def take_ticket(self, ticket: str) -> tuple[str, int | None] | None:
        """Whose disks the ticket opens; it is used up."""
        with self._lock:
            return self._tickets.pop(ticket, None)

    def open_disk(self, vm_id: str, key: int | None, path: str) -> View:
        """The disk that a path such as `[san1] web01/web01-000001.vmdk` names, as of that file.

        Raises:
            HostError: not_found; locked: the leaf of a running VM, or of one that was powered off just now.
        """
        vm = self._vm(vm_id)
        with vm.io:
            for disk in vm.disks.values():
                if key is not None and disk.key != key:
                    continue
                for name, frozen in vm.snapshots.items():
                    if disk.key in frozen and _wire_path(frozen[disk.key].layer.path) == path:
                        return vm.snapshot_view(disk.key, name)
                if _wire_path(disk.leaf.path) == path:
                    seconds = self.faults.value("leaf_busy", "seconds")
                    busy = self._leaf_busy if seconds is None else timedelta(seconds=seconds)
                    if datetime.now(UTC) < vm.powered_off_at + busy:
                        raise HostError("locked", f"Failed to lock the file {path}: it is still busy.")
                    return vm.leaf_view(disk.key)
        raise HostError("not_found", f"{path} is no disk that this ticket opens.")

    def open_export(self, lease: str, vm_id: str, snapshot_id: str | None, disks: dict[str, int]) -> None:
        """Lets a lease read disks, named by file, each by its key; as of a snapshot, or as they are while it's off."""
        vm = self._vm(vm_id)
        with vm.operation:
            views = {
                name: vm.leaf_view(key) if snapshot_id is None else vm.snapshot_view(key, snapshot_id)
                for name, key in disks.items()
            }
        self.exports.open(lease, views)

    def close_export(self, lease: str) -> None:
        """Ends a lease; its downloads are cut."""
        self.exports.close(lease)

    def set_credentials(self, user: str, password: str) -> None:
        """Who may read files over HTTPS; nobody before this was called."""
        with self._lock:
            self._credentials = user, password

    def authorized(self, user: str, password: str) -> bool:
        with self._lock:
            known = self._credentials
        if known is None:
            return False
        pairs = zip(known, (user, password), strict=True)
        return all([hmac.compare_digest(one.encode(), other.encode()) for one, other in pairs])

    def file(self, datastore: str, path: str) -> Path:
        """The file of a datastore that a client may read now.

        Raises:
            HostError: not_found; locked: an extent that the datastore's kind locks.
        """
        root = (self._datastores / datastore).resolve()
        found = (root / path).resolve()
        if not found.is_relative_to(root) or root.parent != self._datastores.resolve() or not found.is_file():
            raise HostError("not_found", f"[{datastore}] {path} doesn't exist.")
        busy = float(self.faults.value("leaf_busy", "seconds") or 0)
        for vm in list(self._vms.values()):
            if found.name in vm.locked_files(found.parent, busy):
                raise HostError("locked", f"[{datastore}] {path} is in use by {vm.name}.")
        return found

    def file_path(self, datastore: str, path: str) -> str:
        """Like `file`, for vCenter's own `/folder`."""
        return str(self.file(datastore, path))

    def counters(self) -> CounterValues:
        return self.tally.values(self.faults.happened())

    def set_fault(self, name: str, arguments: dict[str, Any]) -> None:
        self.faults.set(name, arguments)
        if name == "datastore_full":
            free_bytes = int(self.faults.value(name, "free_bytes") or 0)
            for path in self._datastores.iterdir():
                self._space_limits[path.name] = self.used_bytes(path.name) + free_bytes

    def clear_faults(self) -> None:
        self.faults.clear()
        self._space_limits.clear()

    def _vm(self, vm_id: str) -> Vm:
        with self._lock:
            vm = self._vms.get(vm_id)
        if vm is None:
            raise HostError("not_found", f"There is no VM {vm_id} on this host.")
        return vm


def _created(disk: Disk) -> CreatedDisk:
    used = _allocated(disk.leaf.extent.path)
    return {"key": disk.key, "file": _wire_path(disk.leaf.path), "uuid": disk.uuid, "allocated_bytes": used}


def _snapshot_answer(made: dict[int, tuple[Frozen, Layer]]) -> CreatedSnapshot:
    return {
        "disks": [
            {
                "key": key,
                "frozen": _wire_path(frozen.layer.path),
                "leaf": _wire_path(leaf.path),
                "change_id": frozen.change_id,
            }
            for key, (frozen, leaf) in made.items()
        ]
    }


def _chains(vm: Vm) -> Chains:
    return {
        "disks": [{"key": key, "leaf": _wire_path(disk.leaf.path)} for key, disk in vm.disks.items()],
        "snapshots": {
            name: [{"key": key, "frozen": _wire_path(frozen.layer.path)} for key, frozen in disks.items()]
            for name, disks in vm.snapshots.items()
        },
    }


def _wire_path(path: Path) -> str:
    """`[san1] web01/web01.vmdk`"""
    return f"[{path.parent.parent.name}] {path.parent.name}/{path.name}"


def _allocated(path: Path) -> int:
    """What a file occupies; nothing once it is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
