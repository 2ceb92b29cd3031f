"""Which ways lead to a disk's bytes, in which order, and why. Pure.

What is open where comes from documents and from the field: a running VM's files are locked by VMFS 6 as a whole, by
VMFS 5 at its leaf; NFS leaves frozen files readable; vSAN and vVol have no files. An export is a stream of the whole
disk, so it serves no delta. NFC reads any frozen disk, and any disk of a VM that is off.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from snapferry.plan import MigrationPlan, Route
from snapferry.vsphere.models import PowerState, SourceDisk

FILES = ("vmfs6", "vmfs5", "nfs")
"""Kinds of datastore whose disks have files that can be read, at least of a VM that is off."""
FROZEN_FILES = ("vmfs5", "nfs")
"""Kinds of datastore whose frozen files can be read while the VM runs."""


class Way(NamedTuple):
    """One way to a disk's bytes, and why it is taken or isn't."""

    route: Route
    why: str

    def __str__(self) -> str:
        return f"{self.route}: {self.why}"


def ways_to(
    disk: SourceDisk, power: PowerState, plan: MigrationPlan | None = None, *, whole: bool = True, last: str = ""
) -> list[Way]:
    """The ways that are open, the best first; never empty.

    Args:
        disk: as the snapshot has it, or the VM that is off.
        power: of the VM.
        plan: what it asks for goes first, where it is open.
        whole: whether the whole disk is wanted, rather than extents of it.
        last: the route that served this disk last; it goes before those that failed then.
    """
    mounts = plan.mounts if plan else {}
    found = list(_open(disk, power, mounts, whole))
    if plan and plan.route and (asked := _of(plan.route, found)):
        found.insert(0, Way(asked.route, f"the plan asks for it; {asked.why}"))
        found.remove(asked)
    elif last and (known := _of(last, found)):
        found.remove(known)
        found.insert(0, known)
    return found


def _of(route: str, ways: list[Way]) -> Way | None:
    return next((one for one in ways if one.route == route), None)


def _open(disk: SourceDisk, power: PowerState, mounts: Mapping[str, Path], whole: bool) -> Iterator[Way]:
    off = power == PowerState.OFF
    files = disk.datastore_kind in (FILES if off else FROZEN_FILES)
    if files and disk.datastore in mounts and disk.datastore_kind == "nfs":
        yield Way(Route.MOUNT, f"{disk.datastore} is mounted at {mounts[disk.datastore]}")
    yield Way(Route.NFC, "the VM is off" if off else f"random reads of a frozen disk, on {disk.datastore_kind} too")
    if files:
        why = "the VM is off, so its files aren't locked" if off else f"{disk.datastore_kind} doesn't lock frozen files"
        yield Way(Route.DATASTORE, why)
    if whole:
        yield Way(Route.EXPORT, "the whole disk is wanted")


def closed(disk: SourceDisk, power: PowerState, route: Route, plan: MigrationPlan) -> str:
    """Why a route that the plan asks for isn't open for a disk, for an operator; empty where it is."""
    if _of(route, list(_open(disk, power, plan.mounts, whole=True))):
        return ""
    if disk.datastore_kind not in FILES:
        return f"a disk on {disk.datastore_kind} has no files"
    if route == Route.MOUNT:
        known = ", ".join(plan.mounts) or "none"
        return f"the plan's `mounts` has no NFS datastore {disk.datastore} (there: {known})"
    return f"{disk.datastore_kind} locks a running VM's files"
