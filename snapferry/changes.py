"""By what it is found out which blocks of a VM's disks changed, and why. Pure.

Change tracking tells it at once, and without a trace on the VM. Where it can't be had, each round reads the whole disk
and holds every block against the image.
"""

from typing import NamedTuple

from snapferry.plan import ChangesBy, MigrationPlan
from snapferry.vsphere import OLDEST_HARDWARE
from snapferry.vsphere.models import SourceDisk, SourceVm


class Means(NamedTuple):
    """By what a disk's changes are found, and why by that."""

    by: ChangesBy
    why: str

    def __str__(self) -> str:
        return f"{self.by}: {self.why}"


def untracked(vm: SourceVm, plan: MigrationPlan | None = None) -> str:
    """Why change tracking isn't used for a VM, for an operator and without a full stop; empty where it is."""
    if plan and plan.changes not in (None, ChangesBy.TRACKING):
        return f"the plan asks for {plan.changes}"
    if not vm.change_tracking_supported or 0 < vm.hardware_version < OLDEST_HARDWARE:
        return f"the VM can't track changes (hardware version {vm.hardware_version})"
    if plan and not vm.change_tracking and not plan.enable_change_tracking:
        return "change tracking is off, and the plan doesn't let it be switched on"
    return ""


def changes_of(vm: SourceVm, plan: MigrationPlan | None = None) -> dict[int, Means]:
    """By what the changes of each disk of a VM will be found, by device key."""
    reason = untracked(vm, plan)
    return {disk.key: means_of(disk, reason) for disk in vm.disks}


def means_of(disk: SourceDisk, reason: str) -> Means:
    """By what the changes of a disk are found.

    Args:
        disk: as the snapshot has it, or the VM that is off.
        reason: why change tracking isn't used; empty where it is.
    """
    if not reason:
        return Means(ChangesBy.TRACKING, "it tells them at once")
    return Means(ChangesBy.COMPARE, reason)
