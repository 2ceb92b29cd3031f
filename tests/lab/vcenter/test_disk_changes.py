"""Disks that ReconfigVM adds, grows and removes, as vCenter does it and refuses it."""

from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from snapferry.lab import Lab

MIB = 1 << 20
device = vim.vm.device


def disks(vm: Any) -> list[Any]:
    return [one for one in vm.config.hardware.device if isinstance(one, device.VirtualDisk)]


def change(vm: Any, operation: str, disk: Any, files: str | None = None) -> None:
    spec = device.VirtualDeviceSpec(operation=operation, fileOperation=files, device=disk)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec])))


def snapshot(vm: Any) -> Any:
    return WaitForTask(vm.CreateSnapshot_Task(name="one", memory=False, quiesce=False)) and vm.snapshot.currentSnapshot


def new_disk(capacity: int, controller: int, unit: int | None = None, **fields: Any) -> Any:
    backing = device.VirtualDisk.FlatVer2BackingInfo(fileName="", diskMode="persistent", thinProvisioned=True, **fields)
    return device.VirtualDisk(
        key=-1, controllerKey=controller, unitNumber=unit, capacityInBytes=capacity, capacityInKB=0, backing=backing
    )


def test_a_disk_without_snapshots_grows_while_its_vm_runs_and_keeps_its_identity(si: Any, vm: Any, lab: Lab) -> None:
    (disk,) = disks(vm)
    was = disk.capacityInBytes
    disk.capacityInBytes = was + 3 * MIB + 512
    change(vm, "edit", disk)
    (grown,) = disks(vm)
    assert grown.capacityInBytes == was + 3 * MIB + 512
    assert (grown.key, grown.backing.uuid, grown.backing.fileName) == (
        disk.key,
        disk.backing.uuid,
        disk.backing.fileName,
    )
    WaitForTask(vm.PowerOffVM_Task())
    assert len(lab.control.digest(vm.name, 0)) == 64
    disk.capacityInBytes = was
    with pytest.raises(vim.fault.InvalidDeviceSpec):
        change(vm, "edit", disk)


def test_a_disk_with_a_snapshot_doesnt_grow(si: Any, vm: Any) -> None:
    made = snapshot(vm)
    (disk,) = disks(vm)
    was = disk.capacityInBytes
    disk.capacityInBytes = was * 2
    with pytest.raises(vim.fault.InvalidDeviceOperation) as refused:
        change(vm, "edit", disk)
    assert refused.value.faultMessage[0].message == "Disks with parents cannot be expanded."
    assert disks(vm)[0].capacityInBytes == was
    with pytest.raises(vmodl.fault.NotSupported):
        change(vm, "remove", disk, "destroy")
    WaitForTask(made.RemoveSnapshot_Task(removeChildren=False))
    change(vm, "edit", disk)
    assert disks(vm)[0].capacityInBytes == was * 2


def test_a_disk_is_added_on_a_datastore_of_its_own_and_removed_with_its_files(si: Any, vm: Any, lab: Lab) -> None:
    (first,) = disks(vm)
    nfs = next(one for one in vm.runtime.host.datastore if one.name == "nfs")
    change(vm, "add", new_disk(5 * MIB + 512, first.controllerKey, datastore=nfs), "create")
    _, added = disks(vm)
    assert (added.capacityInBytes, added.unitNumber, added.deviceInfo.label) == (5 * MIB + 512, 1, "Hard disk 2")
    assert added.backing.fileName.startswith("[nfs] ")
    assert {one.name for one in vm.datastore} == {"san1", "nfs"}
    controller = next(one for one in vm.config.hardware.device if one.key == first.controllerKey)
    assert list(controller.device) == [first.key, added.key]
    for unit in (1, 7, 99):  # taken, the controller's own, none
        with pytest.raises(vim.fault.InvalidDeviceSpec):
            change(vm, "add", new_disk(MIB, first.controllerKey, unit), "create")
    change(vm, "remove", added, "destroy")
    assert [one.key for one in disks(vm)] == [first.key]
    assert not [one for one in lab.control.inventory().vms[vm.name].files if "_1" in one]
    with pytest.raises(vim.fault.InvalidDeviceSpec):
        change(vm, "remove", added)


def test_a_disk_that_is_added_above_a_snapshot_isnt_a_part_of_it(si: Any, vm: Any, lab: Lab) -> None:
    below = snapshot(vm)
    (first,) = disks(vm)
    change(vm, "add", new_disk(2 * MIB, first.controllerKey), "create")
    above = snapshot(vm)
    assert [len(disks(one)) for one in (below, above)] == [1, 2]
    WaitForTask(below.RemoveSnapshot_Task(removeChildren=False))
    files = [one.backing.fileName for one in disks(above)]
    assert [one.backing.parent.fileName for one in disks(vm)] == files
    WaitForTask(above.RemoveSnapshot_Task(removeChildren=False))
    WaitForTask(vm.PowerOffVM_Task())
    assert [len(lab.control.digest(vm.name, index)) for index in range(2)] == [64, 64]


def test_each_change_of_a_disk_takes_its_own_privilege(connect: Any, vm: Any) -> None:
    mine = connect("snapper").content.searchIndex.FindByUuid(
        uuid=vm.config.instanceUuid, vmSearch=True, instanceUuid=True
    )
    (disk,) = disks(vm)
    for operation, privilege in (("add", "AddNewDisk"), ("edit", "DiskExtend"), ("remove", "RemoveDisk")):
        with pytest.raises(vim.fault.NoPermission) as refused:
            change(mine, operation, disk)
        assert refused.value.privilegeId == f"VirtualMachine.Config.{privilege}"
