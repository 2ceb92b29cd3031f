"""Snapshots: made once, known as ours, and gone with their files."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from snapferry.errors import Refused
from snapferry.lab import Lab
from snapferry.vsphere import (
    Session,
    SnapshotExists,
    SnapshotGone,
    SourceVm,
    TaskFailed,
    create_snapshot,
    our_snapshots,
    read_snapshot,
    read_vm,
    remove_snapshot,
    snapshot_name,
)

pytestmark = pytest.mark.slow
Find = Callable[[str], SourceVm]


def test_a_snapshot_is_named_for_its_migration_and_round() -> None:
    assert snapshot_name("k3x9", 2) == "snapferry-k3x9-r2"


def test_a_snapshot_is_made_read_and_let_go(lab: Lab, session: Session, find: Find) -> None:
    vm = find("snap")
    before = lab.control.inventory().vms["snap"]
    made = create_snapshot(session, vm, snapshot_name("k3x9", 1), "round 1")
    assert (made.name, made.description, made.parent) == ("snapferry-k3x9-r1", "round 1", None)
    assert [disk.file_name for disk in made.disks] == ["[san1] snap/snap.vmdk"]
    assert [disk.datastore for disk in made.disks] == ["san1"]
    now = read_vm(session, vm.moref)
    assert now.disks[0].file_name != "[san1] snap/snap.vmdk"
    assert now.disks[0].backing_uuid == made.disks[0].backing_uuid
    assert read_snapshot(session, made.moref) == made
    assert our_snapshots(now) == our_snapshots(now, "k3x9") == now.snapshots
    assert our_snapshots(now, "k3x") == our_snapshots(now, "other") == ()
    with pytest.raises(SnapshotExists) as caught:
        create_snapshot(session, vm, snapshot_name("k3x9", 1), "")
    assert caught.value.moref == made.moref
    remove_snapshot(session, vm, made.moref)
    remove_snapshot(session, vm, made.moref)
    with pytest.raises(SnapshotGone):
        read_snapshot(session, made.moref)
    assert lab.control.inventory().vms["snap"] == before


def test_a_foreign_snapshot_is_neither_ours_nor_removed(session: Session, find: Find) -> None:
    vm = find("snap-foreign")
    foreign = create_snapshot(session, vm, "before the update", "")
    now = read_vm(session, vm.moref)
    assert our_snapshots(now) == ()
    with pytest.raises(Refused, match="isn't ours"):
        remove_snapshot(session, vm, foreign.moref)
    assert read_vm(session, vm.moref).snapshots == now.snapshots


def test_another_task_on_the_vm_is_waited_for(lab: Lab, session: Session, find: Find) -> None:
    vm = find("snap-busy")
    lab.control.set_fault("slow_task", method="CreateSnapshot_Task", vm=vm.name, seconds=1)
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(create_snapshot, session, vm, f"snapferry-busy-r{number}", "") for number in (1, 2)]
        made = [task.result(30) for task in tasks]
    assert {one.moref for one in read_vm(session, vm.moref).snapshots} == {one.moref for one in made}
    for one in made:
        remove_snapshot(session, vm, one.moref)
    assert read_vm(session, vm.moref).snapshots == ()


def test_files_that_stay_behind_a_removal_are_merged_by_a_second_request(
    lab: Lab, session: Session, find: Find
) -> None:
    vm = find("snap-stays")
    before = lab.control.inventory().vms[vm.name]
    made = create_snapshot(session, vm, "snapferry-stays-r1", "")
    lab.control.set_fault("consolidation", vm=vm.name)
    remove_snapshot(session, vm, made.moref)
    assert lab.control.inventory().vms[vm.name] == before


def test_a_task_that_fails_says_why(lab: Lab, session: Session, find: Find) -> None:
    vm = find("snap")
    message = "There is not enough space on the file system"
    lab.control.set_fault("task", method="CreateSnapshot_Task", vm=vm.name, fault="NoDiskSpace", message=message)
    with pytest.raises(TaskFailed) as caught:
        create_snapshot(session, vm, "snapferry-full-r1", "")
    assert message in caught.value.cause
    assert "datastore" in caught.value.next_step
