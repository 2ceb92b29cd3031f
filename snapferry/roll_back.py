"""The way back: the target stopped first where it may have been started, the source in service, the record brought up.

Every step looks first and can be repeated, also by another process that knows nothing but the record.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event
from typing import TypeVar

from snapferry import opennebula, vsphere
from snapferry.command_line import command_line
from snapferry.errors import LeaseLost, RolledBack, SnapferryError, SourceLeftOff
from snapferry.lease import Lease
from snapferry.migration import Migration
from snapferry.opennebula.models import Machine
from snapferry.record import CutoverRecord, Phase, rolled_back_of_template
from snapferry.round_snapshot import remove_our_snapshots
from snapferry.vsphere.models import PowerState
from snapferry.watch import Watch

ROLL_BACK_SECONDS = 600.0
"""How long each step of a roll-back is tried again: a frontend or a vCenter may restart meanwhile."""
SETTLE_SECONDS = 120.0
"""How long a guest that was asked to shut down is watched before it counts as staying on."""

T = TypeVar("T")


class RollBack:
    """Ends an attempt that failed before the point of no return.

    Args:
        migration: whose cutover failed.
        lease: of this run.
        watch: is told each step.
        record: of the attempt.
    """

    def __init__(self, migration: Migration, lease: Lease, watch: Watch, record: CutoverRecord) -> None:
        self.migration = migration
        self.lease = lease
        self.watch = watch
        self.record = record
        self.down_seconds = 0.0

    def target_has_run(self) -> bool:
        """Ends the machine at the target, and sees it ended; whether its guest has run, and so it is left alone.

        Raises:
            LeaseLost: another run works on this VM.
            SourceLeftOff: it couldn't be learned, however often it was tried.
        """
        try:
            return self._insist(self._stop_target)
        except LeaseLost:
            raise
        except SnapferryError as failure:
            raise self._left_off(failure) from failure

    def run(self, cause: str, next_step: str) -> RolledBack:
        """Puts the source back in service, then removes what never ran at the target and brings the record up.

        Returns:
            What the caller raises: the source is in service.

        Raises:
            LeaseLost: another run works on this VM.
            SourceLeftOff: the source couldn't be put back, however often it was tried.
        """
        name = self.migration.vm.name
        try:
            self._insist(self._source_on)
        except LeaseLost:
            raise
        except SnapferryError as failure:
            raise self._left_off(failure) from failure
        state = "is running again" if self.record.was_on else "is as it was"
        text = f"{name}: the cutover failed and was rolled back; the source {state}."
        if self.down_seconds:
            text += f" It was down for {self.down_seconds:.0f} s."
        try:
            self._insist(self._stop_target)  # one on hold, which never ran
            self._insist(lambda: self._forget(cause))
        except LeaseLost:
            raise
        except SnapferryError as failure:
            tidy = "Run `snapferry cutover` once OpenNebula answers: it tidies up there."
            return RolledBack(f"{text} Cause: {cause} Left at the target: {failure.cause}", tidy)
        try:
            self._insist(self._let_go)
        except LeaseLost:
            raise
        except SnapferryError as failure:
            tidy = f"Run `{command_line('reconcile', name)}` once vCenter answers: it removes the snapshot."
            return RolledBack(f"{text} Cause: {cause} Left at the source: {failure.cause}", tidy)
        return RolledBack(f"{text} Cause: {cause}", next_step or "Mend the cause, then cut over again.")

    def _left_off(self, failure: SnapferryError) -> SourceLeftOff:
        name = self.migration.vm.name
        return SourceLeftOff(
            f"{name}: the cutover failed, and so did the roll-back ({failure.cause}).",
            f"See in OpenNebula that no machine of {name} runs, then run `{command_line('cutover', name)}`"
            " (it ends the roll-back) or power the source on in vCenter and connect its NICs.",
        )

    def _insist(self, step: Callable[[], T]) -> T:
        """Repeats a step until it works, for `ROLL_BACK_SECONDS`."""
        deadline, pause = time.monotonic() + ROLL_BACK_SECONDS, 0.5
        while True:
            try:
                self.lease.regain()
                return step()
            except LeaseLost:
                raise
            except SnapferryError as error:
                if time.monotonic() + pause > deadline:
                    raise
                self.watch.step("rolling back", f"once more in {pause:.0f} s: {error.cause}")
            Event().wait(pause)
            pause = min(pause * 2, 15)

    def _stop_target(self) -> bool:
        machine = find_machine(self.migration)
        if machine is None:
            return False
        if opennebula.has_run(machine):
            return True
        opennebula.terminate_hard(self.migration.target, machine.id)
        return False

    def _source_on(self) -> None:
        """Puts the source back in service, also where its guest is still shutting down."""
        source, vm = self.migration.source, vsphere.read_vm(self.migration.source, self.migration.vm.moref)
        there = {nic.key for nic in vm.nics}
        nics = {key: on for key, on in self.record.nics.items() if key in there}
        vsphere.set_nics_start_connected(source, vm, nics)
        if not self.record.was_on:
            return
        if self.record.intent == "shutdown":
            settled = time.monotonic() + min(self.migration.plan.shutdown.timeout_seconds, SETTLE_SECONDS)
            while vsphere.power_state(source, vm.moref) == PowerState.ON and time.monotonic() < settled:
                Event().wait(1)
        was_off = vsphere.power_state(source, vm.moref) != PowerState.ON
        vsphere.power_on(source, vm.moref)
        if was_off:
            self.down_seconds = (datetime.now(UTC) - self.record.started).total_seconds()
        # somebody may have powered it on meanwhile, while its NICs weren't to connect
        vsphere.connect_nics(source, vm, [key for key, on in nics.items() if on])

    def _let_go(self) -> None:
        """Removes snapshots that bases stood on which count for nothing any more."""
        if any(disk.keeps_snapshot for disk in self.migration.planned.disks):
            remove_our_snapshots(self.migration, self.watch, self.migration.planned.kept_snapshots)

    def _forget(self, cause: str) -> None:
        """Closes the images to everybody again, and drops the cutover from the record, which keeps why it failed."""
        for disk in self.migration.planned.disks:
            opennebula.disable_image(self.migration.target, disk.image_id)
        record = self.migration.planned
        downtime = rolled_back_of_template(record, self.record.started, self.down_seconds, cause)
        opennebula.update_template(self.migration.target, record.template_id, {**downtime, "SNAPFERRY_CUTOVER": {}})
        self.migration.set_phase(Phase.ROLLED_BACK)


def machines_of(migration: Migration) -> list[Machine]:
    """The machines that this migration made at the target and that still exist; no clones of them."""
    record = migration.planned
    return [
        one
        for one in opennebula.list_machines(migration.target)
        if one.attributes.get("SNAPFERRY_ID") == record.migration_id
        and one.template_id == record.template_id
        and opennebula.state_name(one) != "DONE"
    ]


def find_machine(migration: Migration) -> Machine | None:
    """The machine that this migration made at the target, if it still exists."""
    return next(iter(machines_of(migration)), None)
