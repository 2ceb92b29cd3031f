"""Change tracking: switched on with the stun that it needs, asked page by page to the end, and doubted."""

import logging
import re
import time
from threading import Event
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from snapferry.errors import Refused, SourceError
from snapferry.transfer.extents import Extents
from snapferry.vsphere import faults, hardware
from snapferry.vsphere.errors import ChangesUnknown, NotInTime
from snapferry.vsphere.hardware import Names
from snapferry.vsphere.inventory import read_vm
from snapferry.vsphere.models import PowerState, SourceDisk, SourceVm
from snapferry.vsphere.snapshots import PREFIX, create_snapshot, remove_snapshot
from snapferry.vsphere.waits import Watched, run_task, wait_for

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

EVERYTHING = "*"
"""Asks for the allocated areas instead of the changes since an id."""
STUN_NAME = f"{PREFIX}tracking"
"""Name of the snapshot that is made and removed only because tracking starts at the next stun."""
OLDEST_HARDWARE = 7
RECONFIGURE_SECONDS = 10 * 60
READ_BACK_SECONDS = 60
BUSY_SECONDS = 60
"""How long the leaf of a VM that was just powered off may stay locked."""
BUSY_PAUSE_SECONDS = 2.0

UNKNOWN = (
    vim.fault.FileFault,
    vim.fault.NotFound,
    vim.fault.InvalidState,
    vim.fault.GenericVmConfigFault,
    vmodl.fault.InvalidArgument,
    vmodl.fault.SystemError,
)
"""With what a host says that it can't tell."""

_CHANGE_ID = re.compile(r"((?:[0-9a-f]{2}[ -]){15}[0-9a-f]{2})/(\d+)", re.IGNORECASE)


def parse_change_id(text: str) -> tuple[str, int]:
    """UUID and sequence of a change id such as `52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81`.

    Raises:
        ChangesUnknown: it isn't one.
    """
    found = _CHANGE_ID.fullmatch(text.strip())
    if not found:
        raise ChangesUnknown(f"{text!r} is no change id.", "Switch change tracking off and on again.")
    return found[1].lower(), int(found[2])


def can_be_tracked(disk: SourceDisk) -> bool:
    """Whether vSphere tracks the changes of such a disk: not of independent, shared or physical raw ones."""
    return not (disk.mode.startswith("independent") or disk.sharing or disk.backing_type == "rdm-physical")


def enable_change_tracking(session: "Session", vm: SourceVm) -> None:
    """Switches change tracking on, makes it take effect, and reads back that it did. Repeatable.

    On a running VM it takes effect at the next stun: a snapshot is made and removed.

    Raises:
        Refused: the VM can't be tracked, or has snapshots (then `"*"` fails or lies).
        MissingPrivilege, TaskFailed, SourceError: it couldn't be switched on, or the read-back says that it isn't.
    """
    vm = read_vm(session, vm.moref)
    for left in vm.snapshots:
        if left.name == STUN_NAME:
            remove_snapshot(session, vm, left.moref)
    vm = read_vm(session, vm.moref)
    running = vm.power is PowerState.ON
    if vm.change_tracking and (_all_tracked(vm.disks) or not running):
        return
    _refuse_untrackable(vm)
    if not vm.change_tracking:
        _switch(session, vm, True)
    if running:
        stun = create_snapshot(session, vm, STUN_NAME, "Snapferry switches change tracking on; it goes at once.")
        remove_snapshot(session, vm, stun.moref)
        _read_back(session, vm)


def disable_change_tracking(session: "Session", vm: SourceVm) -> None:
    """Switches change tracking off; on a running VM it ends at the next stun. Repeatable."""
    if read_vm(session, vm.moref).change_tracking:
        _switch(session, vm, False)


def _refuse_untrackable(vm: SourceVm) -> None:
    if vm.snapshots:
        names = ", ".join(repr(one.name) for one in vm.snapshots)
        raise Refused(
            f"{vm.name} has snapshots ({names}); change tracking switched on now would leave out what they hold.",
            "Remove them, or wait for the backup that made them, then try again.",
        )
    if not vm.change_tracking_supported or 0 < vm.hardware_version < OLDEST_HARDWARE:
        raise Refused(
            f"{vm.name} can't track changes (hardware version {vm.hardware_version}).",
            f"Upgrade its virtual hardware to {OLDEST_HARDWARE} or later, or move it powered off.",
        )


