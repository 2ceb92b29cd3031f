"""Snapshots that carry our name: made, read, and let go."""

import logging
import time
from threading import Event
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.errors import Refused
from snapferry.vsphere import hardware
from snapferry.vsphere.errors import ConsolidationNeeded, InventoryIncomplete, NotInTime, SnapshotExists, SnapshotGone
from snapferry.vsphere.hardware import Names
from snapferry.vsphere.inventory import datastore_names
from snapferry.vsphere.models import Snapshot, SourceVm
from snapferry.vsphere.properties import read_object
from snapferry.vsphere.waits import Values, Watched, let_end, run_task, wait_for

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

PREFIX = "snapferry-"
CREATE_SECONDS = 15 * 60
REMOVE_SECONDS = 24 * 3600
"""Merging a delta of many hours can take hours itself."""
CONSOLIDATION_SECONDS = 10
"""How long `consolidationNeeded` may stay set after a removal before a consolidation is asked for."""


def snapshot_name(migration_id: str, round_number: int) -> str:
    """Name of the snapshot of one round of one migration."""
    return f"{PREFIX}{migration_id}-r{round_number}"


def our_snapshots(vm: SourceVm, migration_id: str | None = None) -> tuple[Snapshot, ...]:
    """The VM's snapshots that carry our name, of one migration or of any, oldest first."""
    prefix = PREFIX if migration_id is None else f"{PREFIX}{migration_id}-r"
    return tuple(one for one in vm.snapshots if one.name.startswith(prefix))


def wait_for_others(session: "Session", vm: SourceVm, timeout_seconds: float, stop: Event) -> None:
    """Waits until no snapshot but ours is left of the VM: a backup lets its own go.

    Args:
        stop: ends the wait.

    Raises:
        Refused: there still is one.
        Stopped, SourceError.
    """

    def others(values: Values) -> list[str]:
        found = hardware.snapshots_of(values.get("snapshot"))
        return [one.name for one in found if not one.name.startswith(PREFIX)]

    watched = Watched(vim.VirtualMachine, vm.moref, ["snapshot"])
    try:
        wait_for(session, watched, lambda seen: not others(seen), timeout_seconds, "let others' snapshots go", stop)
    except NotInTime as error:
        now = read_object(session, f"read the snapshots of {vm.name}", vim.VirtualMachine, vm.moref, ("snapshot",))
        raise Refused(
            f"{vm.name}: it has a snapshot that isn't ours ({', '.join(others(now)) or 'gone just now'}).",
            "Wait until the backup that made it is done, or remove it; then run again.",
        ) from error


def create_snapshot(session: "Session", vm: SourceVm, name: str, description: str) -> Snapshot:
    """Makes a snapshot without memory and without quiescing, and returns it with its disks.

    The name is looked for first, so that a snapshot whose answer was lost isn't made twice.

    Raises:
        SnapshotExists: there is one of that name; its moref is in the error.
        MissingPrivilege, TaskFailed, NotInTime, SourceError: it couldn't be made.
    """
    _wait_for_tasks(session, vm)
    same = [one for one in _tree(session, f"look for the snapshot {name}", vm.moref) if one.name == name]
    if same:
        raise SnapshotExists(
            f"{vm.name} has a snapshot {name!r} already ({same[-1].moref}).",
            "It is left from an earlier attempt at the same round; it is adopted or removed.",
            moref=same[-1].moref,
        )
    bound = session.bind(vim.VirtualMachine, vm.moref)

    def start() -> Any:
        return bound.CreateSnapshot_Task(name=name, description=description, memory=False, quiesce=False)

    made = run_task(session, f"create the snapshot {name} of {vm.name}", start, CREATE_SECONDS)
    return read_snapshot(session, made._moId)


