"""The cutover: stop the source, copy the last changes, start at the target; until the point of no return, back again.

Every intent is written to the record before its act, so that whoever comes after a killed process knows what may have
happened. The point of no return is the target's guest having run; it is decided by looking at its machine, and then
recorded.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, TypeVar

from snapferry import opennebula, vsphere
from snapferry.doubted_record import doubt_record
from snapferry.errors import Refused, SnapferryError, SourceError
from snapferry.lease import Lease
from snapferry.migration import Migration, foreign_snapshots
from snapferry.opennebula.models import ImageState, Template
from snapferry.plan import Deploy, Frozen
from snapferry.record import (
    BaseState,
    CutoverRecord,
    MigrationRecord,
    Phase,
    RoundResult,
    base_of_image,
    cutover_of_template,
    rounds_of_template,
)
from snapferry.roll_back import RollBack
from snapferry.rounds import copy_last_changes, remove_our_snapshots
from snapferry.vsphere.models import PowerState
from snapferry.watch import Watch

START_TIMEOUT_SECONDS = 600.0
SLOWEST_COPY_BYTES_PER_SECOND = 50e6
"""A TM driver that copies the disks at start may take so long."""
TAKE_SECONDS = 300.0
"""How long an approved cutover waits for a scheduled pre-sync to end its round."""
VM_NAME_LENGTH = 56
"""vCenter takes 80 characters; the mark and an ID have to fit behind the name."""
PRESYNC_FIRST = "Run `snapferry presync`, then cut over again."

T = TypeVar("T")


class Approval(Frozen):
    """A person's yes to one cutover."""

    vm: str
    """The VM's name, typed again."""
    by: str
    at: datetime
    fingerprint: str
    """`gate_fingerprint` when the question was asked."""


class CutoverResult(Frozen):
    """How a cutover ended."""

    outcome: Literal["migrated"]
    machine_id: int | None
    template_id: int
    downtime_seconds: float
    parts: dict[str, float]
    """Seconds by step."""
    final: RoundResult | None


def gate_fingerprint(migration: Migration) -> str:
    """What an approval is bound to: the migration, its VM and its disks. Rounds don't change it."""
    disks = sorted(f"{one.backing_uuid}:{one.key}:{one.place}:{one.capacity_bytes}" for one in migration.vm.disks)
    text = "|".join([migration.planned.migration_id, migration.vm.key, *disks])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_approval(migration: Migration, approval: Approval) -> None:
    """Compares an answer with what was asked.

    Raises:
        Refused: another name was typed, or the disks changed since the question.
    """
    if approval.vm != migration.vm.name:
        raise Refused(
            f"The answer names {approval.vm!r}, the VM is {migration.vm.name!r}.", "Type the VM's name exactly."
        )
    if approval.fingerprint != gate_fingerprint(migration):
        raise Refused(f"{migration.vm.name}: its disks changed since the question was asked.", "Answer the new gate.")


