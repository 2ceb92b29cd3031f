"""A round's snapshot: adopted or taken, watched while it is open, and let go."""

import logging
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import NamedTuple

from snapferry import opennebula, vsphere
from snapferry.errors import Refused, SnapferryError, SourceError, Stopped
from snapferry.migration import Migration, foreign_snapshots, leftover_snapshots
from snapferry.record import BaseState, MigrationRecord, round_of_template
from snapferry.vsphere.models import Snapshot
from snapferry.watch import Watch

LOOK_SECONDS = 5.0
"""Between two looks at what the snapshot costs; each is three small questions to vCenter."""
FOLLOW_SECONDS = 0.2
"""How soon the copies hear of a wish to stop."""

log = logging.getLogger(__name__)


class SnapshotLimit(SourceError):
    """A round's snapshot reached a limit of the plan and was let go; the next round goes on with a new one.

    Attributes:
        room: whether there is room for a snapshot that a base stands on: it was only the round's that became too old.
    """

    def __init__(self, cause: str, next_step: str = "", *, room: bool = True) -> None:
        super().__init__(cause, next_step)
        self.room = room


class _Reached(NamedTuple):
    """A limit that was reached, for an operator, and whether there is room all the same."""

    text: str
    room: bool = False


def remove_our_snapshots(migration: Migration, watch: Watch, keep: Collection[str] = ()) -> None:
    """Removes what hangs on the VM of this migration, or of a run that died while it switched tracking on.

    Args:
        keep: morefs of those that stay.
    """
    vm = migration.vm = vsphere.read_vm(migration.source, migration.vm.moref)
    for one in leftover_snapshots(vm, migration.planned):
        if one.moref not in keep:
            watch.step("snapshot", f"letting {one.name} go")
            vsphere.remove_snapshot(migration.source, vm, one.moref)


def open_snapshot(migration: Migration, watch: Watch) -> Snapshot:
    """The snapshot of this round: the one of a killed attempt where it is still there, else a new one.

    Raises:
        Refused: the disks changed, somebody's snapshot doesn't go, or a datastore has too little space.
        SourceError: it couldn't be taken.
    """
    record, vm = migration.planned, migration.vm
    record.check_disks(vm.disks)
    if foreign := foreign_snapshots(vm):
        watch.step("snapshot", f"waiting for {', '.join(foreign)} to go, which isn't ours")
        vsphere.wait_for_others(migration.source, vm, migration.plan.snapshot.wait_for_others_seconds, watch.stop)
    remove_our_snapshots(migration, watch, {record.round_snapshot, *record.kept_snapshots})
    known = {one.moref: one for one in vsphere.our_snapshots(migration.vm, record.migration_id)}
    if record.round_snapshot in known and not _is_base_of_all(record):
        watch.step("snapshot", f"taking up {known[record.round_snapshot].name}")
        return vsphere.read_snapshot(migration.source, record.round_snapshot)
    if full := _full_datastore(migration):
        remove_our_snapshots(migration, watch)  # a base's, too: its delta grows
        raise Refused(f"{vm.name}: no snapshot is taken: {full}.", "Make room there, or lower `snapshot.least_free`.")
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


def _is_base_of_all(record: MigrationRecord) -> bool:
    """Whether the last round's snapshot serves as a base alone: no copy is left that would go on from it."""
    warm = all(one.state == BaseState.WARM for one in record.disks)
    return warm and record.round_snapshot in record.kept_snapshots


@contextmanager
def within_limits(migration: Migration, snapshot: Snapshot, watch: Watch) -> Iterator[Watch]:
    """Watches what the snapshot costs while the block runs; gives a watch that ends the copies at a limit.

    Raises:
        SnapshotLimit: the plan's limit was reached before the copies were done.
    """
    inner, over = watch.until(Event()), Event()

    def look() -> _Reached | None:
        reached, due = None, time.monotonic()
        try:
            while not over.wait(FOLLOW_SECONDS) and not reached and not watch.stop.is_set():
                if time.monotonic() >= due:
                    reached = _limit(migration, snapshot)
                    due = time.monotonic() + LOOK_SECONDS
        finally:
            inner.stop.set()
        return reached

    stopped: Stopped | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="snapshot") as pool:
        looking = pool.submit(look)
        try:
            yield inner
        except Stopped as error:
            stopped = error
        finally:
            over.set()
    reached = looking.result()
    if stopped and reached:
        raise SnapshotLimit(
            f"{migration.vm.name}: the round ended and let its snapshot go: {reached.text}.",
            "Run it again: it goes on with a new snapshot. If this repeats, raise `snapshot` in the plan, make room on"
            " the datastore, or copy when the VM writes less.",
            room=reached.room,
        ) from stopped
    if stopped:
        raise stopped


def end_round(migration: Migration, watch: Watch, limit: SnapshotLimit | None) -> None:
    """Lets the round's snapshot go; what bases stand on stays, where there is room for it.

    Args:
        migration: whose round has ended.
        watch: is told of it.
        limit: what ended the round, if one of the plan's limits did.
    """
    keep = migration.planned.kept_snapshots
    if limit:
        keep = keep - {migration.planned.round_snapshot} if limit.room else frozenset()
    if keep and _full_datastore(migration):
        keep = frozenset()
    remove_our_snapshots(migration, watch, keep)


def _limit(migration: Migration, snapshot: Snapshot) -> _Reached | None:
    """Which limit is reached now, if any; a vCenter that doesn't answer is asked again at the next look."""
    policy, source = migration.plan.snapshot, migration.source
    try:
        age = (vsphere.server_time(source) - snapshot.created).total_seconds()
        if age > policy.most_age_seconds:
            most = f"the plan allows {policy.most_age_seconds:.0f} s (snapshot.most_age)"
            return _Reached(f"it is {age:.0f} s old, {most}", room=True)
        size = vsphere.delta_bytes(source, migration.vm) if policy.most_size_bytes else 0
        if policy.most_size_bytes and size > policy.most_size_bytes:
            most = f"the plan allows {policy.most_size_bytes / 1e6:.1f} MB (snapshot.most_size)"
            return _Reached(f"its delta files have {size / 1e6:.1f} MB, {most}")
        full = _full_datastore(migration)
        return _Reached(full) if full else None
    except SnapferryError as error:
        log.warning("%s: what its snapshot costs can't be seen now: %s", migration.vm.name, error.cause)
        return None


def _full_datastore(migration: Migration) -> str:
    """The first of the disks' datastores with less free space than the plan wants; empty where none is."""
    least = migration.plan.snapshot.least_free
    for name, space in vsphere.datastore_space(migration.source, migration.vm).items():
        if space.free_share < least:
            return (
                f"the datastore {name} has {space.free_bytes / 1e9:.1f} GB free ({space.free_share:.0%}), the plan"
                f" wants {least:.0%} (snapshot.least_free)"
            )
    return ""
