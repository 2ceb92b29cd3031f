"""One round, for all disks of a VM: snapshot, copy what changed, flush, commit the ids, let the snapshot go."""

import time
from datetime import UTC, datetime

from snapferry import opennebula, vsphere
from snapferry.changes import means_when_off
from snapferry.convergence import COPY_BYTES_PER_SECOND, START_SECONDS, Costs, copy_rate, judge
from snapferry.errors import Refused, SnapferryError, SourceError, Stopped
from snapferry.lease import Lease
from snapferry.migration import Migration
from snapferry.opennebula.models import ImageState
from snapferry.plan import ChangesBy, OnDoubt
from snapferry.record import (
    BaseState,
    DiskResult,
    Phase,
    RoundKind,
    RoundResult,
    base_of_image,
    round_of_template,
    rounds_of_template,
)
from snapferry.round_disks import copy_disks
from snapferry.round_snapshot import SnapshotLimit, end_round, open_snapshot, remove_our_snapshots, within_limits
from snapferry.round_work import Point, Work, find_work, kind_of
from snapferry.vsphere.models import PowerState
from snapferry.watch import Watch

__all__ = ["COPYING", "copy_last_changes", "costs_of", "remove_our_snapshots", "run_round"]

COPYING = (Phase.SYNCING, Phase.WARM, Phase.ROLLED_BACK)
"""Phases in which the images take a round's changes."""


def run_round(migration: Migration, watch: Watch) -> RoundResult:
    """Copies what changed since the last round, or everything the first time, of all disks of the VM.

    Repeatable: a snapshot of a round that was killed is adopted and its journal used; a base copy that had to end is
    finished from the next snapshot; an id becomes a base only when its data is on stable storage.

    Returns:
        What was done, with a verdict over the rounds of this run.

    Raises:
        Refused: the VM isn't as the record says, somebody's snapshot doesn't go, or a datastore is too full.
        SnapshotLimit: the snapshot became too old or too dear, and was let go.
        SnapferryError: the round failed; the old base holds, the snapshot is gone.
    """
    with migration.lease(watch.stop) as lease:
        migration.refresh()
        if migration.planned.phase not in COPYING:
            phase = migration.planned.phase.value
            raise Refused(f"{migration.vm.name}: no round is copied in the phase {phase!r}.", "See `snapferry status`.")
        started, began = datetime.now(UTC), time.monotonic()
        limit: SnapshotLimit | None = None
        try:
            _doubt_used_images(migration, lease, watch)
            snapshot = open_snapshot(migration, watch)
            migration.planned.check_disks(snapshot.disks)
            point = Point(snapshot.moref, snapshot.created, snapshot.disks)
            with within_limits(migration, snapshot, watch) as inner:
                works = find_work(migration, point, inner)
                copying = time.monotonic()
                results = copy_disks(migration, point, works, lease, inner, commit=True)
                copied = time.monotonic()
        except Stopped:
            lease.check()  # says so where the lease is what stopped it
            raise
        except SnapshotLimit as error:
            limit = error
            raise
        finally:
            if not _is_lost(lease):  # else the snapshot is the next holder's
                end_round(migration, watch, limit)
        kind, number = kind_of(works), migration.planned.round_number
        result = _result(migration, kind, number, point, (started, began), copied - copying, results)
        return _keep(migration, result, lease)


def _result(
    migration: Migration,
    kind: RoundKind,
    number: int,
    point: Point,
    began: tuple[datetime, float],
    copy_seconds: float,
    disks: list[DiskResult],
) -> RoundResult:
    """What a round did; `began` by the wall clock and by `time.monotonic`."""
    started, clock = began
    return RoundResult(
        number=number,
        kind=kind,
        snapshot=point.snapshot,
        started=started,
        seconds=time.monotonic() - clock,
        copy_seconds=copy_seconds,
        since_base_seconds=_since_last(migration, started),
        changed_bytes=sum(one.changed_bytes for one in disks),
        copied_bytes=sum(one.read_bytes for one in disks),
        disks=tuple(disks),
    )


def _is_lost(lease: Lease) -> bool:
    try:
        lease.regain()
    except SnapferryError:  # or the frontend has been away for longer than its term
        return True
    return False


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
            watch.step("image", f"{image.name} was enabled by somebody: it will be compared in full")
            lease.check()
            diverged = disk.model_copy(update={"state": BaseState.DIVERGED, "change_id": None})
            opennebula.update_image(migration.target, image.id, base_of_image(diverged))
            opennebula.disable_image(migration.target, image.id)
    migration.refresh()


def _since_last(migration: Migration, started: datetime) -> float:
    """Seconds between the last round's snapshot and this one's; 0 for the first."""
    rounds = migration.planned.rounds
    return (started - rounds[-1].started).total_seconds() if rounds else 0.0


def costs_of(migration: Migration) -> Costs:
    """What a cutover of this VM takes beside its last changes; TM drivers but `shared` copy each disk at the start."""
    datastore = opennebula.find_datastore(migration.target, migration.plan.image_datastore)
    reason, plan = migration.planned.untracked, migration.plan
    compared = [one for one in migration.vm.disks if means_when_off(one, reason, plan) == ChangesBy.COMPARE]
    costs = Costs(compared_bytes=sum(disk.capacity_bytes for disk in compared))
    if datastore.tm_mad == "shared":
        return costs
    size = sum(disk.capacity_bytes for disk in migration.planned.disks)
    return costs._replace(start=START_SECONDS + size / COPY_BYTES_PER_SECOND)


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
    point = Point("", since, migration.vm.disks)
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
    number = migration.planned.round_number + 1
    return _result(migration, "final", number, point, (started, began), copied - copying, results)


def _answer_doubt(migration: Migration, works: list[Work], watch: Watch) -> None:
    """What the plan says of a disk whose last changes can't be trusted: says what its full copy takes, or ends it."""
    for work in works:
        if work.doubt and migration.plan.on_doubt != OnDoubt.ROLL_BACK:
            size = work.extents.total_bytes
            seconds = size / copy_rate(migration.planned.rounds)
            done = "compared" if migration.plan.on_doubt == OnDoubt.COMPARE else "copied"
            told = f"{done} in full, {size / 1e6:.0f} MB in about {seconds:.0f} s, because {work.doubt}"
            watch.step("doubt", f"{work.disk.label}: {told}")
        elif work.doubt:
            raise SourceError(
                f"{migration.vm.name}: what is told of the last changes of {work.disk.label} can't be trusted"
                f" ({work.doubt}), and to compare it in full would keep the VM off for long.",
                "Run `snapferry presync`, which compares in full while the VM runs; then cut over again. A plan with"
                " `on_doubt: compare` does so during the downtime instead.",
            )


def _check_off(migration: Migration) -> None:
    state = vsphere.power_state(migration.source, migration.vm.moref)
    if state != PowerState.OFF:
        raise SourceError(f"{migration.vm.name}: it is {state.value} and has to be off now.", "Cut over again.")
