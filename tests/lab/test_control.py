"""The lab's own control interface."""

from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

from snapferry.lab import Lab, LabFailed
from snapferry.lab.digest import file_extents_digest


def test_what_leaves_no_trace_leaves_the_inventory_equal(vm: Any, lab: Lab) -> None:
    before = lab.control.inventory()
    task = vm.CreateSnapshot_Task("s", "", False, False)
    WaitForTask(task)
    during = lab.control.inventory()
    assert during.vms[vm.name].snapshots == ("s",)
    assert set(during.vms[vm.name].files) > set(before.vms[vm.name].files)
    WaitForTask(task.info.result.RemoveSnapshot_Task(False))
    assert lab.control.inventory() == before
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")))
    assert lab.control.inventory() != before


def test_digests_are_of_the_snapshot_or_of_a_vm_that_is_off(vm: Any, lab: Lab) -> None:
    name = vm.name
    with pytest.raises(LabFailed, match="running"):
        lab.control.digest(name, 0)
    WaitForTask(vm.CreateSnapshot_Task("s", "", False, False))
    frozen = lab.control.digest(name, 0, "s")
    assert lab.control.digest(name, 0, vm.snapshot.currentSnapshot._moId) == frozen
    lab.control.power_off(name)
    written = lab.control.last_sequence(name)
    log = (lab.folder / "datastores" / "san1" / name / "vmware.log").read_text()
    assert f"last write of the guest: {written}" in log
    assert lab.control.digest(name, 0, "s") == frozen
    WaitForTask(vm.RemoveAllSnapshots_Task())
    (flat,) = (lab.folder / "datastores" / "san1" / name).glob("*-flat.vmdk")
    assert lab.control.extents_digest(name, 0) == file_extents_digest(flat)


def test_what_is_not_there_is_named(lab: Lab) -> None:
    with pytest.raises(LabFailed, match="web99"):
        lab.control.power("web99")
    with pytest.raises(LabFailed, match="snap"):
        lab.control.digest("web01", 0, "snap")
    with pytest.raises(LabFailed, match="web99"):
        lab.control.last_sequence("web99")
    with pytest.raises(LabFailed):
        lab.control.digest("web01", 9, None)


def test_calls_and_sessions_are_counted(si: Any, lab: Lab) -> None:
    before = lab.control.counters()
    assert before.sessions >= 1
    for _ in range(3):
        si.CurrentTime()
    assert lab.control.counters().calls["CurrentTime"] == before.calls.get("CurrentTime", 0) + 3


def test_faults_reach_the_hosts_and_the_target(lab: Lab) -> None:
    for name, arguments in (("nfc_allocation", {"times": 2}), ("one_slow", {"seconds": 0})):
        lab.control.set_fault(name, **arguments)
    for name in ("nfc_earthquake", "one_earthquake"):
        with pytest.raises(LabFailed, match="earthquake"):
            lab.control.set_fault(name)
    lab.control.clear_faults()