def read_snapshot(session: "Session", moref: str) -> Snapshot:
    """A snapshot with its disks: their change ids and frozen files.

    Raises:
        SnapshotGone: it is no longer there.
        InventoryIncomplete: vCenter doesn't tell its configuration.
    """
    what = f"read the snapshot {moref}"
    values = read_object(session, what, vim.vm.Snapshot, moref, ("config.hardware.device", "vm"))
    devices, owner = values.get("config.hardware.device"), values.get("vm")
    if devices is None or owner is None:
        raise InventoryIncomplete(
            f"vCenter doesn't tell the disks of the snapshot {moref}.",
            "See whether the user has System.Read on the VM.",
        )
    named = next((one for one in _tree(session, what, owner._moId) if one.moref == moref), None)
    if named is None:
        raise SnapshotGone(f"The snapshot {moref} is no longer in its VM's tree.", "Somebody removed it.")
    backings: list[Any] = [one.backing for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]
    stores = [backing.datastore for backing in backings if getattr(backing, "datastore", None)]
    names = Names(datastore_names(session, what, stores))
    return named.model_copy(update={"disks": hardware.disks_of(devices, names)})


def remove_snapshot(session: "Session", vm: SourceVm, moref: str) -> None:
    """Removes one of our snapshots and waits until its files are merged; one that is gone is done.

    Raises:
        Refused: it doesn't carry our name.
        ConsolidationNeeded: the files couldn't be merged, even when asked once more.
        MissingPrivilege, VmGone, TaskFailed, NotInTime, SourceError: it couldn't be removed.
    """
    tree = _tree(session, f"look for the snapshot {moref}", vm.moref)
    there = next((one for one in tree if one.moref == moref), None)
    if there is not None:
        if not there.name.startswith(PREFIX):
            raise Refused(f"The snapshot {there.name!r} of {vm.name} isn't ours.", "Remove it by hand if it may go.")
        bound = session.bind(vim.vm.Snapshot, moref)
        what = f"remove the snapshot {there.name} of {vm.name}"

        def start() -> Any:
            return bound.RemoveSnapshot_Task(removeChildren=False, consolidate=True)

        try:
            run_task(session, what, start, REMOVE_SECONDS)
        except SnapshotGone:
            log.info("The snapshot %s of %s went meanwhile", there.name, vm.name)
    _consolidate(session, vm)


def _consolidate(session: "Session", vm: SourceVm) -> None:
    """Waits until no file is left to merge; asks for it once where it stays."""
    watched = Watched(vim.VirtualMachine, vm.moref, ["runtime.consolidationNeeded"])
    what = f"merge the files of {vm.name}'s snapshots"

    def merged(values: dict[str, Any]) -> bool:
        return not values.get("runtime.consolidationNeeded")

    try:
        wait_for(session, watched, merged, CONSOLIDATION_SECONDS, what)
        return
    except NotInTime:
        log.warning("%s needs a consolidation; asking for it", vm.name)
    bound = session.bind(vim.VirtualMachine, vm.moref)
    run_task(session, what, bound.ConsolidateVMDisks_Task, REMOVE_SECONDS)
    try:
        wait_for(session, watched, merged, CONSOLIDATION_SECONDS, what)
    except NotInTime as error:
        raise ConsolidationNeeded(
            f"{vm.name} still needs a consolidation after its snapshot was removed.",
            "Look for what holds its files (a backup proxy with the disk attached), then choose Snapshots > "
            "Consolidate in vCenter.",
        ) from error


def _tree(session: "Session", what: str, vm_moref: str) -> tuple[Snapshot, ...]:
    """The VM's snapshots as they are now."""
    found = read_object(session, what, vim.VirtualMachine, vm_moref, ("snapshot",))
    return hardware.snapshots_of(found.get("snapshot"))


def _wait_for_tasks(session: "Session", vm: SourceVm) -> None:
    """Waits for tasks on the VM that still run: one may be the creation whose answer was lost."""
    deadline = time.monotonic() + CREATE_SECONDS
    found = read_object(session, f"read the tasks of {vm.name}", vim.VirtualMachine, vm.moref, ("recentTask",))
    for task in found.get("recentTask", ()):
        let_end(session, task, deadline)