class Cutover:
    """One attempt, in steps; `recover` ends it where a step failed."""

    def __init__(self, migration: Migration, lease: Lease, watch: Watch, approved_by: str) -> None:
        self.migration = migration
        self.lease = lease
        self.watch = watch
        self.parts: dict[str, float] = {}
        self.final: RoundResult | None = None
        known = migration.planned.cutover
        self.record = (
            known
            if known and under_way(migration.planned)
            else CutoverRecord(
                intent="begin",
                started=datetime.now(UTC),
                approved_by=approved_by,
                was_on=migration.vm.power == PowerState.ON,
                nics={nic.key: nic.start_connected for nic in migration.vm.nics},
            )
        )

    def intend(self, intent: str, **changes: object) -> None:
        """Writes what comes next into the record, before it is done."""
        self.lease.check()
        record = self.record.model_copy(update={"intent": intent, **changes})
        opennebula.update_template(
            self.migration.target, self.migration.planned.template_id, cutover_of_template(record)
        )
        self.record = record
        self.watch.step(intent)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time of a step to the downtime's parts."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.monotonic() - began

    def run(self) -> CutoverResult:
        """The whole cutover, in order."""
        self.intend("shutdown")
        self.migration.set_phase(Phase.CUTTING_OVER)
        with self.timed("shutdown"):
            self.shut_down()
        self.intend("disconnect NICs")
        with self.timed("disconnect NICs"):
            off = {nic.key: False for nic in self.migration.vm.nics}
            vsphere.set_nics_start_connected(self.migration.source, self.migration.vm, off)
        self.intend("last changes")
        with self.timed("last changes"):
            self.final = copy_last_changes(self.migration, self.lease, self.watch)
        self.intend("hand over")
        with self.timed("hand over"):
            self.hand_over()
        if self.migration.plan.deploy == Deploy.VM:
            with self.timed("start"):
                self.start()
        return self.finish()

    def guard(self) -> None:
        """What has to hold before anything is stopped."""
        vm, record = self.migration.vm, self.migration.planned
        record.check_disks(vm.disks)
        cold = [disk.label for disk in record.disks if disk.state != BaseState.WARM]
        if cold:
            raise Refused(f"{vm.name}: not warm yet: {', '.join(cold)}.", PRESYNC_FIRST)
        for disk in record.disks:
            image = opennebula.read_image(self.migration.target, disk.image_id)
            if image.state != ImageState.DISABLED:
                raise Refused(
                    f"Image {image.id} ({image.name}) was enabled: it may have been written to.", PRESYNC_FIRST
                )
        linked = _linked_images(opennebula.read_template(self.migration.target, record.template_id))
        if missing := {disk.image_id for disk in record.disks} - linked:
            raise Refused(
                f"Template {record.template_id} ({record.target_name}) doesn't link the images {sorted(missing)}.",
                "Somebody edited it: put its DISK lines back, or abandon the migration and start again.",
            )
        if foreign := foreign_snapshots(vm):
            raise Refused(f"{vm.name}: it has a snapshot that isn't ours ({', '.join(foreign)}).", "Wait for it to go.")
        if vm.consolidation_needed:
            raise Refused(f"{vm.name}: its disks need consolidation.", "Consolidate them in vCenter, then try again.")
        if vm.power == PowerState.SUSPENDED:
            raise Refused(f"{vm.name}: it is suspended.", "Resume it or power it off, then try again.")
        remove_our_snapshots(self.migration, self.watch, record.kept_snapshots)

    def shut_down(self) -> None:
        """Stops the guest, as the plan says."""
        if vsphere.power_state(self.migration.source, self.migration.vm.moref) == PowerState.OFF:
            return
        policy = self.migration.plan.shutdown
        vsphere.shutdown_guest(
            self.migration.source, self.migration.vm, policy.timeout_seconds, policy.on_timeout, self.watch.stop
        )

    def hand_over(self) -> None:
        """Gives the images free. From here on something else than the pump may write, so no id counts."""
        for disk in self.migration.planned.disks:
            self.lease.check()
            diverged = disk.model_copy(update={"state": BaseState.DIVERGED, "change_id": None})
            opennebula.update_image(self.migration.target, disk.image_id, base_of_image(diverged))
            self.migration.note_disk(diverged)
            opennebula.enable_image(self.migration.target, disk.image_id)

    def start(self) -> None:
        """Makes the machine at the target and starts it; the source has to be off right before."""
        self.intend("start")
        target, record, vm = self.migration.target, self.migration.planned, self.migration.vm
        extra = {"SNAPFERRY_ID": record.migration_id}
        number = opennebula.instantiate(target, record.template_id, record.target_name, hold=True, extra=extra)
        self.intend("release", released=True, machine_id=number)
        if vsphere.power_state(self.migration.source, vm.moref) != PowerState.OFF:
            raise SourceError(f"{vm.name}: somebody powered it on during the cutover.", "Find out who, then try again.")
        opennebula.release(target, number)
        size = sum(disk.capacity_bytes for disk in record.disks)
        seconds = START_TIMEOUT_SECONDS + size / SLOWEST_COPY_BYTES_PER_SECOND
        opennebula.wait_machine(target, number, "RUNNING", seconds, self.watch.stop)

    def finish(self) -> CutoverResult:
        """Past the point of no return: forward only, and repeatable."""
        migration, record = self.migration, self.migration.planned
        downtime, parts = self.record.downtime_seconds, self.record.parts
        if downtime is None:
            if not self.parts:  # the run that knew them died
                since = (datetime.now(UTC) - self.record.started).total_seconds()
                self.parts = {"until a later run found it running": since}
            downtime, parts = (sum(self.parts.values()) if self.record.was_on else 0.0), self.parts
        self.intend("mark the source", past_no_return=True, downtime_seconds=downtime, parts=parts)
        if vsphere.power_state(migration.source, migration.vm.moref) == PowerState.ON:
            raise SourceError(
                f"{migration.vm.name}: somebody powered the source on while the VM is in service at the target.",
                "Power the source off in vCenter at once, then run `snapferry cutover` again: it ends the migration.",
            )
        remove_our_snapshots(migration, self.watch)
        self.mark()
        self.intend("done")
        migration.set_phase(Phase.MIGRATED)
        if self.final:
            rounds = rounds_of_template((*record.rounds, self.final))
            opennebula.update_template(migration.target, record.template_id, rounds)
        migration.refresh()
        return result_of(migration, self.final)

    def mark(self) -> None:
        """Renames the source and notes where it went."""
        record, source = self.migration.planned, self.migration.source
        where = f"template {record.template_id}"
        if self.record.machine_id is not None:
            where = f"VM {self.record.machine_id}"
        when = f"{self.record.started:%Y-%m-%d %H:%M} UTC"
        note = f"Migrated to OpenNebula ({where}, {record.target_name}) by Snapferry on {when}."
        name = record.vm_name[:VM_NAME_LENGTH]
        try:
            vsphere.mark_migrated(source, self.migration.vm, f"{name}-migrated", note)
        except Refused:  # the name is taken: an earlier move's source has it
            vsphere.mark_migrated(source, self.migration.vm, f"{name}-migrated-{record.migration_id}", note)

    def recover(self, error: BaseException, *, died: bool = False) -> CutoverResult:
        """What follows a failed step: forward where the target's guest has run, else the source back in service.

        Args:
            error: what failed.
            died: whether another process failed: then nothing but a look tells what it started at the target.

        Raises:
            RolledBack: the source is in service.
            SourceLeftOff: that couldn't be reached, however often it was tried.
        """
        if self.record.past_no_return:
            raise error
        cause = error.cause if isinstance(error, SnapferryError) else f"{type(error).__name__}: {error}."
        self.watch.step("rolling back", cause)
        back = RollBack(self.migration, self.lease, self.watch, self.record)
        if (self.record.released or died) and back.target_has_run():
            return self.finish()
        raise back.run(cause, error.next_step if isinstance(error, SnapferryError) else "") from error


