"""Faults of vSphere become errors that say what went wrong and what to do."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from snapferry.errors import Refused, SourceError
from snapferry.vsphere import (
    MissingPrivilege,
    OtherTaskRuns,
    ShutdownRefused,
    SnapshotGone,
    TaskFailed,
    Unreachable,
    VmGone,
    WrongPassword,
)
from snapferry.vsphere.faults import named

VM, SNAPSHOT, TASK = vim.VirtualMachine("vm-1"), vim.vm.Snapshot("snapshot-1"), vim.Task("task-1")


def name_of(thing: Any) -> str:
    return f"web01 ({thing._moId})"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (vim.fault.InvalidLogin(), WrongPassword),
        (vim.fault.NoPermission(object=VM, privilegeId="VirtualMachine.State.CreateSnapshot"), MissingPrivilege),
        (vmodl.fault.ManagedObjectNotFound(obj=VM), VmGone),
        (vmodl.fault.ManagedObjectNotFound(obj=SNAPSHOT), SnapshotGone),
        (vim.fault.TaskInProgress(task=TASK), OtherTaskRuns),
        (vim.fault.ToolsUnavailable(), ShutdownRefused),
        (vim.fault.DuplicateName(name="web01", object=VM), Refused),
        (vmodl.fault.HostNotConnected(), Unreachable),
        (vim.fault.NotAuthenticated(object=VM, privilegeId="System.View"), SourceError),
        (vim.fault.FileFault(file="[san1] web01/web01.vmdk"), TaskFailed),
        (vmodl.fault.SystemError(reason="boom"), TaskFailed),
    ],
)
def test_every_fault_has_a_name_a_cause_and_a_next_step(fault: Any, kind: type[Exception]) -> None:
    error = named("freeze web01", fault, name_of, TaskFailed)
    assert type(error) is kind
    assert error.cause
    assert error.next_step


def test_a_missing_privilege_names_itself_and_its_object() -> None:
    fault = vim.fault.NoPermission(object=VM, privilegeId="VirtualMachine.State.CreateSnapshot")
    error = named("freeze web01", fault, name_of)
    assert isinstance(error, MissingPrivilege)
    assert (error.privilege, error.entity) == ("VirtualMachine.State.CreateSnapshot", "web01 (vm-1)")
    assert "couldn't freeze web01" in str(error)
    assert "VirtualMachine.State.CreateSnapshot on web01 (vm-1)" in str(error)


def test_every_one_of_several_missing_privileges_is_named() -> None:
    lacks = vim.fault.NoPermission.EntityPrivileges(entity=VM, privilegeIds=["A.B", "C.D"])
    error = named("freeze web01", vim.fault.NoPermission(missingPrivileges=[lacks]), name_of)
    assert "A.B, C.D on web01 (vm-1)" in str(error)


def test_what_vcenter_said_stands_in_the_error() -> None:
    fault = vmodl.fault.InvalidArgument(invalidProperty="deviceKey", msg="A specified parameter was not correct")
    error = named("tell what changed", fault, name_of)
    assert str(error).startswith(
        "vCenter couldn't tell what changed: A specified parameter was not correct. argument deviceKey. "
        "(InvalidArgument)"
    )
