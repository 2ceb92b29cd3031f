"""Both ends as they are, read once, in an order that doesn't take what a live run is making for a leftover."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from snapferry import opennebula, vsphere
from snapferry.errors import Refused, TargetError
from snapferry.opennebula.models import Image, Machine, Network, Template
from snapferry.plan import vm_name
from snapferry.record import MigrationRecord, Phase, read_template_record
from snapferry.vectors import Vector
from snapferry.vsphere.models import Snapshot, SourceVm


class Survey(NamedTuple):
    """What both ends have.

    Attributes:
        vcenter: UUID of the source; records of other vCenters are none of ours.
        unreadable: each template whose record can't be read, and why.
    """

    vcenter: str
    vms: dict[str, SourceVm]
    images: list[Image]
    networks: list[Network]
    machines: list[Machine]
    templates: list[Template]
    records: list[MigrationRecord]
    unreadable: list[tuple[Template, TargetError]]

    def records_by_vm(self) -> Iterator[list[MigrationRecord]]:
        """The records of each VM of this vCenter that can be read, the newest last."""
        damaged = {_key_of(one.attributes) for one, _ in self.unreadable}
        groups: dict[str, list[MigrationRecord]] = {}
        for one in self.records:
            if one.vm_key not in damaged and one.phase != Phase.ABANDONED:
                groups.setdefault(one.vm_key, []).append(one)
        yield from (group for key, group in groups.items() if key.startswith(f"{self.vcenter}/"))

    def vm_of(self, record: MigrationRecord) -> SourceVm | None:
        """The VM of a record, where moref and UUID both fit."""
        vm = self.vms.get(record.vm_moref)
        return vm if vm and vm.key == record.vm_key else None

    def orphans(self) -> list[Image]:
        """Images of ours, of VMs of this vCenter, that nobody uses and whose template is gone; clones aren't ours."""
        known = self._known()
        found = []
        for image in self.images:
            mine = Vector.of(image.attributes, "SNAPFERRY")
            if mine is None or mine.get("OWN_ID") not in ("", str(image.id)) or image.vms:
                continue
            if mine.get("VM_KEY").startswith(f"{self.vcenter}/") and mine.get("ID") not in known:
                found.append(image)
        return found

    def stray_ranges(self) -> list[tuple[str, str]]:
        """Mark and place of the address ranges of ours that no template, image or machine has to do with."""
        known = self._known() | {id_of(one.attributes) for one in self.images}
        known |= {str(one.attributes.get("SNAPFERRY_ID")) for one in self.machines}
        found = []
        for network in self.networks:
            for one in network.ranges:
                mark = one.attributes.get("SNAPFERRY")
                if mark and mark not in known and not (one.leases or one.leased_ips or one.leased_macs):
                    found.append((mark, f"{one.first_ip or one.first_mac} in network {network.name}"))
        return found

    def stray_snapshots(self) -> Iterator[tuple[SourceVm, Snapshot]]:
        """Snapshots with our name on VMs that no record knows."""
        known = {_key_of(one.attributes) for one in self.templates}
        for vm in self.vms.values():
            if vm.key not in known:
                yield from ((vm, one) for one in vsphere.our_snapshots(vm))

    def _known(self) -> set[str]:
        """Ids of the migrations that a template carries, be it a clone."""
        return {id_of(one.attributes) for one in self.templates}


def survey(source: vsphere.Session, target: opennebula.Client) -> Survey:
    """Reads both ends. A template is made before its images and ranges, so it is read behind them."""
    images = opennebula.list_images(target)
    networks = opennebula.list_networks(target)
    machines = opennebula.list_machines(target)
    vms = {one.moref: one for one in vsphere.list_vms(source)}
    templates = opennebula.list_templates(target)
    records, unreadable = read_records(templates, images)
    return Survey(source.vcenter_uuid, vms, images, networks, machines, templates, records, unreadable)


def read_records(
    templates: list[Template], images: list[Image]
) -> tuple[list[MigrationRecord], list[tuple[Template, TargetError]]]:
    """Every record that can be read, the newest last, and each template whose record can't."""
    records, unreadable = [], []
    for template in sorted(templates, key=lambda one: one.id):
        try:
            if record := read_template_record(template, images):
                records.append(record)
        except TargetError as error:
            unreadable.append((template, error))
    return records, unreadable


def find_records(client: opennebula.Client, vm_key: str | None = None) -> list[MigrationRecord]:
    """Every record at the target, or one VM's, the newest last.

    Raises:
        TargetError: a record is there and can't be read; a missing or unreadable record never means a fresh VM.
    """
    templates = [one for one in opennebula.list_templates(client) if "SNAPFERRY" in one.attributes]
    if vm_key is not None:
        templates = [one for one in templates if _key_of(one.attributes) == vm_key]
    if not templates:
        return []
    images = opennebula.list_images(client)
    found = [read_template_record(one, images) for one in sorted(templates, key=lambda one: one.id)]
    return [one for one in found if one is not None]


def find_record(client: opennebula.Client, vm: SourceVm) -> MigrationRecord | None:
    """The record of this VM's move: the one under way, else the last one that ended in a migration.

    Raises:
        Refused: there are two under way.
        TargetError: a record can't be read.
    """
    records = [one for one in find_records(client, vm.key) if one.phase != Phase.ABANDONED]
    under_way = [one for one in records if one.open]
    if len(under_way) > 1:
        ids = " and ".join(str(one.template_id) for one in under_way)
        raise Refused(
            f"{vm.name}: the templates {ids} both carry a migration of this VM that is under way.",
            "Find out which one is right (`onetemplate show`), and delete the other with its images.",
        )
    found = under_way or records
    return found[-1] if found else None


def is_of(record: MigrationRecord, vm: str) -> bool:
    """Whether a record is the one of a VM that somebody names: by its name at either end, its path or its UUID."""
    names = {record.vm_name, record.target_name}
    return not names.isdisjoint({vm, vm_name(vm)}) or record.vm_key.endswith(f"/{vm}")


def id_of(attributes: Mapping[str, Any]) -> str:
    """The migration that an object's record names; empty where it has none."""
    vector = Vector.of(attributes, "SNAPFERRY")
    return vector.get("ID") if vector else ""


def _key_of(attributes: Mapping[str, Any]) -> str:
    vector = Vector.of(attributes, "SNAPFERRY")
    return vector.get("VM_KEY") if vector else ""
