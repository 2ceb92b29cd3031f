"""What other people do to a VM: at once, or right before a call that is named."""

import time
from collections.abc import Callable
from typing import Any

from pyVim.task import WaitForTask
from pyVmomi import vim

from snapferry.lab import Lab


def snapshots(lab: Lab, vm: Any) -> tuple[str, ...]:
    return lab.control.inventory().vms[vm.name].snapshots


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def disks(vm: Any) -> list[Any]:
    return [one for one in vm.config.hardware.device if isinstance(one, vim.vm.device.VirtualDisk)]


def sequences(vm: Any) -> list[int]:
    return [int(disk.backing.changeId.rpartition("/")[2]) for disk in disks(vm)]


def take(vm: Any, name: str = "s") -> Any:
    task = vm.CreateSnapshot_Task(name, "", False, False)
    WaitForTask(task)
    return task.info.result


def track(vm: Any) -> None:
    """Switches change tracking on; a running VM's takes effect at the next stun."""
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    WaitForTask(take(vm).RemoveSnapshot_Task(False))


def test_a_backup_job_takes_its_snapshot_and_removes_it_again(vm: Any, lab: Lab) -> None:
    lab.control.set_fault("backup_snapshot", vm=vm.name, seconds=0.3)
    assert snapshots(lab, vm) == ("nightly backup",)
    eventually(lambda: snapshots(lab, vm) == (), "the backup job ends")


def test_an_act_waits_for_its_call_and_lets_as_many_pass_as_told(si: Any, vm: Any, lab: Lab) -> None:
    lab.control.set_fault("backup_snapshot", vm=vm.name, seconds=60, method="CurrentTime", skip=1)
    si.CurrentTime()
    assert snapshots(lab, vm) == ()
    si.CurrentTime()
    assert snapshots(lab, vm) == ("nightly backup",)


def test_a_revert_takes_content_and_change_tracking_back(vm: Any, lab: Lab) -> None:
    track(vm)
    lab.control.set_fault("backup_snapshot", vm=vm.name, seconds=60)
    was, at = lab.control.digest(vm.name, 0, "nightly backup"), sequences(vm)
    written = lab.control.last_sequence(vm.name)
    WaitForTask(take(vm, "later").RemoveSnapshot_Task(False))
    # a single write may be zeros over zeros, which change nothing
    eventually(lambda: lab.control.last_sequence(vm.name) > written + 8, "the guest writes")
    assert sequences(vm) > at
    lab.control.power_off(vm.name)
    assert lab.control.digest(vm.name, 0) != was
    lab.control.set_fault("revert", vm=vm.name)
    assert (lab.control.digest(vm.name, 0), sequences(vm), snapshots(lab, vm)) == (was, at, ())


def test_a_storage_vmotion_renames_the_files_and_changes_no_byte(vm: Any, lab: Lab) -> None:
    snapshot = take(vm)
    was, uuids = lab.control.digest(vm.name, 0, "s"), [disk.backing.uuid for disk in disks(vm)]
    lab.control.set_fault("storage_vmotion", vm=vm.name, stem="moved")
    assert lab.control.digest(vm.name, 0, "s") == was
    assert [disk.backing.uuid for disk in disks(vm)] == uuids
    frozen = [one for one in snapshot.config.hardware.device if isinstance(one, vim.vm.device.VirtualDisk)]
    assert [one.backing.fileName for one in frozen] == [f"[san1] {vm.name}/moved.vmdk"]
    WaitForTask(snapshot.RemoveSnapshot_Task(False))
    assert [disk.backing.fileName for disk in disks(vm)] == [f"[san1] {vm.name}/moved.vmdk"]
    assert not [name for name in lab.control.inventory().vms[vm.name].files if name.startswith(f"{vm.name}.vmdk")]


def test_ha_powers_on_what_is_off(vm: Any, lab: Lab) -> None:
    lab.control.set_fault("power_off", vm=vm.name)
    assert vm.runtime.powerState == "poweredOff"
    for _ in range(2):
        lab.control.set_fault("ha_power_on", vm=vm.name)
        assert vm.runtime.powerState == "poweredOn"


def test_what_the_guest_gives_back_has_changed_and_is_no_longer_allocated(vm: Any, lab: Lab) -> None:
    track(vm)
    (disk,) = disks(vm)

    def areas(change_id: str) -> int:
        snapshot = take(vm)
        found = vm.QueryChangedDiskAreas(snapshot, disk.key, 0, change_id).changedArea
        WaitForTask(snapshot.RemoveSnapshot_Task(False))
        return sum(one.length for one in found)

    allocated = areas("*")
    lab.control.set_fault("guest_unmaps", vm=vm.name, share=1)
    assert areas("*") < allocated
    assert areas(disk.backing.changeId) > 0


def test_a_disk_is_told_otherwise_of_gone_and_back(vm: Any, lab: Lab) -> None:
    (disk,) = disks(vm)
    lab.control.set_fault("edit_disk", vm=vm.name, key=disk.key, capacity_bytes=8 << 20)
    assert [one.capacityInBytes for one in disks(vm)] == [8 << 20]
    lab.control.set_fault("edit_disk", vm=vm.name, key=disk.key, there=False)
    assert disks(vm) == []
    lab.control.set_fault("edit_disk", vm=vm.name, key=disk.key, uuid="6000C29a-0")
    assert [one.backing.uuid for one in disks(vm)] == ["6000C29a-0"]
