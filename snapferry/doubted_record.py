"""Whether what a record says of a cutover can be: nothing is done on its word alone."""

from snapferry import opennebula
from snapferry.errors import Refused, SourceLeftOff
from snapferry.migration import Migration
from snapferry.plan import Deploy
from snapferry.record import Phase
from snapferry.roll_back import find_machine
from snapferry.vsphere.models import PowerState


def doubt_record(migration: Migration) -> None:
    """Compares what the record says of a cutover with both ends.

    Raises:
        Refused: it says that the VM went over, and the ends say otherwise.
        SourceLeftOff: a cutover was under way, the source is off, and what it was like before isn't known.
    """
    record, vm = migration.planned, migration.vm
    went_over = record.phase == Phase.MIGRATED or (record.cutover is not None and record.cutover.past_no_return)
    if went_over and vm.power == PowerState.ON:
        raise Refused(
            f"{vm.name}: its record says that it was migrated, but the source runs.",
            "If it is in service at the target, power the source off in vCenter at once, then run this again. If not,"
            f" somebody edited the record: see template {record.template_id} in OpenNebula.",
        )
    if went_over and record.phase != Phase.MIGRATED and migration.plan.deploy == Deploy.VM:
        machine = find_machine(migration)
        if machine is None or not opennebula.has_run(machine):
            raise Refused(
                f"{vm.name}: its record says that it runs at the target, but no machine of it has run there.",
                "Find out who deleted the machine or edited the record; until then the source stays as it is"
                f" ({vm.power.value}). To go back, power it on in vCenter and connect its NICs.",
            )
    if record.phase == Phase.CUTTING_OVER and record.cutover is None and vm.power != PowerState.ON:
        raise SourceLeftOff(
            f"{vm.name}: a cutover was under way, but its record is gone, and the source is {vm.power.value}.",
            "If it should run, power it on in vCenter and connect its NICs; then run `snapferry cutover` again.",
        )
