"""Snapshots and change queries."""

import time
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from snapferry.lab import Lab

MIB = 1 << 20
GRAIN = 64 << 10


def disks(config: Any) -> list[Any]:
    return [one for one in config.hardware.device if isinstance(one, vim.vm.device.VirtualDisk)]


def take(vm: Any, name: str, **how: bool) -> Any:
    task = vm.CreateSnapshot_Task(name, "by a test", how.get("memory", False), how.get("quiesce", False))
    WaitForTask(task)
    return task.info.result


def track(vm: Any) -> None:
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))


def query(vm: Any, snapshot: Any, key: int, change_id: str, capacity: int) -> tuple[list[tuple[int, int]], int]:
    """All changed areas, and how many of the pages were empty."""
    offset, areas, empty = 0, [], 0
    while offset < capacity:
        page = vm.QueryChangedDiskAreas(snapshot, key, offset, change_id)
        assert page.startOffset == offset
        assert page.length > 0
        areas += [(one.start, one.length) for one in page.changedArea]
        empty += not page.changedArea
        offset = page.startOffset + page.length
    assert offset == capacity
    return areas, empty


def test_a_snapshot_freezes_the_disks_and_the_vm_goes_on_in_new_files(vm: Any) -> None:
    before = disks(vm.config)[0].backing
    snapshot = take(vm, "one")
    frozen, leaf = disks(snapshot.config)[0].backing, disks(vm.config)[0].backing
    assert frozen.fileName == before.fileName == leaf.parent.fileName
    assert leaf.fileName == before.fileName.replace(".vmdk", "-000001.vmdk")
    assert leaf.uuid == before.uuid
    files = {one.name: one for one in vm.layoutEx.file}
    assert files[leaf.fileName].type == "diskDescriptor"
    assert files[leaf.fileName.replace(".vmdk", "-sesparse.vmdk")].type == "diskExtent"
    tree = vm.snapshot.rootSnapshotList[0]
    assert (tree.name, tree.description, tree.snapshot, tree.vm) == ("one", "by a test", snapshot, vm)
    assert vm.snapshot.currentSnapshot == snapshot
    WaitForTask(snapshot.RemoveSnapshot_Task(False))
    assert vm.snapshot is None
    assert disks(vm.config)[0].backing.fileName == before.fileName
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        snapshot.config  # noqa: B018 (reading it is a call)


def test_removing_the_middle_of_a_chain_leaves_the_others_as_they_were(vm: Any, lab: Lab) -> None:
    first, second, third = take(vm, "first"), take(vm, "second"), take(vm, "third")
    digests = {name: lab.control.digest(vm.name, 0, name) for name in ("first", "third")}
    WaitForTask(second.RemoveSnapshot_Task(False, True))
    assert vm.rootSnapshot == [first]
    assert first.childSnapshot == [third]
    assert third.childSnapshot == []
    names = [disks(one.config)[0].backing.fileName for one in (first, third)]
    leaf = disks(vm.config)[0].backing
    assert [leaf.parent.fileName, leaf.parent.parent.fileName] == names[::-1]
    assert {name: lab.control.digest(vm.name, 0, name) for name in digests} == digests
    WaitForTask(vm.RemoveAllSnapshots_Task())
    assert vm.snapshot is None
    assert not lab.control.inventory().vms[vm.name].snapshots


def test_removing_with_children_takes_the_whole_branch(vm: Any) -> None:
    take(vm, "first")
    second = take(vm, "second")
    take(vm, "third")
    WaitForTask(second.RemoveSnapshot_Task(True))
    assert [one.name for one in vm.snapshot.rootSnapshotList] == ["first"]
    assert not vm.snapshot.rootSnapshotList[0].childSnapshotList


def test_tracking_of_a_running_vm_begins_at_the_next_stun(vm: Any) -> None:
    track(vm)
    assert vm.config.changeTrackingEnabled
    assert disks(vm.config)[0].backing.changeId is None
    snapshot = take(vm, "stun")
    assert disks(snapshot.config)[0].backing.changeId is not None


