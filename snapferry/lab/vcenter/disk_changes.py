"""Disks that are added to a VM, grown and removed by ReconfigVM."""

import re
from typing import Any

from pyVmomi import vim, vmodl

from snapferry.lab.config import LabDisk
from snapferry.lab.vcenter.hardware import disks_of, next_slot
from snapferry.lab.vcenter.machine import Machine

_DISK_PRIVILEGES = {
    "add": "VirtualMachine.Config.AddNewDisk",
    "edit": "VirtualMachine.Config.DiskExtend",
    "remove": "VirtualMachine.Config.RemoveDisk",
}


def privilege_of(change: Any) -> str:
    """The privilege that a device's change takes."""
    is_disk = isinstance(change.device, vim.vm.device.VirtualDisk)
    return _DISK_PRIVILEGES[change.operation] if is_disk else "VirtualMachine.Config.EditDevice"


def change_disk(machine: Machine, config: Any, index: int, change: Any) -> None:
    """Carries out one change of a disk, in `config` too.

    Raises:
        InvalidDeviceSpec, InvalidDeviceOperation: the spec's device `index` can't be had, or not now.
        NotSupported: vCenter may do it, the lab doesn't.
    """
    if change.operation == "add":
        _add(machine, config, index, change)
        return
    disk = next((one for one in disks_of(config) if one.key == change.device.key), None)
    if disk is None:
        raise _invalid_spec(index)
    if change.operation == "remove":
        _remove(machine, config, disk, change.fileOperation)
    else:
        _grow(machine, disk, index, change.device)


def _add(machine: Machine, config: Any, index: int, change: Any) -> None:
    wanted, backing = change.device, change.device.backing
    if change.fileOperation != "create":
        raise vmodl.fault.NotSupported(msg="The lab adds new disks only.")
    slot = next_slot(config, wanted.controllerKey, wanted.unitNumber)
    capacity = _capacity(wanted)
    if slot is None or capacity <= 0:
        raise _invalid_spec(index)
    named = re.match(r"\[([^\]]+)\]", backing.fileName or "") or re.match(r"\[([^\]]+)\]", config.files.vmPathName)
    assert named
    datastore = backing.datastore or machine.vcenter.site.datastores.get(named[1])
    if datastore is None:
        raise _invalid_spec(index)
    labels = [int(one.deviceInfo.label.rpartition(" ")[2]) for one in disks_of(config)]
    disk = machine.add_disk(slot, LabDisk(capacity_bytes=capacity), max(labels, default=0), datastore)
    config.hardware.device.append(disk)
    _controller(config, disk).device.append(disk.key)


def _grow(machine: Machine, disk: Any, index: int, wanted: Any) -> None:
    capacity = _capacity(wanted)
    if capacity < disk.capacityInBytes:
        raise _invalid_spec(index)
    if capacity == disk.capacityInBytes:
        return
    if machine.has_deltas:
        reason = vmodl.LocalizableMessage(
            key="msg.disk.extendFailure", message="Disks with parents cannot be expanded."
        )
        raise vim.fault.InvalidDeviceOperation(
            deviceIndex=index, property=f"deviceChange[{index}].device", badOp="edit", faultMessage=[reason],
            msg=f"Invalid operation for device '{index}'.",
        )  # fmt: skip
    machine.host.client.grow_disk(machine.moref, disk.key, capacity)
    disk.capacityInBytes, disk.capacityInKB = capacity, capacity // 1024
    disk.deviceInfo.summary = f"{capacity // 1024:,} KB"


def _remove(machine: Machine, config: Any, disk: Any, file_operation: str | None) -> None:
    if machine.has_deltas:
        raise vmodl.fault.NotSupported(msg="The lab doesn't remove a disk that snapshots may hold.")
    machine.remove_disk(disk.key, file_operation == "destroy")
    config.hardware.device.remove(disk)
    _controller(config, disk).device.remove(disk.key)


def _controller(config: Any, disk: Any) -> Any:
    return next(one for one in config.hardware.device if one.key == disk.controllerKey)


def _capacity(disk: Any) -> int:
    return int(disk.capacityInBytes or (disk.capacityInKB or 0) * 1024)


def _invalid_spec(index: int) -> Any:
    return vim.fault.InvalidDeviceSpec(
        deviceIndex=index, property=f"deviceChange[{index}].device", msg=f"Invalid configuration for device '{index}'."
    )
