"""What has to be there before the first round: the checks, an empty image per disk, the template that links them."""

import secrets
from collections.abc import Mapping
from typing import Any

from snapferry import opennebula, vsphere
from snapferry.changes import means_when_off, untracked
from snapferry.errors import LeaseLost, Refused
from snapferry.migration import Migration
from snapferry.opennebula.models import Image, Network
from snapferry.plan import ChangesBy, MigrationPlan
from snapferry.record import DiskRecord, MigrationRecord, Phase, base_of_image, identity_of_image, identity_of_template
from snapferry.survey import id_of
from snapferry.vectors import Vector
from snapferry.vsphere.models import SourceDisk, SourceVm
from snapferry.watch import Watch


def prepare(migration: Migration, watch: Watch) -> MigrationRecord:
    """Checks both ends and makes what the target needs. Repeatable: what is there is used.

    Raises:
        Refused: something has to be put right first. Nothing that this call made is left.
        SnapferryError: an end failed; nothing that this call made is left.
    """
    migration.refresh()
    record = migration.record
    if record is not None and record.phase == Phase.MIGRATED:
        raise Refused(
            f"{migration.vm.name}: it was migrated already.", "Delete its template there to move it once more."
        )
    watch.step("checks", "privileges, networks, space")
    networks = check(migration)
    if record is not None and record.phase != Phase.PLANNED:  # which it leaves once everything is there
        record.check_disks(migration.vm.disks)
        _settle_changes(migration, watch)
        return migration.planned
    return _make(migration, networks, watch)


def check(migration: Migration) -> list[Network]:
    """Everything that can be known before something is made.

    Returns:
        The target network of each NIC, in order.

    Raises:
        Refused: with the cause and the next step.
    """
    plan, vm = migration.plan, migration.vm
    if missing := vsphere.missing_privileges(migration.source, vm):
        raise vsphere.MissingPrivilege(
            f"{vm.name}: the vCenter user lacks {', '.join(missing)}.",
            "Give its role these privileges on the VM (README, Privileges).",
        )
    reason = _untracked(migration)
    critical = [one for one in vsphere.concerns(vm, tracked=not reason) if one.severity == "critical"]
    if critical:
        raise Refused(
            "\n".join(f"{vm.name}: {one.text}" for one in critical), " ".join(one.next_step for one in critical)
        )
    known = opennebula.list_networks(migration.target)
    networks = [opennebula.map_network(known, plan.networks, nic.network) for nic in vm.nics]
    _check_datastore(migration)
    _check_name(migration)
    return networks


def _untracked(migration: Migration) -> str:
    """Why change tracking isn't used; empty where it is.

    Raises:
        Refused: the plan asks for what can't be had.
    """
    plan, vm = migration.plan, migration.vm
    reason = untracked(vm, plan, migration.record)
    if reason and plan.changes == ChangesBy.TRACKING:
        raise Refused(
            f"{vm.name}: the plan asks for change tracking, and {reason}.",
            "Put that right, or leave `changes` out of the plan.",
        )
    without = [disk.label for disk in vm.disks if means_when_off(disk, reason, plan) == ChangesBy.COMPARE]
    if without and plan.changes == ChangesBy.DELTA_FILES:
        raise Refused(
            f"{vm.name}: the plan asks for delta files, and {', '.join(without)} has none.",
            "Leave `changes` out of the plan: each disk then goes the best way that it has.",
        )
    return reason


def _check_datastore(migration: Migration) -> None:
    """The image datastore is one that we can write to, and has room for what isn't there yet."""
    datastore = opennebula.find_datastore(migration.target, migration.plan.image_datastore)
    opennebula.check_placement(datastore)
    if migration.record is None:
        opennebula.check_space(datastore, sum(disk.capacity_bytes for disk in migration.vm.disks))


def _check_name(migration: Migration) -> None:
    """No other template of ours has the name that the VM shall have."""
    name = migration.plan.target_name or migration.vm.name
    own = migration.record.template_id if migration.record else None
    taken = [one for one in opennebula.list_templates(migration.target) if one.name == name and one.id != own]
    if taken:
        raise opennebula.NameTaken(
            f"OpenNebula has a template named {name!r} already (ID {taken[0].id}).",
            "Give the plan another `target_name`, or rename that template.",
        )


def _make(migration: Migration, networks: list[Network], watch: Watch) -> MigrationRecord:
    """Makes template and images, or finishes what a killed run began; takes back what it made where it fails."""
    began = migration.record is None
    if began:
        _make_template(migration, watch)
    made: list[Image] = []
    try:
        with migration.lease(watch.stop) as lease:
            migration.refresh()
            images = [_image(migration, disk, made, watch) for disk in migration.vm.disks]
            nics = [
                _nic(migration, nic, network, watch) for nic, network in zip(migration.vm.nics, networks, strict=True)
            ]
            _settle_changes(migration, watch)
            disks = list(zip(migration.vm.disks, (image.id for image in images), strict=True))
            lease.check()
            attributes = opennebula.build_template(migration.vm, migration.plan, disks, nics, {})
            opennebula.update_template(migration.target, migration.planned.template_id, attributes)
            migration.set_phase(Phase.SYNCING)
    except LeaseLost:
        raise  # what is there is the next holder's
    except BaseException:
        if began:
            _take_back(migration)
        else:
            for image in made:
                opennebula.delete_image(migration.target, image.id)
        raise
    migration.refresh()
    return migration.planned


