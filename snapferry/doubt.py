"""Whether changes since a disk's base can be believed; every reason that they can't has a name. Pure.

The reasons are what change tracking is known to lie after, or not to survive. A disk in doubt is compared with
its image in full.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from snapferry.plan import ChangesBy
from snapferry.record import BaseState, DiskRecord
from snapferry.vsphere import ChangesUnknown, parse_change_id
from snapferry.vsphere.models import SourceDisk, SourceVm

FIXED_RELEASE, FIXED_BUILD = (6, 0), 3247720
"""ESXi600-201511001 (Express Patch 4, 2015-11-25), which mends VMware's KB 2136854.

Older hosts lose changes made during a consolidation (6.0), or past 128 GB (4.x, 5.x).
"""
HA_EVENTS = frozenset(
    {
        "VmRestartedOnAlternateHostEvent",
        "VmRestartedByHAEvent",
        "VmFailoverFailed",
        "VmDasBeingResetEvent",
        "VmDasBeingResetWithScreenshotEvent",
    }
)
LOST_EVENTS = frozenset({"VmDisconnectedEvent", "VmOrphanedEvent"})
"""vCenter lost the VM's host: it crashed, or only its management network failed."""


class Reason(StrEnum):
    """Why a base isn't trusted."""

    DIVERGED = "diverged"
    TRACKING_OFF = "tracking off"
    TRACKING_RESET = "tracking reset"
    WENT_BACK = "went back"
    REVERTED = "reverted"
    RESIZED = "resized"
    SWAPPED = "swapped"
    HOST_CRASHED = "host crashed"
    OLD_HOST = "old host"
    HISTORY_UNKNOWN = "history unknown"
    CHANGES_UNKNOWN = "changes unknown"
    BASE_GONE = "base gone"


class Doubt(NamedTuple):
    """Why a disk is compared in full."""

    reason: Reason
    text: str
    """For an operator, without a full stop."""

    @property
    def voids_the_map(self) -> bool:
        """Whether the allocation map isn't believed either: it lies where tracking began while snapshots existed."""
        return self.reason in (Reason.TRACKING_RESET, Reason.CHANGES_UNKNOWN)


class History(NamedTuple):
    """What happened to the VM since a base, as vCenter tells it."""

    reverts: int = 0
    events: tuple[str, ...] = ()
    """Types of its power, migration and HA events."""
    gap: str = ""
    """Why vCenter doesn't tell all; empty where it does."""


def doubt_of(
    record: DiskRecord, disk: SourceDisk, vm: SourceVm, history: History, by: ChangesBy = ChangesBy.TRACKING
) -> Doubt | None:
    """Why changes since the disk's base can't be trusted; None where they can, or where there is no base yet.

    Args:
        record: the disk's base: warm, or partly copied.
        disk: the disk at the point in time that is copied.
        vm: as it is now.
        history: since the base.
        by: by what the changes are found. A comparison trusts nothing, so there is nothing to doubt; delta files hold
            what was written, so they are wrong of nothing but a VM that went back.
    """
    if record.state == BaseState.DIVERGED:
        return Doubt(Reason.DIVERGED, "the image was written to by something else than the copy")
    if record.state == BaseState.EMPTY or by == ChangesBy.COMPARE:
        return None
    return next(_doubts(record, disk, vm, history, tracked=by == ChangesBy.TRACKING), None)


def _doubts(record: DiskRecord, disk: SourceDisk, vm: SourceVm, history: History, *, tracked: bool) -> Iterator[Doubt]:
    if disk.backing_uuid != record.disk_uuid:
        yield Doubt(Reason.SWAPPED, f"it is another disk: {disk.backing_uuid} instead of {record.disk_uuid}")
    if disk.capacity_bytes != record.capacity_bytes:
        yield Doubt(Reason.RESIZED, f"its capacity changed from {record.capacity_bytes} to {disk.capacity_bytes} bytes")
    if tracked:
        yield from _of_ids(record.change_id, disk.change_id)
    if history.gap or record.taken is None:
        yield Doubt(
            Reason.HISTORY_UNKNOWN, history.gap or "it isn't known when the base was taken, nor what happened since"
        )
    if history.reverts:
        yield Doubt(Reason.REVERTED, "the VM was reverted to a snapshot since the last round")
    if tracked:
        yield from _of_hosts(record.taken, vm, history)


def _of_ids(base: str | None, now: str | None) -> Iterator[Doubt]:
    """Another UUID: tracking knows nothing of the base. A sequence below the base's: the VM was reverted."""
    if not base or not now:
        yield Doubt(Reason.TRACKING_OFF, "change tracking is off for this disk, or was")
        return
    try:
        base_uuid, base_sequence = parse_change_id(base)
        uuid, sequence = parse_change_id(now)
    except ChangesUnknown as error:
        yield Doubt(Reason.CHANGES_UNKNOWN, error.cause.rstrip("."))
        return
    if uuid != base_uuid:
        yield Doubt(Reason.TRACKING_RESET, "change tracking was reset since the last round")
    elif sequence < base_sequence:
        text = f"change tracking went back, from {base_sequence} to {sequence}: the VM was reverted"
        yield Doubt(Reason.WENT_BACK, text)


def _of_hosts(taken: datetime | None, vm: SourceVm, history: History) -> Iterator[Doubt]:
    """A host that was lost took the VM with it where `bootTime` is later than the base.

    It is set as a VM is powered on from off, cleared as it is powered off, and not touched by a resume (vSphere API
    reference, VirtualMachineRuntimeInfo).
    """
    if ha := HA_EVENTS.intersection(history.events):
        yield Doubt(Reason.HOST_CRASHED, f"HA restarted the VM since the last round ({', '.join(sorted(ha))})")
    started_anew = vm.boot_time is None or (taken is not None and vm.boot_time > taken)
    if started_anew and LOST_EVENTS.intersection(history.events):
        yield Doubt(Reason.HOST_CRASHED, "the VM's host was lost since the last round, and the VM stopped with it")
    if text := old_host(vm):
        yield Doubt(Reason.OLD_HOST, text)


def old_host(vm: SourceVm) -> str:
    """What is wrong with a host whose change tracking is known to lose changes; empty where nothing is.

    A host whose release the vCenter user may not see counts as new.
    """
    if not vm.host_version:
        return ""
    release = tuple(int(part) for part in vm.host_version.split(".")[:2] if part.isdigit())
    if release > FIXED_RELEASE or (release == FIXED_RELEASE and vm.host_build >= FIXED_BUILD):
        return ""
    return (
        f"the host {vm.host} runs ESXi {vm.host_version} build {vm.host_build}, whose change tracking loses changes"
        f" (mended in 6.0 build {FIXED_BUILD})"
    )
