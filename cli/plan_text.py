"""A plan as YAML text with each field's meaning beside it."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from snapferry.errors import SnapferryError
from snapferry.opennebula import map_network
from snapferry.plan import MigrationPlan

if TYPE_CHECKING:
    from snapferry.opennebula.models import Network
    from snapferry.vsphere.models import SourceVm


def plan_text(
    vm: "SourceVm", networks: "Sequence[Network]", reference: str, datastore: str, vcenter: str, opennebula: str
) -> str:
    """The plan of a VM: what was found is set, every other field stands there as a comment with its default.

    Args:
        vm: as vCenter has it.
        networks: what the target has.
        reference: how the operator names the VM.
        datastore: name of the image datastore.
        vcenter: name of the source's block.
        opennebula: name of the target's block.
    """
    values = {"vm": reference, "vcenter": vcenter, "opennebula": opennebula, "image_datastore": datastore}
    defaults = MigrationPlan(vm=reference, image_datastore=datastore).model_dump(mode="json", by_alias=True)
    blocks = [_head(vm)]
    for name, field in MigrationPlan.model_fields.items():
        lines = [f"# {line}" for line in textwrap.wrap(" ".join((field.description or "").split()), 100)]
        if name == "networks":
            lines += _networks(vm, list(networks))
        elif name in values:
            lines.append(_yaml({name: values[name]}))
        else:
            key = field.alias or name
            lines += [f"# {line}" for line in _yaml({key: defaults[key]}).splitlines()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _head(vm: "SourceVm") -> str:
    disks = [
        f"#   {one.label}: {one.capacity_bytes / 2**30:,.2f} GiB on {one.datastore} ({one.place})" for one in vm.disks
    ]
    facts = f"{vm.guest_full_name}, {vm.cpus} CPUs, {vm.memory_mib} MiB, {vm.firmware}, {vm.power.value}"
    return "\n".join([f"# {vm.path}", f"#   {facts}", f"#   instance UUID {vm.instance_uuid}", *disks])


def _networks(vm: "SourceVm", networks: "list[Network]") -> list[str]:
    """A rule for each network that no attribute maps; commented out where the operator has to choose."""
    lines, open_rules = [], []
    for source in dict.fromkeys(nic.network for nic in vm.nics):
        try:
            found = map_network(networks, (), source)
        except SnapferryError:
            open_rules.append(source)
        else:
            lines.append(f"# {source!r} goes to {found.name!r} by its VCENTER_NETWORK_MATCH.")
    if not open_rules:
        return [*lines, "# networks: {}"]
    names = ", ".join(one.name for one in networks) or "none"
    rules = [f"#   {_yaml({source: 'CHOOSE'})}" for source in open_rules]
    return [*lines, f"# To be chosen; the target has: {names}.", "# networks:", *rules]


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")
