"""One VM of the simulated vCenter: its properties, and what its host does for it."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from pyVmomi import vim

from snapferry.lab.config import LabDisk, LabVm
from snapferry.lab.host.answers import Chains, NewDisk
from snapferry.lab.hosts import HostProcess
from snapferry.lab.kinds import KINDS
from snapferry.lab.vcenter import describe
from snapferry.lab.vcenter.hardware import Slot, build_devices, build_disk, disks_of, move_disk, nics_of, slots
from snapferry.lab.vcenter.inventory import encode_name

if TYPE_CHECKING:
    from snapferry.lab.vcenter.service import VCenter

ON, OFF = "poweredOn", "poweredOff"
RECENT_TASKS = 5


class SnapshotNode(NamedTuple):
    """One snapshot of a VM."""

    mo: Any
    number: int
    name: str
    description: str
    created: datetime
    power: str


class Machine:
    """A VM. Whoever changes it holds it by `hold` or `exclusively`; readers go by its properties in the store."""

    def __init__(self, vcenter: "VCenter", config: LabVm, host: HostProcess, folder: Any) -> None:
        self.vcenter = vcenter
        self.lab = config
        self.host = host
        self.moref = vcenter.store.next_id("vm")
        self.mo = vim.VirtualMachine(self.moref)
        self.snapshots: list[SnapshotNode] = []
        """Oldest first; each stands on the one before."""
        self.left_behind: list[SnapshotNode] = []
        """Removed, but their files wait for a consolidation."""
        self.edited_disks: dict[int, Any] = {}
        """Disks that vCenter was made to tell otherwise of, by key."""
        self.exports: dict[str, Any] = {}
        """Tasks of the export leases that are open, by the lease's id."""
        self.leases: dict[str, Any] = {}
        """Every export lease, by its id."""
        self.tools_running = config.tools == "running"
        self._lock = threading.Lock()
        self._task: Any = None
        self._numbers = 0
        self._disks_made = len(config.disks)
        self._chains: dict[int, list[str]] = {}
        """Per disk its files, from the base to the leaf."""
        self._create(folder)

    # Who may change it ---------------------------------------------------------------------------------------------

    def hold(self, task: Any) -> None:
        """Holds the VM for a task until `release`. Raises TaskInProgress where another one does."""
        if not self._lock.acquire(blocking=False):
            raise vim.fault.TaskInProgress(task=self._task or task, msg="Another task is already in progress.")
        self._task = task

    def refuse_while_exported(self) -> None:
        """Raises TaskInProgress while a lease exports the VM: what it reads can't be merged."""
        for task in list(self.exports.values()):
            raise vim.fault.TaskInProgress(task=task, msg="Another task is already in progress.")

    def release(self) -> None:
        """Ends a task's hold."""
        self._task = None
        self._lock.release()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Holds the VM, once whoever holds it is done."""
        with self._lock:
            yield

    def add_recent_task(self, task: Any) -> None:
        """Shows the task at the VM."""
        store = self.vcenter.store
        with store.condition:
            store.change(self.mo, recentTask=[*store.get(self.mo, "recentTask"), task][-RECENT_TASKS:])

    # What it is ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return str(self.vcenter.store.get(self.mo, "name"))

    @property
    def config(self) -> Any:
        return self.vcenter.store.get(self.mo, "config")

    @property
    def powered_on(self) -> bool:
        return bool(self.vcenter.store.get(self.mo, "runtime").powerState == ON)

    def disk_key(self, index: int) -> int:
        """The device key of a disk, counted from 0."""
        return int(disks_of(self.config)[index].key)

    def _create(self, folder: Any) -> None:
        vcenter, site, lab = self.vcenter, self.vcenter.site, self.lab
        datastore = lab.datastore or next(iter(site.datastores))
        stores = [disk.datastore or datastore for disk in lab.disks]
        home = vcenter.take_folder({datastore, *stores}, re.sub(r"[^\w .()+-]", "_", lab.name).lstrip(".")[:60] or "vm")
        places = slots(lab.disks)
        made = self.host.client.create_vm(
            self.moref,
            datastore,
            home,
            lab.name,
            [
                self._new_disk(slot, disk, store, f"{home}.vmdk" if index == 0 else f"{home}_{index}.vmdk")
                for index, (slot, disk, store) in enumerate(zip(places, lab.disks, stores, strict=True))
            ],
            lab.workload.model_dump(mode="json"),
            Random(repr((vcenter.seed, lab.folder, lab.name))).getrandbits(31),
        )
        by_key = {one["key"]: one for one in made["disks"]}
        disks = [
            build_disk(index, slot, disk, by_key[slot.key], site.datastores[store])
            for index, (slot, disk, store) in enumerate(zip(places, lab.disks, stores, strict=True))
        ]
        self._chains = {key: [one["file"]] for key, one in by_key.items()}
        config = describe.config(lab, f"[{datastore}] {home}/{home}", vcenter.seed)
        config.name = encode_name(lab.name)
        config.hardware.device = build_devices(lab, disks, site.networks, vcenter.seed)
        self._add_to_inventory(folder, [site.datastores[one] for one in dict.fromkeys([datastore, *stores])], config)
        if lab.change_tracking:
            self.host.client.set_change_tracking(self.moref, True, True)
            self.refresh_disks()

    def _add_to_inventory(self, folder: Any, datastores: list[Any], config: Any) -> None:
        store, site = self.vcenter.store, self.vcenter.site
        host = site.hosts[self.host.name]
        networks = list({nic.network: site.networks[nic.network] for nic in self.lab.nics}.values())
        store.add(
            self.mo,
            name=config.name,
            parent=folder,
            config=config,
            runtime=vim.vm.RuntimeInfo(
                host=host,
                powerState=OFF,
                connectionState="connected",
                consolidationNeeded=False,
                toolsInstallerMounted=False,
                numMksConnections=0,
                recordReplayState="inactive",
                faultToleranceState="notConfigured",
            ),
            guest=describe.guest(self.lab, config, running=False, tools=False),
            capability=describe.capability(self.lab),
            summary=lambda: describe.summary(store, self.mo),
            layoutEx=lambda: describe.layout(self.host.client.files(self.moref)),
            datastore=datastores,
            network=networks,
            resourcePool=site.resource_pool,
            rootSnapshot=[],
            recentTask=[],
            overallStatus="green",
            configStatus="green",
            guestHeartbeatStatus="gray",
            effectiveRole=[-1],
        )
        with store.condition:
            store.change(folder, childEntity=[*store.get(folder, "childEntity"), self.mo])
            for holder in (host, site.resource_pool, *datastores, *networks):
                store.change(holder, vm=[*store.get(holder, "vm"), self.mo])

    # Disks that come, grow and go ----------------------------------------------------------------------------------

    @property
    def has_deltas(self) -> bool:
        """Whether snapshots, or what removed ones left behind, hold its disks."""
        return bool(self.snapshots or self.left_behind)

    def add_disk(self, slot: Slot, disk: LabDisk, number: int, datastore: Any) -> Any:
        """Makes a disk; returns its device. `number` counts the VM's disks; see `build_disk`."""
        store = self.vcenter.store
        name = store.get(datastore, "name")
        home = self.config.files.vmPathName.partition("] ")[2].partition("/")[0]
        self._disks_made += 1
        new = self._new_disk(slot, disk, name, f"{home}_{self._disks_made - 1}.vmdk")
        made = self.host.client.add_disk(self.moref, new, Random(repr((self.moref, self._disks_made))).getrandbits(31))
        self._chains[slot.key] = [made["file"]]
        with store.condition:
            if datastore not in store.get(self.mo, "datastore"):
                store.change(self.mo, datastore=[*store.get(self.mo, "datastore"), datastore])
                store.change(datastore, vm=[*store.get(datastore, "vm"), self.mo])
        return build_disk(number, slot, disk, made, datastore)

    def _new_disk(self, slot: Slot, disk: LabDisk, datastore: str, file: str) -> NewDisk:
        """What the host is asked to make."""
        return {
            "key": slot.key,
            "datastore": datastore,
            "kind": self.vcenter.kind_of(datastore),
            "capacity_bytes": disk.capacity_bytes,
            "data_bytes": disk.data_bytes,
            "data_runs": disk.data_runs,
            "file": file,
        }

    def remove_disk(self, key: int, destroy: bool) -> None:
        """Takes a disk away, and its files where `destroy`."""
        self.host.client.remove_disk(self.moref, key, destroy)
        del self._chains[key]

    # Power ---------------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """The VM is held by the caller, and off."""
        self.host.client.power_on(self.moref)
        self.tools_running = self.lab.tools == "running"
        self._show_power(True)

    def power_off(self) -> None:
        """The VM is held by the caller, and on."""
        self.host.client.power_off(self.moref)
        self.tools_running = False
        self._show_power(False)

    def _show_power(self, on: bool) -> None:
        store = self.vcenter.store

        def runtime(value: Any) -> None:
            value.powerState = ON if on else OFF
            value.bootTime = datetime.now(UTC) if on else None

        def connect(config: Any) -> None:
            for nic in nics_of(config):
                nic.connectable.connected = on and nic.connectable.startConnected
                nic.connectable.status = "ok" if on else "untried"

        with store.condition:
            store.edit(self.mo, "config", connect)
            store.edit(self.mo, "runtime", runtime)
            self.show_guest()

    def show_guest(self) -> None:
        """What Tools report now."""
        guest = describe.guest(self.lab, self.config, running=self.powered_on, tools=self.tools_running)
        heartbeat = "green" if self.powered_on and self.tools_running else "gray"
        self.vcenter.store.change(self.mo, guest=guest, guestHeartbeatStatus=heartbeat)

    # Snapshots -----------------------------------------------------------------------------------------------------

    def create_snapshot(self, name: str, description: str) -> Any:
        """Freezes all disks; returns the snapshot."""
        store = self.vcenter.store
        mo = vim.vm.Snapshot(store.next_id("snapshot"))
        made = self.host.client.create_snapshot(self.moref, mo._moId)
        self._numbers += 1
        node = SnapshotNode(mo, self._numbers, name, description, datetime.now(UTC), ON if self.powered_on else OFF)
        config = describe.copy_of(self.config)
        by_key = {one["key"]: one for one in made["disks"]}
        for disk in disks_of(config):
            self._move(disk, self._chains[disk.key], by_key[disk.key]["change_id"])
            self._chains[disk.key].append(by_key[disk.key]["leaf"])
        store.add(mo, config=config, vm=self.mo, childSnapshot=[])
        self.snapshots.append(node)
        self._show_snapshots()
        self.refresh_disks()
        return mo

    def revert(self) -> Any:
        """Goes back to the newest snapshot; returns it. Raises InvalidState where there is none."""
        if not self.snapshots:
            raise vim.fault.InvalidState(msg=f"{self.name} has no snapshot.")
        node = self.snapshots[-1]
        made = self.host.client.revert(self.moref, node.mo._moId)
        for one in made["disks"]:
            self._chains[one["key"]][-1] = one["leaf"]
        self.refresh_disks()
        return node.mo

    def rename_files(self, stem: str) -> None:
        """Gives the disks' files other names."""
        self._take_chains(self.host.client.rename_files(self.moref, stem))
        for node in self.snapshots:
            self._move_snapshot(node)
        self.refresh_disks()

    def rename_snapshot(self, mo: Any, name: str | None, description: str | None) -> None:
        """Gives a snapshot another name or description."""
        with self.exclusively():
            place = next(place for place, node in enumerate(self.snapshots) if node.mo == mo)
            node = self.snapshots[place]
            self.snapshots[place] = node._replace(
                name=node.name if name is None else name,
                description=node.description if description is None else description,
            )
            self._show_snapshots()

    def remove_snapshot(self, mo: Any, consolidate: bool = True) -> None:
        """Takes the snapshot away; without `consolidate` its files stay and the VM says so."""
        node = next(one for one in self.snapshots if one.mo == mo)
        if consolidate:
            self._consolidate(node)
        else:
            self.left_behind.append(node)
            self.snapshots.remove(node)
        self.vcenter.store.remove(mo)
        self._show_snapshots()
        self.refresh_disks()

    def consolidate(self) -> None:
        """Takes away the files that removed snapshots left behind."""
        for node in list(self.left_behind):
            self._consolidate(node)
        self._show_snapshots()
        self.refresh_disks()

    def _consolidate(self, node: SnapshotNode) -> None:
        left = self.host.client.remove_snapshot(self.moref, node.mo._moId)
        for nodes in (self.snapshots, self.left_behind):
            if node in nodes:
                nodes.remove(node)
        # The removed snapshot's file takes up its child's blocks and stands in the child's place from now on.
        self._take_chains(left)
        for later in self.snapshots:
            self._move_snapshot(later)

    def _take_chains(self, now: Chains) -> None:
        for disk in now["disks"]:
            frozen = {
                name: one["frozen"]
                for name, disks in now["snapshots"].items()
                for one in disks
                if one["key"] == disk["key"]
            }
            held = [frozen[one.mo._moId] for one in self._by_age() if one.mo._moId in frozen]
            self._chains[disk["key"]] = [*held, disk["leaf"]]

    def _by_age(self) -> list[SnapshotNode]:
        """Every snapshot that has files, oldest first."""
        return sorted([*self.snapshots, *self.left_behind], key=lambda one: one.number)

    def _move_snapshot(self, node: SnapshotNode) -> None:
        until = self._by_age()[: self._by_age().index(node) + 1]
        held = Counter(disk.key for one in until for disk in disks_of(self.vcenter.store.get(one.mo, "config")))

        def move(config: Any) -> None:
            for disk in disks_of(config):
                self._move(disk, self._chains[disk.key][: held[disk.key]], disk.backing.changeId)

        self.vcenter.store.edit(node.mo, "config", move)

    def _show_snapshots(self) -> None:
        store = self.vcenter.store
        info = describe.snapshot_info(self.mo, self.snapshots)
        roots = [node.mo for node in self.snapshots[:1]]
        store.change(self.mo, snapshot=info, rootSnapshot=vim.vm.Snapshot.Array(roots))
        for place, node in enumerate(self.snapshots):
            above = [child.mo for child in self.snapshots[place + 1 : place + 2]]
            store.change(node.mo, childSnapshot=vim.vm.Snapshot.Array(above))

        def needs(runtime: Any) -> None:
            runtime.consolidationNeeded = bool(self.left_behind)

        store.edit(self.mo, "runtime", needs)

    def refresh_disks(self) -> None:
        """Shows the files that the disks live in now and their change ids."""
        ids = {one["key"]: one["change_id"] for one in self.host.client.change_tracking(self.moref)["disks"]}

        def show(config: Any) -> None:
            for disk in disks_of(config):
                self._move(disk, self._chains[disk.key], ids.get(disk.key))

        self.vcenter.store.edit(self.mo, "config", show)

    def _move(self, disk: Any, chain: list[str], change_id: str | None) -> None:
        """Tells a VirtualDisk of its files, from the base to the one that it lives in."""
        kind = KINDS[self.vcenter.kind_of(self.vcenter.store.get(disk.backing.datastore, "name"))]
        *below, leaf = chain
        move_disk(disk, leaf, below[::-1], change_id, kind.deltas(disk.capacityInBytes).vsphere)
