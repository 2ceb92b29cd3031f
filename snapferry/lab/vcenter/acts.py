"""What somebody else does to a VM: a backup job, an administrator, HA, the guest itself.

| name | arguments | what happens |
|---|---|---|
| `backup_snapshot` | `vm`, `seconds` (1) | a backup job takes a snapshot, and removes it so much later |
| `revert` | `vm` | somebody goes back to the newest snapshot and removes it: content and change tracking go back |
| `reset_change_tracking` | `vm` | tracking goes off and on again: the disks' ids get another UUID |
| `storage_vmotion` | `vm`, `stem` | the disks' files get other names |
| `ha_power_on` | `vm` | HA powers the VM on; one that runs is left alone |
| `power_off` | `vm` | somebody pulls the plug; a VM that is off is left alone |
| `guest_unmaps` | `vm`, `share` (0.5) | the guest gives that share of its data back at once |
| `edit_disk` | `vm`, `key`, `capacity_bytes`, `uuid`, `there` | vCenter tells otherwise of a disk; its files stay |
| `event` | `vm`, `type` | an event is posted, such as `com.vmware.vc.ha.VmRestartedByHAEvent` |

Each happens at once, or, with `method`, right before the next call of that method (after `skip` calls, `times` times).
"""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.lab.vcenter.describe import copy_of
from snapferry.lab.vcenter.hardware import disks_of
from snapferry.lab.vcenter.machine import Machine
from snapferry.lab.vcenter.power import switch_off, switch_on

if TYPE_CHECKING:
    from snapferry.lab.vcenter.service import VCenter

SOMEBODY = "somebody@vsphere.local"
"""Whom the events name."""

Act = Callable[["VCenter", Machine, Mapping[str, Any]], None]


def _backup_snapshot(vcenter: "VCenter", machine: Machine, arguments: Mapping[str, Any]) -> None:
    with machine.exclusively():
        vcenter.events.post(vim.event.TaskEvent, SOMEBODY, "Task: Create virtual machine snapshot", machine.mo)
        mo = machine.create_snapshot("nightly backup", "")
    seconds = float(arguments.get("seconds", 1))

    def remove() -> None:
        vcenter.stop_event.wait(seconds)
        with machine.exclusively():
            if mo in [node.mo for node in machine.snapshots]:
                machine.remove_snapshot(mo)

    threading.Thread(target=remove, name=f"backup of {machine.name}", daemon=True).start()


def _revert(vcenter: "VCenter", machine: Machine, _: Mapping[str, Any]) -> None:
    with machine.exclusively():
        info = vim.TaskInfo(descriptionId="vm.Snapshot.revert", entity=machine.mo, entityName=machine.name)
        vcenter.events.post(vim.event.TaskEvent, SOMEBODY, "Task: Revert to snapshot", machine.mo, info=info)
        mo = machine.revert()
        machine.remove_snapshot(mo)


def _reset_change_tracking(_: "VCenter", machine: Machine, __: Mapping[str, Any]) -> None:
    with machine.exclusively():
        for enabled in (False, True):
            machine.host.client.set_change_tracking(machine.moref, enabled, True)
        machine.refresh_disks()


def _storage_vmotion(vcenter: "VCenter", machine: Machine, arguments: Mapping[str, Any]) -> None:
    with machine.exclusively():
        machine.rename_files(str(arguments.get("stem", f"{machine.lab.name}-moved")))
        text = f"Completed the relocation of the virtual machine {machine.name}"
        vcenter.events.post(vim.event.VmRelocatedEvent, SOMEBODY, text, machine.mo)


def _ha_power_on(vcenter: "VCenter", machine: Machine, _: Mapping[str, Any]) -> None:
    with machine.exclusively():
        if not machine.powered_on:
            switch_on(vcenter, machine, "")


def _power_off(vcenter: "VCenter", machine: Machine, _: Mapping[str, Any]) -> None:
    with machine.exclusively():
        if machine.powered_on:
            switch_off(vcenter, machine, SOMEBODY)


def _guest_unmaps(_: "VCenter", machine: Machine, arguments: Mapping[str, Any]) -> None:
    machine.host.client.guest_unmaps(machine.moref, float(arguments.get("share", 0.5)))


def _edit_disk(vcenter: "VCenter", machine: Machine, arguments: Mapping[str, Any]) -> None:
    key = int(arguments["key"])
    shown = {disk.key: disk for disk in disks_of(machine.config)}
    edited = copy_of(machine.edited_disks.get(key) or shown[key])
    machine.edited_disks[key] = edited
    edited.capacityInBytes = arguments.get("capacity_bytes") or edited.capacityInBytes
    edited.backing.uuid = arguments.get("uuid") or edited.backing.uuid

    def edit(config: Any) -> None:
        others = [one for one in config.hardware.device if one.key != key]
        config.hardware.device = [*others, edited] if arguments.get("there", True) else others

    vcenter.store.edit(machine.mo, "config", edit)


def _event(vcenter: "VCenter", machine: Machine, arguments: Mapping[str, Any]) -> None:
    vcenter.events.post(vim.event.EventEx, SOMEBODY, "", machine.mo, eventTypeId=arguments["type"])


ACTS: dict[str, Act] = {
    "backup_snapshot": _backup_snapshot,
    "revert": _revert,
    "reset_change_tracking": _reset_change_tracking,
    "storage_vmotion": _storage_vmotion,
    "ha_power_on": _ha_power_on,
    "power_off": _power_off,
    "guest_unmaps": _guest_unmaps,
    "edit_disk": _edit_disk,
    "event": _event,
}


def act(vcenter: "VCenter", name: str, arguments: Mapping[str, Any]) -> None:
    """Does it now. Raises KeyError for a VM that isn't there."""
    ACTS[name](vcenter, vcenter.named(arguments["vm"]), arguments)
