"""Faults on demand."""

import http.client
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from snapferry.lab import Lab, LabFailed


def test_a_call_fails_as_often_as_told(si: Any, lab: Lab) -> None:
    lab.control.set_fault("method", method="CurrentTime", fault="HostCommunication", message="no way", times=2)
    for _ in range(2):
        with pytest.raises(vmodl.fault.HostCommunication) as caught:
            si.CurrentTime()
        assert caught.value.msg == "no way"
    assert si.CurrentTime()


def test_a_task_fails_as_told(vm: Any, lab: Lab) -> None:
    lab.control.set_fault("task", method="CreateSnapshot_Task", vm=vm.name, fault="SnapshotFault")
    with pytest.raises(vim.fault.SnapshotFault):
        WaitForTask(vm.CreateSnapshot_Task("s", "", False, False))
    WaitForTask(vm.CreateSnapshot_Task("s", "", False, False))


@pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
def test_a_dropped_connection_leaves_the_call_undone_or_done(
    connect: Any, vm: Any, lab: Lab, when: str, done: int
) -> None:
    stub = connect()._stub
    mine = vim.VirtualMachine(vm._moId, stub)
    lab.control.set_fault("drop", method="CreateSnapshot_Task", when=when)
    with pytest.raises((http.client.HTTPException, OSError)):
        mine.CreateSnapshot_Task("s", "", False, False)
    for task in vm.recentTask:
        WaitForTask(task)
    assert len(lab.control.inventory().vms[vm.name].snapshots) == done


def test_an_unknown_fault_is_refused(lab: Lab) -> None:
    with pytest.raises(LabFailed):
        lab.control.set_fault("earthquake")
