"""Change tracking: switched on so that it works, and asked to the end."""

from collections.abc import Callable

import pytest

from snapferry.errors import Refused
from snapferry.lab import Lab
from snapferry.seams import Changes
from snapferry.transfer.extents import Extents
from snapferry.vsphere import (
    ChangesUnknown,
    ChangeTracking,
    MissingPrivilege,
    Session,
    SourceVm,
    create_snapshot,
    disable_change_tracking,
    enable_change_tracking,
    parse_change_id,
    read_snapshot,
    read_vm,
    remove_snapshot,
)
from snapferry.vsphere.change_tracking import STUN_NAME

pytestmark = pytest.mark.slow
Find = Callable[[str], SourceVm]
OpenSession = Callable[..., Session]
BLOCK = 64 << 10


def calls(lab: Lab, method: str) -> int:
    return lab.control.counters().calls.get(method, 0)


def test_tracking_on_a_running_vm_works_at_once_and_leaves_no_snapshot(lab: Lab, session: Session, find: Find) -> None:
    vm = find("track")
    files = lab.control.inventory().vms[vm.name]
    assert vm.disks[0].change_id is None
    enable_change_tracking(session, vm)
    now = read_vm(session, vm.moref)
    assert now.change_tracking
    assert now.snapshots == ()
    assert parse_change_id(now.disks[0].change_id or "")
    made = create_snapshot(session, vm, "snapferry-track-r1", "")
    assert parse_change_id(made.disks[0].change_id or "")[0] == parse_change_id(now.disks[0].change_id or "")[0]
    assert ChangeTracking(session, vm.moref, made.moref, made.disks[0]).since(None)
    remove_snapshot(session, vm, made.moref)
    reconfigured = calls(lab, "ReconfigVM_Task")
    enable_change_tracking(session, now)
    assert calls(lab, "ReconfigVM_Task") == reconfigured
    disable_change_tracking(session, now)
    disable_change_tracking(session, now)
    assert calls(lab, "ReconfigVM_Task") == reconfigured + 1
    left = lab.control.inventory().vms[vm.name]
    assert left.change_tracking is files.change_tracking is False
    assert left.snapshots == files.snapshots == ()


def test_tracking_on_a_vm_that_is_off_needs_no_snapshot(lab: Lab, session: Session, find: Find) -> None:
    vm = find("track-off")
    made = calls(lab, "CreateSnapshot_Task")
    enable_change_tracking(session, vm)
    assert read_vm(session, vm.moref).change_tracking
    assert calls(lab, "CreateSnapshot_Task") == made


def test_tracking_whose_stun_was_cut_short_is_taken_up_again(session: Session, find: Find) -> None:
    vm = find("track-crashed")
    create_snapshot(session, vm, STUN_NAME, "left by a worker that was killed")
    enable_change_tracking(session, vm)
    now = read_vm(session, vm.moref)
    assert now.snapshots == ()
    assert now.disks[0].change_id


def test_tracking_isnt_switched_on_while_a_foreign_snapshot_is_there(session: Session, find: Find) -> None:
    vm = find("track-foreign")
    create_snapshot(session, vm, "nightly backup", "")
    with pytest.raises(Refused, match="nightly backup"):
        enable_change_tracking(session, vm)
    now = read_vm(session, vm.moref)
    assert not now.change_tracking
    assert [one.name for one in now.snapshots] == ["nightly backup"]


def test_a_vm_that_cant_be_tracked_is_refused(session: Session, find: Find) -> None:
    with pytest.raises(Refused, match="hardware version 4"):
        enable_change_tracking(session, find("track-old"))


def test_tracking_without_the_privilege_names_it(open_session: OpenSession, find: Find) -> None:
    with pytest.raises(MissingPrivilege) as caught:
        enable_change_tracking(open_session("reader@vsphere.local"), find("track-again"))
    assert caught.value.privilege == "VirtualMachine.Config.ChangeTracking"


