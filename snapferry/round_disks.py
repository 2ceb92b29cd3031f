"""The disks of one round: how each is copied, and when its id becomes a base."""

import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from snapferry import opennebula
from snapferry.changes import means_when_off
from snapferry.disk_readers import DiskReaders
from snapferry.errors import SnapferryError
from snapferry.lease import Lease
from snapferry.migration import Migration
from snapferry.plan import ChangesBy, Route
from snapferry.readers import RouteFailed
from snapferry.record import BaseState, DiskResult, base_of_image
from snapferry.round_work import Point, Work
from snapferry.routes import Way, ways_to
from snapferry.seams import Journal
from snapferry.transfer import Copied, FileJournal, NoJournal, RateLimiter, pump
from snapferry.vmdk import VmdkError
from snapferry.vsphere.models import SourceDisk
from snapferry.watch import Watch
from snapferry.writers import ComparingWriter, FlushFailed, RawFileWriter


def state_folder() -> Path:
    """Where journals lie: they only save time. `SNAPFERRY_STATE`, else the user's state folder."""
    named = os.environ.get("SNAPFERRY_STATE")
    base = os.environ.get("XDG_STATE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".local/state") / "snapferry"


def copy_disks(
    migration: Migration, point: Point, works: list[Work], lease: Lease, watch: Watch, *, commit: bool
) -> list[DiskResult]:
    """Copies all disks side by side; commits each disk's id behind the flush of its data.

    Raises:
        SnapferryError: the first disk's error; disks that were done are committed all the same.
    """
    limit = migration.plan.rate_limit_bytes
    limiter = RateLimiter(limit) if limit else None
    watch.step("copying", f"{sum(one.extents.total_bytes for one in works) / 1e6:.1f} MB of {len(works)} disks")

    def one_disk(work: Work) -> DiskResult:
        path = _image_path(migration, work)
        journal, lost = _begin(migration, point, work, path, lease)
        result = _copy_disk(copying, work, path, journal)
        if commit:
            _commit(migration, point, work, lease)
            journal.clear()
        return result.model_copy(update={"doubt": work.doubt or lost})

    with (
        DiskReaders(migration, point.snapshot, point.disks, watch.stop) as readers,
        ThreadPoolExecutor(max_workers=len(works), thread_name_prefix="disk") as pool,
    ):
        copying = _Copying(migration, not point.snapshot, lease, watch, limiter, readers)
        futures = [pool.submit(one_disk, work) for work in works]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for failure in filter(None, (future.exception() for future in done)):
                if not commit:
                    watch.stop.set()  # the VM is off and waits; in a round the other disks' copies still count
                raise failure
            return [future.result() for future in futures]
        except BaseException as error:
            if not isinstance(error, Exception):
                watch.stop.set()  # Ctrl-C or a cancellation: the pool would wait for hours else
            raise


def _image_path(migration: Migration, work: Work) -> Path:
    """Where the image lies, proven."""
    image = opennebula.read_image(migration.target, work.record.image_id)
    datastore = opennebula.find_datastore(migration.target, image.datastore_id)
    return opennebula.image_path(migration.target, image, datastore)


def _begin(migration: Migration, point: Point, work: Work, path: Path, lease: Lease) -> tuple[Journal, str]:
    """The journal of this disk's copy; before a base copy the image's record says what it holds from now on.

    Returns:
        The journal, and why a base copy that had to end counts for nothing after all; empty where it counts.

    The last changes have no journal: no snapshot's moref tells one power-off from another, so a journal of a cutover
    that was rolled back could vouch for blocks that the guest has written since.
    """
    if not point.snapshot:
        return NoJournal(), ""
    record = work.record
    if work.is_delta:
        return _journal(migration, work, path, point.snapshot, record.copy_id), ""
    began = {"whole": work.whole, "snapshot": point.snapshot, "change_id": work.disk.change_id, "taken": point.taken}
    journal = _journal(migration, work, path, point.snapshot, record.copy_id)
    goes_on = work.outdated is not None and _takes_up(journal, migration, work, path)
    if not goes_on:
        record = record.model_copy(update={"copy_id": secrets.token_hex(6)})
        journal.clear()
        journal = _journal(migration, work, path, point.snapshot, record.copy_id)
    lease.check()
    partial = record.model_copy(update={"state": BaseState.PARTIAL, **began})
    opennebula.update_image(migration.target, record.image_id, base_of_image(partial))
    migration.note_disk(partial)
    interrupted = record.state == BaseState.PARTIAL and not goes_on
    return journal, "of the base copy that had to end no journal is left here" if interrupted else ""


def _takes_up(journal: FileJournal, migration: Migration, work: Work, path: Path) -> bool:
    """Whether a base copy that had to end goes on: its journal's blocks count, less what changed since."""
    if journal.begun:
        return True
    before = _journal(migration, work, path, work.record.snapshot, work.record.copy_id, work.record.change_id)
    if work.outdated is None or not before.begun:
        return False
    journal.carry_over(before.done().subtract(work.outdated))
    return True


def _journal(
    migration: Migration, work: Work, path: Path, snapshot: str, copy_id: str, change_id: str | None = None
) -> FileJournal:
    """A disk's journal of one round: void where anything that it is bound to differs.

    Args:
        snapshot: moref of the snapshot that is copied.
        copy_id: the base copy that the image comes from.
        change_id: of that snapshot; this round's by default.
    """
    file = path.stat()
    identity = {
        "migration": migration.planned.migration_id,
        "disk": work.disk.backing_uuid,
        "snapshot": snapshot,
        "base": (work.record.change_id or work.record.snapshot) if work.is_delta else "",
        "change_id": change_id or work.disk.change_id or "",
        "image": str(work.record.image_id),
        "copy": copy_id,
        "file": f"{file.st_dev}:{file.st_ino}",
    }
    name = f"{migration.planned.migration_id}-{work.record.image_id}.journal"
    return FileJournal(state_folder() / "journals" / name, identity)


class _Copying(NamedTuple):
    """What the copies of one round's disks share."""

    migration: Migration
    off: bool
    """Whether the VM is off, and waits for its last changes."""
    lease: Lease
    watch: Watch
    limiter: RateLimiter | None
    readers: DiskReaders


def _copy_disk(copying: _Copying, work: Work, path: Path, journal: Journal) -> DiskResult:
    migration, watch, disk, started = copying.migration, copying.watch, work.disk, time.monotonic()
    meter = watch.disk(disk.key, disk.label, work.extents.subtract(journal.done()).total_bytes)
    comparing: ComparingWriter | None = None

    def by_route(route: Route) -> Copied:
        with closing(copying.readers.open(route, disk)) as reader:
            return pump(
                reader, comparing or image, work.extents, zeros=work.zeros, stop=watch.stop, limiter=copying.limiter,
                journal=journal, progress=meter,
            )  # fmt: skip

    image = RawFileWriter(path, disk.capacity_bytes, pristine=work.record.state == BaseState.EMPTY)
    with closing(image):
        copying.lease.check()  # from here on no other run can open the image
        try:
            if work.is_compared(migration.plan.on_doubt, off=copying.off):
                comparing = ComparingWriter(image, watch.stop)
            copied, route, detour = _by_any_route(_ways(migration, work), by_route, disk, watch)
        except FlushFailed:
            journal.clear()  # a storage that loses writes isn't trusted with what it took before
            raise
    differing = comparing.differing_bytes if comparing else None
    changed = differing if work.is_delta and differing is not None else work.extents.total_bytes
    return DiskResult(
        key=disk.key,
        label=disk.label,
        extents=len(work.extents),
        changed_bytes=changed,
        read_bytes=copied.read_bytes,
        zero_bytes=copied.zero_bytes,
        seconds=time.monotonic() - started,
        differing_bytes=differing,
        changes=work.by,
        route=route,
        detour=detour,
    )


def _ways(migration: Migration, work: Work) -> list[Way]:
    """How the disk's bytes can be reached; the route that served it last goes before those that failed then."""
    rounds = migration.planned.rounds
    routes = {one.key: one.route for one in rounds[-1].disks} if rounds else {}
    whole = work.extents.total_bytes * 2 > work.disk.capacity_bytes or not work.is_delta
    return ways_to(work.disk, migration.vm.power, migration.plan, whole=whole, last=routes.get(work.disk.key, ""))


def _by_any_route(
    ways: list[Way], copy: Callable[[Route], Copied], disk: SourceDisk, watch: Watch
) -> tuple[Copied, Route, str]:
    """Copies by the first way that leads on; what was flushed before another one failed stays.

    Returns:
        What was copied, by which route, and why not by those before it.

    Raises:
        RouteFailed: none leads on; what to do is said of the first one, which is the one to mend.
    """
    failed: list[tuple[Route, SnapferryError]] = []
    for way in ways:
        if failed:
            watch.step("route", f"{disk.label}: by {way} ({_because(failed[-1:])})")
        try:
            return copy(way.route), way.route, _because(failed)
        except (RouteFailed, VmdkError) as error:
            failed.append((way.route, error))
    first = failed[0][1]
    if len(failed) == 1:
        raise first
    raise RouteFailed(f"{disk.label} can't be read: {_because(failed)}.", first.next_step) from first


def _because(failed: list[tuple[Route, SnapferryError]]) -> str:
    return "; ".join(f"{route} failed: {error.cause.rstrip('.')}" for route, error in failed)


def _commit(migration: Migration, point: Point, work: Work, lease: Lease) -> None:
    """Makes the snapshot's id the disk's base; the pump has flushed."""
    lease.check()
    reason = migration.planned.untracked
    update = {
        "state": BaseState.WARM,
        "keeps_snapshot": means_when_off(work.disk, reason, migration.plan) == ChangesBy.DELTA_FILES,
        "whole": False,
        "change_id": work.disk.change_id,
        "snapshot": point.snapshot,
        "taken": point.taken,
        "round": migration.planned.round_number,
    }
    warm = work.record.model_copy(update=update)
    opennebula.update_image(migration.target, work.record.image_id, base_of_image(warm))
    migration.note_disk(warm)
