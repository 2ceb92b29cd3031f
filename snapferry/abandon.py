"""Gives a migration up: our snapshots and what we made at the target go, the source stays as it is."""

from snapferry import opennebula, vsphere
from snapferry.command_line import command_line
from snapferry.errors import Refused
from snapferry.migration import Migration
from snapferry.record import Phase
from snapferry.roll_back import find_machine
from snapferry.rounds import remove_our_snapshots
from snapferry.vsphere.models import PowerState
from snapferry.watch import Watch


def abandon(migration: Migration, watch: Watch) -> list[str]:
    """Removes the snapshots, images, address ranges and the template of a migration that isn't finished. Repeatable.

    Returns:
        What was removed, a sentence each; empty where there was nothing.

    Raises:
        Refused: the VM runs at the target, or a cutover is under way.
    """
    migration.refresh()
    if migration.record is None:
        return []
    record, target, vm = migration.planned, migration.target, migration.vm
    machine = find_machine(migration)
    if record.phase == Phase.MIGRATED or (machine and opennebula.has_run(machine)):
        raise Refused(
            f"{vm.name}: it was migrated and runs at the target; nothing was removed.",
            "There is nothing to abandon. Its template and images at OpenNebula are the VM itself now.",
        )
    if record.phase == Phase.CUTTING_OVER and vm.power != PowerState.ON:
        raise Refused(
            f"{vm.name}: a cutover is under way and the source is off; nothing was removed.",
            f"Run `{command_line('reconcile', record.vm_name)}`, which puts the source back in service; then abandon"
            " it.",
        )
    if machine:
        raise Refused(
            f"{vm.name}: VM {machine.id} at OpenNebula uses its images, though it never ran; nothing was removed.",
            f"Run `{command_line('reconcile', record.vm_name)}`, which removes it; then abandon the migration.",
        )
    removed = [f"snapshot {one.name} of {vm.name}" for one in vsphere.our_snapshots(vm, record.migration_id)]
    with migration.lease(watch.stop) as lease:
        remove_our_snapshots(migration, watch)
        if record.cutover:
            known = {nic.key for nic in vm.nics}
            nics = {key: on for key, on in record.cutover.nics.items() if key in known}
            vsphere.set_nics_start_connected(migration.source, vm, nics)
        lease.check()
        for disk in record.disks:
            watch.step("abandon", f"image {disk.image_name}")
            opennebula.delete_image(target, disk.image_id)
            removed.append(f"image {disk.image_id} ({disk.image_name})")
        removed += [f"address range {one}" for one in opennebula.remove_addresses(target, record.migration_id)]
        if record.tracking_enabled_by_us and migration.plan.restore_change_tracking:
            vsphere.disable_change_tracking(migration.source, vsphere.read_vm(migration.source, vm.moref))
            removed.append(f"change tracking of {vm.name}")
        elif record.tracking_enabled_by_us:
            watch.step("abandon", "change tracking stays on: the plan has no restore_change_tracking")
    opennebula.delete_template(target, record.template_id)
    migration.record = None
    return [*removed, f"template {record.template_id} ({record.target_name})"]