def cut_over(
    migration: Migration, watch: Watch, approved_by: str = "", take_seconds: float = TAKE_SECONDS
) -> CutoverResult:
    """Moves the VM over. The caller has asked whoever has to be asked.

    Repeatable. An attempt that died before the point of no return is rolled back first, and the error says so; behind
    it there is only forward. A finished migration's result is given once more.

    Args:
        migration: whose disks are warm.
        watch: is told each step.
        approved_by: who said yes, for the record.
        take_seconds: how long another run, such as a scheduled pre-sync, may take to let go.

    Raises:
        Refused: a guard doesn't hold; nothing was done.
        RolledBack: a step failed; the source is back in service.
        SourceLeftOff: the roll-back itself couldn't be finished; the message says what to do at once.
        LeaseLost: another run works on this VM.
    """
    with migration.lease(watch.stop, take_seconds=take_seconds) as lease:
        migration.refresh()
        if ended := end_attempt(migration, lease, watch):
            return ended
        cutover = Cutover(migration, lease, watch, approved_by)
        cutover.guard()
        try:
            return cutover.run()
        except BaseException as error:  # noqa: BLE001 -- whatever ends it, a cancellation too: the source has to go on
            watch.stop.clear()
            failed = error
            return _uninterrupted(lambda: cutover.recover(failed))


