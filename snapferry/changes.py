"""By what it is found out which blocks of a VM's disks changed, and why. Pure.

Change tracking tells it at once, and without a trace on the VM. Else the tables of delta files tell it, for which a
snapshot stays between rounds; VMFS 6 gives them away only when the VM is off, in time for the last changes. Where a
disk has no files, every block is read and held against the image.
"""

from typing import NamedTuple

from snapferry.plan import ChangesBy, MigrationPlan
from snapferry.record import MigrationRecord
from snapferry.routes import FILES, FROZEN_FILES
from snapferry.vsphere import OLDEST_HARDWARE
from snapferry.vsphere.models import PowerState, SourceDisk, SourceVm


class Means(NamedTuple):
    """By what a disk's changes are found, and why by that."""

    by: ChangesBy
    why: str

    def __str__(self) -> str:
        return f"{self.by}: {self.why}"


def untracked(vm: SourceVm, plan: MigrationPlan | None = None, record: MigrationRecord | None = None) -> str:
    """Why change tracking isn't used for a VM, for an operator and without a full stop; empty where it is."""
    if plan and plan.changes not in (None, ChangesBy.TRACKING):
        return f"the plan asks for {plan.changes}"
    if not vm.change_tracking_supported or 0 < vm.hardware_version < OLDEST_HARDWARE:
        return f"the VM can't track changes (hardware version {vm.hardware_version})"
    if vm.change_tracking:
        return ""
    if plan and not plan.enable_change_tracking:
        return "change tracking is off, and the plan doesn't let it be switched on"
    if record and record.kept_snapshots & {one.moref for one in vm.snapshots}:
        return "change tracking is off, and can't be switched on over the snapshot that the last round has left"
    return ""


def means_of(disk: SourceDisk, power: PowerState, reason: str, plan: MigrationPlan | None = None) -> Means:
    """By what the changes of a disk are found.

    Args:
        disk: as the snapshot has it, or the VM that is off.
        power: of the VM.
        reason: why change tracking isn't used; empty where it is.
        plan: what it asks for.
    """
    if not reason:
        return Means(ChangesBy.TRACKING, "it tells them at once")
    if plan and plan.changes == ChangesBy.COMPARE:
        return Means(ChangesBy.COMPARE, reason)
    if disk.datastore_kind not in FILES:
        return Means(ChangesBy.COMPARE, f"{reason}; a disk on {disk.datastore_kind} has no delta files")
    if power != PowerState.OFF and disk.datastore_kind not in FROZEN_FILES:
        locked = f"{disk.datastore_kind} locks a running VM's delta files, which tell the last changes once it is off"
        return Means(ChangesBy.COMPARE, f"{reason}; {locked}")
    return Means(ChangesBy.DELTA_FILES, reason)


def means_when_off(disk: SourceDisk, reason: str, plan: MigrationPlan | None = None) -> ChangesBy:
    """By what a disk's last changes are found; where that is delta files, snapshots stay between rounds."""
    return means_of(disk, PowerState.OFF, reason, plan).by
