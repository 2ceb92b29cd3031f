"""One round, for all disks of a VM: snapshot, copy what changed, flush, commit the ids, let the snapshot go."""

import os
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from snapferry import opennebula, vsphere
from snapferry.convergence import COPY_BYTES_PER_SECOND, START_SECONDS, Costs, copy_rate, judge
from snapferry.errors import LeaseLost, Refused, SourceError, Stopped
from snapferry.lease import Lease
from snapferry.migration import Migration, foreign_snapshots
from snapferry.opennebula.models import ImageState
from snapferry.plan import OnDoubt
from snapferry.readers import NfcReader
from snapferry.record import (
    BaseState,
    DiskRecord,
    DiskResult,
    Phase,
    RoundResult,
    base_of_image,
    round_of_template,
    rounds_of_template,
)
from snapferry.seams import Journal
from snapferry.transfer import Extents, FileJournal, NoJournal, RateLimiter, pump
from snapferry.vsphere.models import PowerState, Snapshot, SourceDisk
from snapferry.watch import Watch
from snapferry.writers import RawFileWriter


def state_folder() -> Path:
    """Where journals lie: they only save time. `SNAPFERRY_STATE`, else the user's state folder."""
    named = os.environ.get("SNAPFERRY_STATE")
    base = os.environ.get("XDG_STATE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".local/state") / "snapferry"


COPYING = (Phase.SYNCING, Phase.WARM, Phase.ROLLED_BACK)
"""Phases in which the images take a round's changes."""


class Point(NamedTuple):
    """The point in time that is copied: a snapshot, or the VM itself where it is off.

    Attributes:
        snapshot: moref; empty for the powered-off VM.
        disks: each disk with its change id and the file to read.
    """

    snapshot: str
    disks: tuple[SourceDisk, ...]


class Work(NamedTuple):
    """What one disk needs in this round."""

    disk: SourceDisk
    record: DiskRecord
    extents: Extents
    zeros: Extents
    """Extents that the base leaves out, and that have to be made to read as zeros."""
    doubt: str


def run_round(migration: Migration, watch: Watch) -> RoundResult:
    """Copies what changed since the last round, or everything the first time, of all disks of the VM.

    Repeatable: a snapshot of a round that was killed is adopted and its journal used; an id becomes a base only when
    its data is on stable storage.

    Returns:
        What was done, with a verdict over the rounds of this run.

    Raises:
        Refused: the VM isn't as the record says, or somebody's snapshot is there.
        SnapferryError: the round failed; the old base holds, the snapshot is gone.
    """
    with migration.lease(watch.stop) as lease:
        migration.refresh()
        if migration.planned.phase not in COPYING:
            phase = migration.planned.phase.value
            raise Refused(f"{migration.vm.name}: no round is copied in the phase {phase!r}.", "See `snapferry status`.")
        started, began = datetime.now(UTC), time.monotonic()
        try:
            snapshot = open_snapshot(migration, lease, watch)
            point = Point(snapshot.moref, snapshot.disks)
            works = find_work(migration, point, watch)
            copying = time.monotonic()
            results = copy_disks(migration, point, works, lease, watch, commit=True)
            copied = time.monotonic()
        except Stopped:
            lease.check()  # says so where the lease is what stopped it
            raise
        finally:
            if not _is_lost(lease):  # else the snapshot is the next holder's
                remove_our_snapshots(migration, watch)
        result = RoundResult(
            number=migration.planned.round_number,
            kind="delta" if all(one.record.state == BaseState.WARM and not one.doubt for one in works) else "base",
            snapshot=snapshot.moref,
            started=started,
            seconds=time.monotonic() - began,
            copy_seconds=copied - copying,
            since_base_seconds=_since_last(migration, started),
            changed_bytes=sum(one.changed_bytes for one in results),
            copied_bytes=sum(one.read_bytes for one in results),
            disks=tuple(results),
        )
        return _keep(migration, result, lease)


def _is_lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return True
    return False


def remove_our_snapshots(migration: Migration, watch: Watch, keep: str = "") -> None:
    """Removes what hangs on the VM of this migration, or of a run that died while it switched tracking on.

    Args:
        keep: moref of the one that stays.
    """
    vm = migration.vm = vsphere.read_vm(migration.source, migration.vm.moref)
    ours = vsphere.our_snapshots(vm, migration.planned.migration_id)
    for one in vm.snapshots:
        if one.moref != keep and (one in ours or one.name == vsphere.STUN_NAME):
            watch.step("snapshot", f"letting {one.name} go")
            vsphere.remove_snapshot(migration.source, vm, one.moref)


def open_snapshot(migration: Migration, lease: Lease, watch: Watch) -> Snapshot:
    """The snapshot of this round: the one of a killed attempt where it is still there, else a new one."""
    _doubt_used_images(migration, lease, watch)
    record, vm = migration.planned, migration.vm
    record.check_disks(vm.disks)
    if foreign := foreign_snapshots(vm):
        raise Refused(
            f"{vm.name}: it has a snapshot that isn't ours ({', '.join(foreign)}).",
            "Wait until the backup that made it is done, or remove it; then run again.",
        )
    known = {one.moref: one for one in vsphere.our_snapshots(vm, record.migration_id)}
    remove_our_snapshots(migration, watch, keep=record.round_snapshot)
    if record.round_snapshot in known:
        watch.step("snapshot", f"taking up {known[record.round_snapshot].name}")
        return vsphere.read_snapshot(migration.source, record.round_snapshot)
    number = record.round_number + 1
    name = vsphere.snapshot_name(record.migration_id, number)
    watch.step("snapshot", f"taking {name}")
    opennebula.update_template(migration.target, record.template_id, round_of_template(number, ""))
    snapshot = vsphere.create_snapshot(
        migration.source, vm, name, f"Snapferry round {number}; removed when it is copied."
    )
    opennebula.update_template(migration.target, record.template_id, round_of_template(number, snapshot.moref))
    migration.record = record.model_copy(update={"round_number": number, "round_snapshot": snapshot.moref})
    return snapshot


def _doubt_used_images(migration: Migration, lease: Lease, watch: Watch) -> None:
    """An image that isn't DISABLED any more may have been written to: it diverged, and is disabled again.

    Raises:
        Refused: a machine uses it now.
    """
    for disk in migration.planned.disks:
        image = opennebula.read_image(migration.target, disk.image_id)
        if image.vms:
            machines = ", ".join(str(one) for one in image.vms)
            raise Refused(
                f"Image {image.id} ({image.name}) is in use by the machine {machines}.",
                "Terminate it, or abandon this migration: an image can't take a disk's changes while it is used.",
            )
        if image.state != ImageState.DISABLED:
            watch.step("image", f"{image.name} was enabled by somebody: it will be copied in full")
            lease.check()
            diverged = disk.model_copy(update={"state": BaseState.DIVERGED, "change_id": None})
            opennebula.update_image(migration.target, image.id, base_of_image(diverged))
            opennebula.disable_image(migration.target, image.id)
    migration.refresh()


def find_work(migration: Migration, point: Point, watch: Watch) -> list[Work]:
    """What each disk needs: its delta, or everything and why."""
    watch.step("changes", "asking which blocks changed")
    works = []
    for disk in point.disks:
        record = migration.planned.disk(disk)
        doubt = _doubt(record, disk)
        changes = vsphere.ChangeTracking(migration.source, migration.vm.moref, point.snapshot or None, disk)
        trusted = record.state == BaseState.WARM and not doubt
        try:
            extents = changes.since(record.change_id if trusted else None)
        except vsphere.ChangesUnknown as error:
            trusted, doubt, extents = False, error.cause, Extents.whole(disk.capacity_bytes)
        pristine = trusted or record.state == BaseState.EMPTY
        zeros = Extents.empty() if pristine else extents.complement(disk.capacity_bytes)
        works.append(Work(disk, record, extents, zeros, doubt))
    return works


def _doubt(record: DiskRecord, disk: SourceDisk) -> str:
    """Why the base isn't trusted; empty where it is, or where there is none yet."""
    if record.state == BaseState.DIVERGED:
        return "the image was written to by something else than the copy"
    if record.state != BaseState.WARM:
        return ""
    if record.change_id is None or disk.change_id is None:
        return "change tracking is off for this disk"
    return vsphere.trusted_base(record.change_id, disk.change_id) or ""


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
        path = _open_image(migration, work, lease)
        result = _copy_disk(migration, point, work, path, limiter, lease, watch)
        if commit:
            _commit(migration, point, work, path, lease)
        return result

    with ThreadPoolExecutor(max_workers=len(works), thread_name_prefix="disk") as pool:
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


def _open_image(migration: Migration, work: Work, lease: Lease) -> Path:
    """Proves where the image lies, and says in its record that bytes may be written from now on."""
    image = opennebula.read_image(migration.target, work.record.image_id)
    datastore = opennebula.find_datastore(migration.target, image.datastore_id)
    path = opennebula.image_path(migration.target, image, datastore)
    if work.record.state in (BaseState.EMPTY, BaseState.DIVERGED) or work.doubt:
        lease.check()
        partial = work.record.model_copy(update={"state": BaseState.PARTIAL, "change_id": None})
        opennebula.update_image(migration.target, image.id, base_of_image(partial))
    return path


def _copy_disk(
    migration: Migration, point: Point, work: Work, path: Path, limiter: RateLimiter | None, lease: Lease, watch: Watch
) -> DiskResult:
    disk, started = work.disk, time.monotonic()

    def ticket() -> vsphere.NfcTicket:
        return vsphere.nfc_ticket(migration.source, migration.vm.moref, disk.key)

    meter = watch.disk(disk.key, disk.label, work.extents.total_bytes)
    with closing(RawFileWriter(path, disk.capacity_bytes, pristine=work.record.state == BaseState.EMPTY)) as writer:
        lease.check()  # from here on no other run can open the image
        connections = migration.plan.connections
        with closing(NfcReader(ticket, disk.file_name, disk.capacity_bytes, connections=connections)) as reader:
            copied = pump(
                reader, writer, work.extents, zeros=work.zeros, stop=watch.stop, limiter=limiter,
                journal=_journal(migration, point, work, path), progress=meter,
            )  # fmt: skip
    return DiskResult(
        key=disk.key,
        label=disk.label,
        extents=len(work.extents),
        changed_bytes=work.extents.total_bytes,
        read_bytes=copied.read_bytes,
        zero_bytes=copied.zero_bytes,
        seconds=time.monotonic() - started,
        doubt=work.doubt,
    )


def _journal(migration: Migration, point: Point, work: Work, path: Path) -> Journal:
    """This disk's journal of this round: void where anything that it is bound to differs.

    The last changes have none: no snapshot's moref tells one power-off from another, so a journal of a cutover that
    was rolled back could vouch for blocks that the guest has written since.
    """
    if not point.snapshot:
        return NoJournal()
    file = path.stat()
    identity = {
        "migration": migration.planned.migration_id,
        "disk": work.disk.backing_uuid,
        "snapshot": point.snapshot,
        "base": work.record.change_id or "",
        "change_id": work.disk.change_id or "",
        "image": str(work.record.image_id),
        "file": f"{file.st_dev}:{file.st_ino}",
    }
    name = f"{migration.planned.migration_id}-{work.record.image_id}.journal"
    return FileJournal(state_folder() / "journals" / name, identity)


def _commit(migration: Migration, point: Point, work: Work, path: Path, lease: Lease) -> None:
    """Makes the snapshot's id the disk's base; the pump has flushed."""
    lease.check()
    update = {
        "state": BaseState.WARM,
        "change_id": work.disk.change_id,
        "snapshot": point.snapshot,
        "round": migration.planned.round_number,
    }
    opennebula.update_image(
        migration.target, work.record.image_id, base_of_image(work.record.model_copy(update=update))
    )
    _journal(migration, point, work, path).clear()


def _since_last(migration: Migration, started: datetime) -> float:
    """Seconds between the last round's snapshot and this one's; 0 for the first."""
    rounds = migration.planned.rounds
    return (started - rounds[-1].started).total_seconds() if rounds else 0.0


def costs_of(migration: Migration) -> Costs:
    """What a cutover of this VM takes beside its last changes; TM drivers but `shared` copy each disk at the start."""
    datastore = opennebula.find_datastore(migration.target, migration.plan.image_datastore)
    if datastore.tm_mad == "shared":
        return Costs()
    size = sum(disk.capacity_bytes for disk in migration.planned.disks)
    return Costs(start=START_SECONDS + size / COPY_BYTES_PER_SECOND)


def _keep(migration: Migration, result: RoundResult, lease: Lease) -> RoundResult:
    """Judges the round, and writes it into the record's history."""
    migration.rounds_of_this_run.append(result)
    judged = result.model_copy(
        update={"verdict": judge(migration.rounds_of_this_run, migration.plan, costs_of(migration))}
    )
    migration.rounds_of_this_run[-1] = judged
    lease.check()
    record = migration.planned
    rounds = (*record.rounds, judged)
    opennebula.update_template(
        migration.target,
        record.template_id,
        rounds_of_template(rounds) | round_of_template(record.round_number, ""),
    )
    migration.set_phase(Phase.WARM)
    migration.refresh()
    return judged


def copy_last_changes(migration: Migration, lease: Lease, watch: Watch) -> RoundResult:
    """Copies what changed between the last round and the power-off. Commits no id: no snapshot stands behind it.

    Raises:
        SourceError: the VM isn't off, or was powered on meanwhile.
        SnapferryError: the copy failed; the old base holds.
    """
    started, began = datetime.now(UTC), time.monotonic()
    since = vsphere.server_time(migration.source)
    _check_off(migration)
    migration.vm = vsphere.read_vm(migration.source, migration.vm.moref)
    migration.planned.check_disks(migration.vm.disks)
    point = Point("", migration.vm.disks)
    works = find_work(migration, point, watch)
    _answer_doubt(migration, works, watch)
    copying = time.monotonic()
    results = copy_disks(migration, point, works, lease, watch, commit=False)
    copied = time.monotonic()
    _check_off(migration)
    if events := vsphere.power_events_since(migration.source, migration.vm.moref, since):
        raise SourceError(
            f"{migration.vm.name}: it was started or moved during the last copy ({', '.join(events)}).",
            "Find out who did it (vCenter's events), then cut over again.",
        )
    return RoundResult(
        number=migration.planned.round_number + 1,
        kind="final",
        snapshot="",
        started=started,
        seconds=time.monotonic() - began,
        copy_seconds=copied - copying,
        since_base_seconds=_since_last(migration, started),
        changed_bytes=sum(one.changed_bytes for one in results),
        copied_bytes=sum(one.read_bytes for one in results),
        disks=tuple(results),
    )


def _answer_doubt(migration: Migration, works: list[Work], watch: Watch) -> None:
    """What the plan says of a disk whose last changes can't be trusted: says what its full copy takes, or ends it."""
    for work in works:
        if work.doubt and migration.plan.on_doubt == OnDoubt.COPY:
            size = work.extents.total_bytes
            seconds = size / copy_rate(migration.planned.rounds)
            told = f"copied in full, {size / 1e6:.0f} MB in about {seconds:.0f} s, because {work.doubt}"
            watch.step("doubt", f"{work.disk.label}: {told}")
        elif work.doubt:
            raise SourceError(
                f"{migration.vm.name}: change tracking can't be trusted for the last changes of {work.disk.label}"
                f" ({work.doubt}), and a full copy would keep the VM off for long.",
                "Run `snapferry presync`, which copies in full while the VM runs; then cut over again. A plan with"
                " `on_doubt: copy` copies in full during the downtime instead.",
            )


def _check_off(migration: Migration) -> None:
    state = vsphere.power_state(migration.source, migration.vm.moref)
    if state != PowerState.OFF:
        raise SourceError(f"{migration.vm.name}: it is {state.value} and has to be off now.", "Cut over again.")