def _take_back(migration: Migration) -> None:
    """Removes a template that this call made, what belongs to it, and what was switched on for it."""
    record = migration.planned
    for image in opennebula.list_images(migration.target):  # also one whose allocation's answer was lost
        if id_of(image.attributes) == record.migration_id:
            opennebula.delete_image(migration.target, image.id)
    opennebula.remove_addresses(migration.target, record.migration_id)
    opennebula.delete_template(migration.target, record.template_id)
    if record.tracking_enabled_by_us:
        vsphere.disable_change_tracking(migration.source, vsphere.read_vm(migration.source, migration.vm.moref))


def _make_template(migration: Migration, watch: Watch) -> None:
    """The template comes first: it carries record and lease, and its name keeps a second run out."""
    vm, plan = migration.vm, migration.plan
    record = MigrationRecord(
        migration_id=secrets.token_hex(5),
        template_id=-1,
        target_name=plan.target_name or vm.name,
        phase=Phase.PLANNED,
        vm_key=vm.key,
        vm_moref=vm.moref,
        vm_name=vm.name,
    )
    watch.step("template", record.target_name)
    base: Mapping[str, Any] = opennebula.build_template(vm, plan, [], [], identity_of_template(record))
    template = opennebula.create_template(migration.target, record.target_name, base)
    migration.record = record.model_copy(update={"template_id": template.id})
    opennebula.update_template(migration.target, template.id, identity_of_template(migration.planned))


def _image(migration: Migration, disk: SourceDisk, made: list[Image], watch: Watch) -> Image:
    """The disk's image: the one that the record knows, or a new one (`create_image` takes up a killed run's)."""
    record, target = migration.planned, migration.target
    for image in opennebula.list_images(target):
        vector = Vector.of(image.attributes, "SNAPFERRY")
        wanted = (record.migration_id, disk.backing_uuid, str(image.id))
        if vector and (vector.get("ID"), vector.get("DISK_UUID"), vector.get("OWN_ID")) == wanted:
            return opennebula.disable_image(target, image.id)
    name = image_name(migration.plan, migration.vm, disk)
    watch.step("image", f"{name}, {disk.capacity_bytes / 2**30:.1f} GiB")
    empty = DiskRecord(
        image_id=-1, image_name=name, disk_uuid=disk.backing_uuid, key=disk.key, label=disk.label,
        place=disk.place, capacity_bytes=disk.capacity_bytes,
    )  # fmt: skip
    image = opennebula.create_image(
        target,
        name=name,
        size_bytes=disk.capacity_bytes,
        datastore_id=opennebula.find_datastore(target, migration.plan.image_datastore).id,
        image_type="OS" if disk is migration.vm.disks[0] else "DATABLOCK",
        dev_prefix="vd",
        attributes=identity_of_image(record.migration_id, migration.vm, disk, None) | base_of_image(empty),
        stop=watch.stop,
    )
    made.append(image)
    opennebula.update_image(target, image.id, identity_of_image(record.migration_id, migration.vm, disk, image.id))
    return image


def image_name(plan: MigrationPlan, vm: SourceVm, disk: SourceDisk) -> str:
    """Name of a disk's image: the VM's name at the target and the disk's number."""
    number = [one.key for one in vm.disks].index(disk.key)
    return f"{plan.target_name or vm.name}-disk-{number}"


def _nic(migration: Migration, nic: Any, network: Network, watch: Watch) -> dict[str, str]:
    """The NIC as the template names it; adds an address range where MAC and IP can't be kept otherwise."""
    planned = opennebula.nic_template(network, nic, migration.plan.keep_ip)
    for warning in planned.warnings:
        watch.step("network", warning)
    return opennebula.ensure_address(migration.target, planned, migration.planned.migration_id)


def _settle_changes(migration: Migration, watch: Watch) -> None:
    """Notes by what the changes are to be found, and switches tracking on where it is to tell them."""
    record = migration.planned.model_copy(update={"untracked": _untracked(migration)})
    enable = not record.untracked and not migration.vm.change_tracking
    if enable:
        watch.step("change tracking", "switching it on")
        record = record.model_copy(update={"tracking_enabled_by_us": True})
    elif record.untracked:
        watch.step("change tracking", f"isn't used: {record.untracked}")
    if record != migration.planned:
        opennebula.update_template(migration.target, record.template_id, identity_of_template(record))
        migration.record = record
    if enable:
        vsphere.enable_change_tracking(migration.source, migration.vm)
        migration.vm = vsphere.read_vm(migration.source, migration.vm.moref)