def test_changes_are_asked_page_by_page_to_the_end_of_the_disk(lab: Lab, session: Session, find: Find) -> None:
    vm = find("scattered")
    capacity = vm.disks[0].capacity_bytes
    asked = calls(lab, "QueryChangedDiskAreas")
    first = create_snapshot(session, vm, "snapferry-scattered-r1", "")
    changes: Changes = ChangeTracking(session, vm.moref, first.moref, first.disks[0])
    everything = changes.since(None)
    pages = calls(lab, "QueryChangedDiskAreas") - asked
    # The lab puts the data in 150 runs over the whole disk, the last of them at its very end, 512 bytes past a block,
    # and answers in pages of 20 with an empty one now and then.
    assert len(everything) > 100
    assert pages > len(everything) / 20
    assert everything.end == capacity
    assert all(start % BLOCK == 0 for start, _ in everything)
    remove_snapshot(session, vm, first.moref)
    base = first.disks[0].change_id
    assert base is not None
    second = create_snapshot(session, vm, "snapferry-scattered-r2", "")
    changed = ChangeTracking(session, vm.moref, second.moref, second.disks[0]).since(base)
    assert 0 < changed.total_bytes < everything.total_bytes
    lab.control.set_fault("method", method="QueryChangedDiskAreas", fault="NotAuthenticated")
    assert ChangeTracking(session, vm.moref, second.moref, second.disks[0]).since(base) == changed
    remove_snapshot(session, vm, second.moref)


def test_a_vm_that_is_off_answers_without_a_snapshot(session: Session, find: Find) -> None:
    vm = find("changes-off")
    base = vm.disks[0].change_id
    assert base is not None
    assert ChangeTracking(session, vm.moref, None, vm.disks[0]).since(base) == Extents.empty()
    assert ChangeTracking(session, vm.moref, None, vm.disks[0]).since(None)


def test_a_leaf_that_is_still_locked_after_power_off_is_asked_again(lab: Lab, session: Session, find: Find) -> None:
    vm = find("changes-off")
    lab.control.set_fault("method", method="QueryChangedDiskAreas", fault="FileLocked")
    assert ChangeTracking(session, vm.moref, None, vm.disks[0]).since(None)


def test_a_base_of_another_tracking_is_unknown_and_not_empty(session: Session, find: Find) -> None:
    vm = find("changes-off")
    foreign = "00 11 22 33 44 55 66 77-88 99 aa bb cc dd ee ff/1"
    with pytest.raises(ChangesUnknown, match="Hard disk 1"):
        ChangeTracking(session, vm.moref, None, vm.disks[0]).since(foreign)


@pytest.mark.parametrize("fault", ["FileFault", "InvalidArgument", "NotFound", "SystemError"])
def test_what_a_host_cant_tell_is_unknown(lab: Lab, session: Session, find: Find, fault: str) -> None:
    vm = find("changes-off")
    lab.control.set_fault("method", method="QueryChangedDiskAreas", fault=fault, message="it was said so")
    with pytest.raises(ChangesUnknown, match="it was said so"):
        ChangeTracking(session, vm.moref, None, vm.disks[0]).since(None)


def test_a_disk_that_the_vm_doesnt_have_is_unknown(session: Session, find: Find) -> None:
    vm = find("changes-off")
    other = vm.disks[0].model_copy(update={"key": 2099})
    with pytest.raises(ChangesUnknown, match="deviceKey"):
        ChangeTracking(session, vm.moref, None, other).since(None)


def test_a_snapshot_has_its_own_change_ids(session: Session, find: Find) -> None:
    vm = find("scattered")
    made = create_snapshot(session, vm, "snapferry-ids-r1", "")
    assert read_snapshot(session, made.moref).disks[0].change_id == made.disks[0].change_id is not None
    remove_snapshot(session, vm, made.moref)