def _switch(session: "Session", vm: SourceVm, enabled: bool) -> None:
    """Sets the flag and reads it back."""
    what = f"switch change tracking of {vm.name} {'on' if enabled else 'off'}"
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=enabled)
    bound = session.bind(vim.VirtualMachine, vm.moref)
    run_task(session, what, lambda: bound.ReconfigVM_Task(spec), RECONFIGURE_SECONDS)
    watched = Watched(vim.VirtualMachine, vm.moref, ["config.changeTrackingEnabled"])

    def taken(values: dict[str, Any]) -> bool:
        return bool(values.get("config.changeTrackingEnabled")) is enabled

    wait_for(session, watched, taken, READ_BACK_SECONDS, what)


def _read_back(session: "Session", vm: SourceVm) -> None:
    """Waits until every disk that can be tracked has a change id."""
    watched = Watched(vim.VirtualMachine, vm.moref, ["config.hardware.device"])

    def told(values: dict[str, Any]) -> bool:
        return _all_tracked(hardware.disks_of(values.get("config.hardware.device", ()), Names()))

    try:
        wait_for(session, watched, told, READ_BACK_SECONDS, f"give the disks of {vm.name} change ids")
    except NotInTime as error:
        raise SourceError(
            f"Change tracking of {vm.name} is switched on but some disk has no change id.",
            "Switch it off and on again, best with the VM powered off, and look at the VM's vmware.log.",
        ) from error


def _all_tracked(disks: tuple[SourceDisk, ...]) -> bool:
    return all(disk.change_id for disk in disks if can_be_tracked(disk))


class ChangeTracking:
    """`Changes` of one disk, told by the host.

    Args:
        session: a login to vCenter.
        vm_moref: the VM.
        snapshot_moref: the snapshot to compare with; None for a VM that is powered off.
        disk: the disk as the snapshot has it.
    """

    def __init__(self, session: "Session", vm_moref: str, snapshot_moref: str | None, disk: SourceDisk) -> None:
        self._session = session
        self._vm_moref = vm_moref
        self._snapshot_moref = snapshot_moref
        self._disk = disk

    def since(self, base: str | None) -> Extents:
        """The extents that may differ since the change id `base`; the allocated ones for None.

        Raises:
            ChangesUnknown: the host can't tell, or what it tells can't be.
            MissingPrivilege, Unreachable, SourceError: the question couldn't be asked.
        """
        if base is not None:
            parse_change_id(base)
        capacity = self._disk.capacity_bytes
        starts: list[int] = []
        lengths: list[int] = []
        offset = 0
        while offset < capacity:
            page = self._page(offset, base or EVERYTHING)
            if page.startOffset > offset or page.startOffset + page.length <= offset:
                raise self._unknown(
                    f"it was asked from byte {offset} and answered for {page.startOffset}+{page.length}"
                )
            for area in page.changedArea or ():
                end = min(area.start + area.length, capacity)
                if area.start < 0 or area.start >= end:
                    raise self._unknown(f"it names {area.length} bytes at {area.start} of a disk of {capacity}")
                starts.append(area.start)
                lengths.append(end - area.start)
            offset = page.startOffset + page.length
        return Extents.of(starts, lengths, capacity)

    def _page(self, offset: int, change_id: str) -> Any:
        """One answer; asked again while the leaf of a VM that was just powered off is locked."""
        session = self._session
        vm = session.bind(vim.VirtualMachine, self._vm_moref)
        snapshot = session.bind(vim.vm.Snapshot, self._snapshot_moref) if self._snapshot_moref else None
        deadline = time.monotonic() + (BUSY_SECONDS if snapshot is None else 0)

        def ask() -> Any:
            try:
                return vm.QueryChangedDiskAreas(snapshot, self._disk.key, offset, change_id)
            except (vim.fault.FileLocked, vim.fault.TaskInProgress) as fault:
                if time.monotonic() >= deadline:
                    raise self._unknown(faults.text(fault)) from fault
                return None
            except UNKNOWN as fault:
                raise self._unknown(faults.text(fault)) from fault

        what = f"tell what changed on {self._disk.label} of {self._vm_moref}"
        page = session.call(what, ask, repeatable=True)
        while page is None:
            Event().wait(BUSY_PAUSE_SECONDS)
            page = session.call(what, ask, repeatable=True)
        return page

    def _unknown(self, reason: str) -> ChangesUnknown:
        return ChangesUnknown(
            f"Change tracking can't tell what changed on {self._disk.label} ({self._disk.file_name}): {reason}.",
            "The disk is compared or copied in full; if this repeats, switch change tracking off and on again.",
        )
