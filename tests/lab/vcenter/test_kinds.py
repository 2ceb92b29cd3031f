"""Disks on every kind of datastore, as vCenter tells of them."""

from typing import Any

from pyVim.task import WaitForTask
from pyVmomi import vim

from snapferry.lab.kinds import KINDS
from snapferry.vsphere.hardware import datastore_kind


def disks(vm: Any) -> list[Any]:
    return [one for one in vm.config.hardware.device if isinstance(one, vim.vm.device.VirtualDisk)]


def test_each_kind_of_datastore_holds_its_disk_in_its_formats(si: Any) -> None:
    vm = si.content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/kinds")
    stores = [disk.backing.datastore for disk in disks(vm)]
    assert [datastore_kind(one.summary, one.info) for one in stores] == [one.name for one in stores] == list(KINDS)
    assert [disk.backing.fileName for disk in disks(vm)] == [
        f"[{kind}] kinds/kinds{f'_{number}' if number else ''}.vmdk" for number, kind in enumerate(KINDS)
    ]
    assert {one.name for one in vm.datastore} == {"san1", *KINDS}
    WaitForTask(vm.CreateSnapshot_Task(name="formats", memory=False, quiesce=False))
    formats = [disk.backing.deltaDiskFormat for disk in disks(vm)]
    assert formats == ["seSparseFormat", "redoLogFormat", "redoLogFormat", "redoLogFormat"]
    deltas = {one.name for one in vm.layoutEx.file if one.type == "diskExtent" and "-000001-" in one.name}
    assert deltas == {
        "[vmfs6] kinds/kinds-000001-sesparse.vmdk",
        "[vmfs5] kinds/kinds_1-000001-delta.vmdk",
        "[nfs] kinds/kinds_2-000001-delta.vmdk",
    }
    WaitForTask(vm.snapshot.currentSnapshot.RemoveSnapshot_Task(removeChildren=False))