def end_cutover(migration: Migration, watch: Watch, take_seconds: float = TAKE_SECONDS) -> CutoverResult:
    """Ends a cutover that was begun before, and begins none: no approval is needed for it.

    Raises:
        Refused: none is under way any more: another run ended it meanwhile.
        SnapferryError: as `cut_over`.
    """
    with migration.lease(watch.stop, take_seconds=take_seconds) as lease:
        migration.refresh()
        if ended := end_attempt(migration, lease, watch):
            return ended
    raise Refused(
        f"{migration.vm.name}: another run has ended the cutover that was under way.",
        "See `snapferry status`; to cut over, start the run again and answer its gate.",
    )


def end_attempt(migration: Migration, lease: Lease, watch: Watch) -> CutoverResult | None:
    """Takes a cutover that another process began to its end: back, or forward where the target's guest has run.

    Returns:
        The result where the VM has moved; None where no cutover was under way.

    Raises:
        RolledBack: the source is back in service.
        SnapferryError: as `cut_over`.
    """
    doubt_record(migration)
    if migration.planned.phase == Phase.MIGRATED:
        watch.step("done", "it was migrated before")
        return result_of(migration, None)
    cutover = Cutover(migration, lease, watch, "")
    if cutover.record.past_no_return:
        return cutover.finish()
    if not under_way(migration.planned):
        return None
    died = SnapferryError(f"an earlier attempt ended at {cutover.record.intent!r}.")
    return _uninterrupted(lambda: cutover.recover(died, died=True))


def under_way(record: MigrationRecord) -> bool:
    """Whether a cutover was begun and neither ended nor rolled back.

    Its intents count as well as the phase, which may have been edited: an attempt whose first intent is all that was
    written before the phase has done nothing yet.
    """
    if record.phase in (Phase.CUTTING_OVER, Phase.MIGRATED):
        return record.phase == Phase.CUTTING_OVER
    return record.cutover is not None and record.cutover.intent != "shutdown"


def _uninterrupted(work: Callable[[], T]) -> T:
    """Does the work in a thread of its own, to its end: signals that arrive meanwhile don't stop a roll-back."""
    with ThreadPoolExecutor(1, thread_name_prefix="roll-back") as pool:
        future = pool.submit(work)
        while not future.done():
            try:
                wait([future])
            except BaseException:  # noqa: BLE001, S112 -- a second Ctrl-C, or a cancellation
                continue
        return future.result()


def result_of(migration: Migration, final: RoundResult | None) -> CutoverResult:
    """What the record says of a finished cutover."""
    cutover = migration.planned.cutover
    return CutoverResult(
        outcome="migrated",
        machine_id=cutover.machine_id if cutover else None,
        template_id=migration.planned.template_id,
        downtime_seconds=(cutover.downtime_seconds if cutover else None) or 0.0,
        parts=cutover.parts if cutover else {},
        final=final,
    )


def _linked_images(template: Template) -> set[int]:
    """IDs of the images that a template's disks name."""
    disks = template.attributes.get("DISK", [])
    vectors = disks if isinstance(disks, list) else [disks]
    return {int(one["IMAGE_ID"]) for one in vectors if isinstance(one, dict) and one.get("IMAGE_ID", "").isdigit()}
