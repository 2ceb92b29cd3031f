"""What each disk of a VM needs at one point in time, and why."""

from datetime import datetime
from functools import cache
from typing import NamedTuple

from snapferry import vsphere
from snapferry.changes import means_of
from snapferry.delta_files import BaseGone, DeltaFilesUnreadable, delta_files
from snapferry.doubt import Doubt, History, Reason, doubt_of
from snapferry.migration import Migration
from snapferry.plan import ChangesBy, OnDoubt
from snapferry.record import BaseState, DiskRecord, RoundKind
from snapferry.seams import Changes
from snapferry.transfer import Extents
from snapferry.vsphere.models import SourceDisk
from snapferry.watch import Watch


class Point(NamedTuple):
    """The point in time that is copied: a snapshot, or the VM itself where it is off.

    Attributes:
        snapshot: moref; empty for the powered-off VM.
        taken: when, by vCenter's clock.
        disks: each disk with its change id and the file to read.
    """

    snapshot: str
    taken: datetime
    disks: tuple[SourceDisk, ...]


class Work(NamedTuple):
    """What one disk needs in this round."""

    disk: SourceDisk
    record: DiskRecord
    extents: Extents
    zeros: Extents
    """Extents that the base leaves out, and that have to be made to read as zeros."""
    doubt: str
    """Why a base, or a part of one, counts for nothing; empty where it counts or there is none."""
    outdated: Extents | None = None
    """What changed since a base copy that had to end: its other blocks still count. None where none of it counts."""

    whole: bool = False
    """Whether the whole disk is read because the allocation map isn't believed, or there is none."""

    by: ChangesBy = ChangesBy.TRACKING
    """By what the extents were found."""

    @property
    def is_delta(self) -> bool:
        """Whether the image holds a base that the extents are changes of."""
        return self.record.state == BaseState.WARM and not self.doubt

    def is_compared(self, on_doubt: OnDoubt, *, off: bool) -> bool:
        """Whether each block is held against what the image holds, and only what differs is written.

        Where there is a base, a comparison is a delta of everything: the base holds until its end.

        Args:
            on_doubt: what the plan says of a VM that is off.
            off: whether it is.
        """
        if self.record.state == BaseState.EMPTY:
            return False
        if self.is_delta:
            return self.by == ChangesBy.COMPARE
        return not off or on_doubt == OnDoubt.COMPARE


def find_work(migration: Migration, point: Point, watch: Watch) -> list[Work]:
    """What each disk needs: its delta, or all that its map names, and why."""
    watch.step("changes", "asking which blocks changed")

    @cache
    def history(since: datetime | None) -> History:
        return _read_history(migration, since)

    works = []
    for disk in point.disks:
        record = migration.planned.disk(disk)
        by = means_of(disk, migration.vm.power, migration.planned.untracked, migration.plan).by
        doubt = doubt_of(record, disk, migration.vm, history(record.taken), by)
        if by == ChangesBy.TRACKING:
            changes = vsphere.ChangeTracking(migration.source, migration.vm.moref, point.snapshot or None, disk)
            works.append(_work(changes, disk, record, doubt))
        elif by == ChangesBy.DELTA_FILES and record.state == BaseState.WARM and not doubt:
            deltas = delta_files(migration, disk, off=not point.snapshot, stop=watch.stop)
            works.append(_of_delta_files(deltas, point, disk, record, watch))
        else:
            works.append(_compared(point, disk, record, doubt))
    return works


def kind_of(works: list[Work]) -> RoundKind:
    """What kind of round the works of a VM's disks make."""
    if not all(one.is_delta for one in works):
        return "base"
    return "compare" if any(one.by == ChangesBy.COMPARE for one in works) else "delta"


def _read_history(migration: Migration, since: datetime | None) -> History:
    if since is None:
        return History()
    try:
        return History(
            len(vsphere.reverts_since(migration.source, migration.vm.moref, since)),
            tuple(vsphere.power_events_since(migration.source, migration.vm.moref, since)),
        )
    except vsphere.HistoryIncomplete as error:
        return History(gap=error.cause.rstrip("."))


def _work(changes: Changes, disk: SourceDisk, record: DiskRecord, doubt: Doubt | None) -> Work:
    changed: Extents | None = None
    if record.state in (BaseState.WARM, BaseState.PARTIAL) and not doubt:
        try:
            changed = changes.since(record.change_id)
        except vsphere.ChangesUnknown as error:
            doubt = _unknown(error)
    if changed is not None and record.state == BaseState.WARM:
        return Work(disk, record, changed, Extents.empty(), "")
    extents = Extents.whole(disk.capacity_bytes)
    map_counts = not (doubt and doubt.voids_the_map) and not record.whole
    if map_counts:
        try:
            extents = changes.since(None)
        except vsphere.ChangesUnknown as error:
            doubt = doubt or _unknown(error)
    zeros = Extents.empty() if record.state == BaseState.EMPTY else extents.complement(disk.capacity_bytes)
    return Work(disk, record, extents, zeros, doubt.text if doubt else "", changed, whole=not map_counts)


def _of_delta_files(deltas: Changes, point: Point, disk: SourceDisk, record: DiskRecord, watch: Watch) -> Work:
    """What delta files name; while the VM runs, files that can't be read give way to a comparison over the base."""
    try:
        return Work(disk, record, deltas.since(record.snapshot), Extents.empty(), "", by=ChangesBy.DELTA_FILES)
    except BaseGone as error:
        return _compared(point, disk, record, Doubt(Reason.BASE_GONE, error.cause.rstrip(".")))
    except DeltaFilesUnreadable as error:
        watch.step("changes", f"{disk.label} is compared: {error.cause}")
        unknown = None if point.snapshot else Doubt(Reason.CHANGES_UNKNOWN, error.cause.rstrip("."))
        return _compared(point, disk, record, unknown)


def _compared(point: Point, disk: SourceDisk, record: DiskRecord, doubt: Doubt | None) -> Work:
    """The whole disk. A base copy that was killed goes on where its snapshot is still there."""
    goes_on = record.state == BaseState.PARTIAL and record.snapshot == point.snapshot
    return Work(
        disk, record, Extents.whole(disk.capacity_bytes), Extents.empty(), doubt.text if doubt else "",
        outdated=Extents.empty() if goes_on else None, whole=True, by=ChangesBy.COMPARE,
    )  # fmt: skip


def _unknown(error: vsphere.ChangesUnknown) -> Doubt:
    return Doubt(Reason.CHANGES_UNKNOWN, error.cause.rstrip("."))
