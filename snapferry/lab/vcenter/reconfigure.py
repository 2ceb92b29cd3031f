"""Changes to a VM's settings and its name."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim, vmodl

from snapferry.lab.vcenter.authorization import require
from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.describe import copy_of
from snapferry.lab.vcenter.disk_changes import change_disk, privilege_of
from snapferry.lab.vcenter.faults import invalid_argument
from snapferry.lab.vcenter.hardware import nics_of
from snapferry.lab.vcenter.inventory import encode_name
from snapferry.lab.vcenter.machine import Machine
from snapferry.lab.vcenter.snapshots import start_task

MAX_NAME = 80
_ENCODED = re.compile("%(25|2f|5c)", re.IGNORECASE)

_PRIVILEGE_OF_FIELD = {
    "annotation": "VirtualMachine.Config.Annotation",
    "bootOptions": "VirtualMachine.Config.Settings",
    "changeTrackingEnabled": "VirtualMachine.Config.ChangeTracking",
    "deviceChange": "VirtualMachine.Config.EditDevice",
    "extraConfig": "VirtualMachine.Config.AdvancedConfig",
    "memoryMB": "VirtualMachine.Config.Memory",
    "name": "VirtualMachine.Config.Rename",
    "numCPUs": "VirtualMachine.Config.CPUCount",
}
"""The fields that the lab can change."""


def _fields(spec: Any) -> Iterator[str]:
    for info in spec._GetPropertyList():
        value = getattr(spec, info.name)
        if value is not None and value != [] and info.name != "changeVersion":
            yield info.name


@answers("ReconfigVM_Task")
def _reconfigure(call: Call) -> Any:
    machine, spec = call.vcenter.machine(call.this), call.arguments["spec"]
    fields = list(_fields(spec))
    for field in fields:
        if field not in _PRIVILEGE_OF_FIELD:
            raise vmodl.fault.NotSupported(msg=f"The lab can't reconfigure {field}.")
        if field != "deviceChange":
            require(call, machine.mo, _PRIVILEGE_OF_FIELD[field])
    for change in spec.deviceChange:
        require(call, machine.mo, privilege_of(change))

    def work() -> None:
        config = copy_of(machine.config)
        if spec.changeVersion and spec.changeVersion != config.changeVersion:
            raise vim.fault.ConcurrentAccess(msg="The object has been modified since it was read.")
        for field in fields:
            _APPLY[field](machine, config, spec)
        config.changeVersion = datetime.now(UTC).isoformat()
        config.modified = datetime.now(UTC)
        call.vcenter.store.change(machine.mo, config=config)
        if "deviceChange" in fields:
            machine.show_guest()
        if "name" in fields:
            _rename(call, machine, spec.name)
        if {"changeTrackingEnabled", "deviceChange"} & set(fields):
            machine.refresh_disks()
        text = f"Reconfigured {machine.name} on {machine.host.name}"
        call.vcenter.events.post(
            vim.event.VmReconfiguredEvent, call.user.account.name, text, machine.mo, configSpec=spec
        )

    return start_task(call, machine, work)


def _annotation(_machine: Machine, config: Any, spec: Any) -> None:
    config.annotation = spec.annotation


def _boot_options(_machine: Machine, config: Any, spec: Any) -> None:
    for info in spec.bootOptions._GetPropertyList():
        value = getattr(spec.bootOptions, info.name)
        if value is not None and value != []:
            setattr(config.bootOptions, info.name, value)


def _change_tracking(machine: Machine, config: Any, spec: Any) -> None:
    if spec.changeTrackingEnabled and not machine.vcenter.store.get(machine.mo, "capability").changeTrackingSupported:
        raise invalid_argument("spec.changeTrackingEnabled")
    if config.changeTrackingEnabled != spec.changeTrackingEnabled:
        machine.host.client.set_change_tracking(machine.moref, spec.changeTrackingEnabled, not machine.powered_on)
        config.changeTrackingEnabled = spec.changeTrackingEnabled


def _devices(machine: Machine, config: Any, spec: Any) -> None:
    nics = {nic.key: nic for nic in nics_of(config)}
    for index, change in enumerate(spec.deviceChange):
        if isinstance(change.device, vim.vm.device.VirtualDisk):
            change_disk(machine, config, index, change)
            continue
        nic = nics.get(change.device.key)
        if change.operation != "edit" or nic is None:
            raise vim.fault.InvalidDeviceSpec(deviceIndex=index, msg=f"Invalid configuration for device '{index}'.")
        wanted = change.device.connectable
        if wanted is not None:
            nic.connectable.startConnected = wanted.startConnected
            nic.connectable.allowGuestControl = wanted.allowGuestControl
            nic.connectable.connected = wanted.connected and machine.powered_on


def _extra_config(_machine: Machine, config: Any, spec: Any) -> None:
    values = {one.key: one for one in config.extraConfig} | {one.key: one for one in spec.extraConfig}
    config.extraConfig = [one for one in values.values() if one.value != ""]


def _memory(machine: Machine, config: Any, spec: Any) -> None:
    _only_off(machine)
    config.hardware.memoryMB = spec.memoryMB


def _cpus(machine: Machine, config: Any, spec: Any) -> None:
    _only_off(machine)
    config.hardware.numCPU = spec.numCPUs


def _only_off(machine: Machine) -> None:
    if machine.powered_on:
        raise vim.fault.InvalidPowerState(
            requestedState="poweredOff", existingState="poweredOn", msg="The VM has to be powered off."
        )


def _name(_machine: Machine, _config: Any, _spec: Any) -> None:
    """Renamed behind everything else."""


_APPLY = {
    "annotation": _annotation,
    "bootOptions": _boot_options,
    "changeTrackingEnabled": _change_tracking,
    "deviceChange": _devices,
    "extraConfig": _extra_config,
    "memoryMB": _memory,
    "name": _name,
    "numCPUs": _cpus,
}


@answers("Rename_Task")
def _rename_entity(call: Call) -> Any:
    if not isinstance(call.this, vim.VirtualMachine):
        raise vmodl.fault.NotSupported(msg="The lab renames VMs only.")
    machine = call.vcenter.machine(call.this)
    require(call, machine.mo, "VirtualMachine.Config.Rename")
    return start_task(call, machine, lambda: _rename(call, machine, call.arguments["newName"]))


def _rename(call: Call, machine: Machine, wanted: str) -> None:
    store, old = call.vcenter.store, machine.name
    new = wanted if _ENCODED.search(wanted) else encode_name(wanted)
    if not wanted or len(new) > MAX_NAME:
        raise vim.fault.InvalidName(name=wanted, entity=machine.mo, msg=f"The name '{wanted}' is invalid.")
    with store.condition:
        for sibling in store.get(store.get(machine.mo, "parent"), "childEntity"):
            if sibling != machine.mo and store.get(sibling, "name") == new:
                raise vim.fault.DuplicateName(name=new, object=sibling, msg=f"The name '{wanted}' already exists.")
        store.change(machine.mo, name=new)
        store.edit(machine.mo, "config", lambda config: setattr(config, "name", new))
    text = f"Renamed {old} to {new} in {call.vcenter.config.datacenter}"
    call.vcenter.events.post(
        vim.event.VmRenamedEvent, call.user.account.name, text, machine.mo, oldName=old, newName=new
    )
