"""The cutover: stop the source, copy the last changes, start at the target; until the point of no return, back again.

Every intent is written to the record before its act, so that whoever comes after a killed process knows what may have
happened. The point of no return is the target's machine running with its network; it is decided by looking at that
machine, not by what this process believes.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from typing import Literal

from snapferry import opennebula, vsphere
from snapferry.errors import LeaseLost, Refused, RolledBack, SnapferryError
from snapferry.lease import Lease
from snapferry.migration import Migration, foreign_snapshots
from snapferry.opennebula.models import ImageState, Machine
from snapferry.plan import Deploy, Frozen
from snapferry.record import (
    BaseState,
    CutoverRecord,
    Phase,
    RoundResult,
    base_of_image,
    cutover_of_template,
    rounds_of_template,
)
from snapferry.rounds import copy_last_changes
from snapferry.vsphere.models import PowerState
from snapferry.watch import Watch

START_TIMEOUT_SECONDS = 600.0


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
    """One attempt; every method is a step that can be repeated."""

    def __init__(self, migration: Migration, lease: Lease, watch: Watch, approved_by: str) -> None:
        self.migration = migration
        self.lease = lease
        self.watch = watch
        self.parts: dict[str, float] = {}
        self.final: RoundResult | None = None
        known = migration.planned.cutover
        self.record = known or CutoverRecord(
            intent="begin",
            started=datetime.now(UTC),
            approved_by=approved_by,
            was_on=migration.vm.power == PowerState.ON,
            nics={nic.key: nic.start_connected for nic in migration.vm.nics},
        )

    def intend(self, intent: str, **changes: object) -> None:
        """Writes what comes next into the record, before it is done."""
        self.lease.check()
        self.record = self.record.model_copy(update={"intent": intent, **changes})
        opennebula.update_template(
            self.migration.target, self.migration.planned.template_id, cutover_of_template(self.record)
        )
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
        self.guard()
        self.migration.set_phase(Phase.CUTTING_OVER)
        self.intend("shutdown")
        with self.timed("shutdown"):
            self.shut_down()
        self.intend("disconnect NICs")
        with self.timed("disconnect NICs"):
            off = {nic.key: False for nic in self.migration.vm.nics}
            vsphere.set_nics_start_connected(self.migration.source, self.migration.vm, off)
        self.intend("last changes")
        with self.timed("last changes"):
            self.final = copy_last_changes(self.migration, self.lease, self.watch)
        self.intend("diverge")
        with self.timed("hand over"):
            self.hand_over()
        machine = None
        if self.migration.plan.deploy == Deploy.VM:
            with self.timed("start"):
                machine = self.start()
        return self.finish(machine)

    @property
    def handed_over(self) -> bool:
        """Whether something else than the pump may have written to an image."""
        return any(disk.state == BaseState.DIVERGED for disk in self.migration.planned.disks)

    def guard(self) -> None:
        """What has to hold before anything is stopped."""
        vm, record = self.migration.vm, self.migration.planned
        record.check_disks(vm.disks)
        cold = [disk.label for disk in record.disks if disk.state != BaseState.WARM]
        if cold:
            raise Refused(f"{vm.name}: not warm yet: {', '.join(cold)}.", "Run `snapferry presync` first.")
        if foreign := foreign_snapshots(vm):
            raise Refused(f"{vm.name}: it has a snapshot that isn't ours ({', '.join(foreign)}).", "Wait for it to go.")
        if vm.consolidation_needed:
            raise Refused(f"{vm.name}: its disks need consolidation.", "Consolidate them in vCenter, then try again.")
        if vm.power == PowerState.SUSPENDED:
            raise Refused(f"{vm.name}: it is suspended.", "Resume it or power it off, then try again.")

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
            opennebula.enable_image(self.migration.target, disk.image_id)

    def start(self) -> Machine:
        """Makes and starts the machine at the target, once, whatever was killed before."""
        self.intend("start")
        target, record = self.migration.target, self.migration.planned
        machine = find_machine(self.migration)
        if machine is None:
            extra = {"SNAPFERRY_ID": record.migration_id}
            number = opennebula.instantiate(target, record.template_id, record.target_name, hold=True, extra=extra)
            machine = opennebula.read_machine(target, number)
        self.intend("release", machine_id=machine.id)
        if _state_of(machine) == "HOLD":
            opennebula.release(target, machine.id)
        return opennebula.wait_machine(target, machine.id, "RUNNING", START_TIMEOUT_SECONDS, self.watch.stop)

    def finish(self, machine: Machine | None) -> CutoverResult:
        """Past the point of no return: forward only."""
        downtime = sum(self.parts.values()) if self.record.was_on else 0.0
        if self.record.downtime_seconds is not None:
            downtime, self.parts = self.record.downtime_seconds, self.record.parts
        self.intend("mark the source", downtime_seconds=downtime, parts=self.parts)
        plan, vm, record = self.migration.plan, self.migration.vm, self.migration.planned
        where = f"VM {machine.id}" if machine else f"template {record.template_id}"
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        note = f"Migrated to OpenNebula ({where}, {record.target_name}) by Snapferry on {when}."
        vsphere.mark_migrated(self.migration.source, vm, f"{vm.name}-migrated", note)
        self.intend("done")
        self.migration.set_phase(Phase.MIGRATED)
        if self.final:
            _keep_final(self.migration, self.final)
        self.migration.refresh()
        return CutoverResult(
            outcome="migrated",
            machine_id=machine.id if machine and plan.deploy == Deploy.VM else None,
            template_id=record.template_id,
            downtime_seconds=downtime,
            parts=self.parts,
            final=self.final,
        )

    def roll_back(self, error: BaseException) -> RolledBack:
        """Stops the target, sees it stopped, and puts the source back in service."""
        cause = error.cause if isinstance(error, SnapferryError) else f"{type(error).__name__}: {error}"
        next_step = error.next_step if isinstance(error, SnapferryError) else ""
        self.watch.step("rolling back", cause)
        source, target, vm = self.migration.source, self.migration.target, self.migration.vm
        self.intend("roll back: stop the target")
        machine = find_machine(self.migration)
        if machine is not None:
            opennebula.terminate_hard(target, machine.id)
            opennebula.wait_machine(target, machine.id, "DONE", START_TIMEOUT_SECONDS, Event())
        for disk in self.migration.planned.disks:
            if opennebula.read_image(target, disk.image_id).state != ImageState.DISABLED:
                opennebula.disable_image(target, disk.image_id)
        self.intend("roll back: source on")
        vsphere.set_nics_start_connected(source, vm, self.record.nics)
        if self.record.was_on:
            vsphere.power_on(source, vm.moref)
        opennebula.update_template(target, self.migration.planned.template_id, {"SNAPFERRY_CUTOVER": {}})
        self.migration.set_phase(Phase.ROLLED_BACK)
        state = "is running again" if self.record.was_on else "is as it was"
        return RolledBack(
            f"{vm.name}: the cutover failed and was rolled back; the source {state}. Cause: {cause}",
            next_step or "Mend the cause, then cut over again.",
        )


def cut_over(migration: Migration, watch: Watch, approved_by: str = "") -> CutoverResult:
    """Moves the VM over. The caller has asked whoever has to be asked.

    Repeatable: after a killed process it goes on where the record and both ends say, and only forward once the machine
    at the target runs.

    Raises:
        Refused: a guard doesn't hold; nothing was done.
        RolledBack: a step failed; the source is back in service.
        SnapferryError: the roll-back itself couldn't be finished; the message says what is where.
    """
    migration.refresh()
    with migration.lease(watch.stop) as lease:
        cutover = Cutover(migration, lease, watch, approved_by)
        if running := past_no_return(migration):
            watch.step("going forward", f"machine {running.id} already runs at the target")
            return cutover.finish(running)
        if migration.planned.phase == Phase.MIGRATED:
            raise Refused(f"{migration.vm.name}: it was migrated already.", "Nothing is left to do.")
        if migration.planned.phase == Phase.CUTTING_OVER and cutover.handed_over:
            raise cutover.roll_back(SnapferryError("an earlier run ended after it had given the images free."))
        cutover.guard()
        try:
            return cutover.run()
        except BaseException as error:  # whatever ends it, Ctrl-C and a cancellation too: the source has to go on
            watch.stop.clear()  # the roll-back has to run to its end
            if isinstance(error, LeaseLost) or past_no_return(migration):
                raise
            raise cutover.roll_back(error) from error


def find_machine(migration: Migration) -> Machine | None:
    """The machine that this migration made at the target, if it still exists."""
    wanted = migration.planned.migration_id
    for machine in opennebula.list_machines(migration.target):
        if machine.attributes.get("SNAPFERRY_ID") == wanted and _state_of(machine) != "DONE":
            return machine
    return None


def past_no_return(migration: Migration) -> Machine | None:
    """The machine at the target, where it runs: then there is no way back."""
    machine = find_machine(migration)
    return machine if machine is not None and _state_of(machine) == "RUNNING" else None


def _state_of(machine: Machine) -> str:
    if machine.state == 3:
        return {3: "RUNNING"}.get(machine.lcm_state, "ACTIVE")
    return {2: "HOLD", 6: "DONE"}.get(machine.state, "OTHER")


def _keep_final(migration: Migration, final: RoundResult) -> None:
    """Adds the last changes to the record's history."""
    record = migration.planned
    opennebula.update_template(migration.target, record.template_id, rounds_of_template((*record.rounds, final)))