def test_a_change_query_is_paged_to_the_end(web01: Any) -> None:
    snapshot = take(web01, "pages")
    try:
        disk = disks(snapshot.config)[0]
        areas, _ = query(web01, snapshot, disk.key, "*", disk.capacityInBytes)
        assert len(areas) > 4  # more than a page of this lab
        assert all(start % GRAIN == 0 for start, _ in areas)
        assert areas[-1][0] + areas[-1][1] == disk.capacityInBytes  # the end isn't a whole grain
        assert sum(length for _, length in areas) >= MIB
    finally:
        WaitForTask(snapshot.RemoveSnapshot_Task(False))


def test_a_change_query_names_what_was_written_since(vm: Any, lab: Lab) -> None:
    track(vm)
    first = take(vm, "first")
    base = disks(first.config)[0]
    WaitForTask(first.RemoveSnapshot_Task(False))

    def changed() -> list[tuple[int, int]]:
        snapshot = take(vm, "now")
        areas, _ = query(vm, snapshot, base.key, base.backing.changeId, base.capacityInBytes)
        WaitForTask(snapshot.RemoveSnapshot_Task(False))
        return areas

    deadline = time.monotonic() + 20
    while not (running := changed()):
        assert time.monotonic() < deadline
    lab.control.power_off(vm.name)
    assert lab.control.last_sequence(vm.name) > 0
    final, _ = query(vm, None, base.key, base.backing.changeId, base.capacityInBytes)
    grains = {grain for start, length in final for grain in range(start // GRAIN, (start + length) // GRAIN)}
    assert {start // GRAIN for start, _ in running} <= grains


@pytest.mark.parametrize(
    ("key", "start", "change_id", "fault"),
    [
        (2009, 0, "*", "deviceKey"),
        (2000, 4 * MIB + 512, "*", "startOffset"),
        (2000, 0, "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81", "FileFault"),
    ],
)
def test_a_wrong_change_query_is_refused(web01: Any, key: int, start: int, change_id: str, fault: str) -> None:
    snapshot = take(web01, "wrong")
    try:
        with pytest.raises((vmodl.fault.InvalidArgument, vim.fault.FileFault)) as caught:
            web01.QueryChangedDiskAreas(snapshot, key, start, change_id)
        assert (getattr(caught.value, "invalidProperty", None) or "FileFault") == fault
    finally:
        WaitForTask(snapshot.RemoveSnapshot_Task(False))


def test_only_one_task_works_on_a_vm(vm: Any, lab: Lab) -> None:
    lab.control.set_fault("slow_task", method="CreateSnapshot_Task", vm=vm.name, seconds=1)
    slow = vm.CreateSnapshot_Task("slow", "", False, False)
    other = vm.CreateSnapshot_Task("other", "", False, False)
    with pytest.raises(vim.fault.TaskInProgress) as caught:
        WaitForTask(other)
    assert caught.value.task == slow
    assert "Another task is already in progress" in caught.value.msg
    WaitForTask(slow)
    assert [one.name for one in vm.snapshot.rootSnapshotList] == ["slow"]


def test_a_removal_can_leave_a_consolidation_behind(vm: Any, lab: Lab) -> None:
    base = disks(vm.config)[0].backing.fileName
    snapshot = take(vm, "left")
    lab.control.set_fault("consolidation", vm=vm.name)
    WaitForTask(snapshot.RemoveSnapshot_Task(False))
    assert vm.runtime.consolidationNeeded
    assert vm.snapshot is None
    assert disks(vm.config)[0].backing.fileName != base
    later = take(vm, "later")
    WaitForTask(vm.ConsolidateVMDisks_Task())
    assert not vm.runtime.consolidationNeeded
    assert disks(later.config)[0].backing.fileName == base
    WaitForTask(later.RemoveSnapshot_Task(False))
    assert disks(vm.config)[0].backing.fileName == base


def test_tracking_can_be_reset_behind_our_back(vm: Any, lab: Lab) -> None:
    track(vm)
    first = take(vm, "first")
    old = disks(first.config)[0].backing.changeId
    WaitForTask(first.RemoveSnapshot_Task(False))
    lab.control.set_fault("reset_change_tracking", vm=vm.name)
    second = take(vm, "second")
    new = disks(second.config)[0].backing.changeId
    assert new.split("/")[0] != old.split("/")[0]
    with pytest.raises(vim.fault.FileFault):
        vm.QueryChangedDiskAreas(second, 2000, 0, old)


def test_a_guest_without_tools_is_not_quiesced(si: Any) -> None:
    mute = si.content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/mute")
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        take(mute, "quiet", quiesce=True)
    assert mute.snapshot is None
