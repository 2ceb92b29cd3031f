"""From what pyVmomi raises to errors that say what went wrong and what to do."""

from collections.abc import Callable
from typing import Any

from pyVmomi import vim, vmodl

from snapferry.errors import Refused, SnapferryError, SourceError
from snapferry.vsphere.errors import (
    MissingPrivilege,
    OtherTaskRuns,
    ShutdownRefused,
    SnapshotGone,
    Unreachable,
    VmGone,
    WrongPassword,
)

ADVICE: tuple[tuple[Any, type[SnapferryError] | None, str], ...] = (
    (
        vim.fault.TaskInProgress,
        OtherTaskRuns,
        "Look at the VM's recent tasks in vCenter; try again once they have ended.",
    ),
    (
        vim.fault.NoDiskSpace,
        None,
        "Make room on the VM's datastore, then try again.",
    ),
    (
        vim.fault.ToolsUnavailable,
        ShutdownRefused,
        "Start VMware Tools in the guest, shut the guest down yourself, or let the plan say `power-off`.",
    ),
    (vim.fault.DuplicateName, Refused, "Choose another name, or rename what has it now."),
    (vim.fault.FileLocked, None, "Somebody holds the disk's file, often a backup; try again when it is done."),
    (vim.fault.InsufficientResourcesFault, None, "Free resources in the cluster, then try again."),
    (vmodl.fault.HostNotConnected, Unreachable, "See in vCenter why the host isn't connected."),
    (vmodl.fault.HostCommunication, Unreachable, "See in vCenter why the host isn't reached."),
    (vim.fault.InvalidPowerState, None, "Look at the VM's power state in vCenter."),
    (vim.fault.InvalidState, None, "Look at the VM's state and its recent tasks in vCenter."),
)
"""Fault, the error that it becomes (None: what the caller says), and what the operator can do; first match wins."""


def named(
    what: str, fault: Any, name_of: Callable[[Any], str], default: type[SourceError] = SourceError
) -> SnapferryError:
    """The error for a vSphere fault.

    Args:
        what: what was to be done, `create the snapshot …`.
        fault: the `vmodl.MethodFault`.
        name_of: gives the name of a managed object, or its moref.
        default: class for faults that have no name of their own.
    """
    failed = f"vCenter couldn't {what}"
    if isinstance(fault, vim.fault.InvalidLogin):
        return WrongPassword(
            "vCenter refused the user name or the password.",
            "Check both; the user is written with its domain, such as svc-snapferry@vsphere.local.",
        )
    if isinstance(fault, vim.fault.NotAuthenticated):
        return SourceError(f"{failed}: the session ended and a new login didn't help.", "Try again.")
    if isinstance(fault, vim.fault.NoPermission):
        return _missing_privilege(failed, fault, name_of)
    if isinstance(fault, vmodl.fault.ManagedObjectNotFound):
        return _gone(failed, fault)
    for kind, error, next_step in ADVICE:
        if isinstance(fault, kind):
            return (error or default)(f"{failed}: {text(fault)}", next_step)
    return default(f"{failed}: {text(fault)}", "See the task and its events in vCenter.")


def text(fault: Any) -> str:
    """What the fault says, as one sentence with its type."""
    parts = [fault.msg] if fault.msg else []
    parts += [message.message for message in fault.faultMessage or () if message.message]
    if isinstance(fault, vmodl.fault.InvalidArgument) and fault.invalidProperty:
        parts.append(f"argument {fault.invalidProperty}")
    said = " ".join(dict.fromkeys(part.strip().rstrip(".") + "." for part in parts))
    kind = type(fault).__name__.rpartition(".")[2]
    return f"{said} ({kind})" if said else f"{kind}."


def _missing_privilege(failed: str, fault: Any, name_of: Callable[[Any], str]) -> MissingPrivilege:
    entity = name_of(fault.object) if fault.object else "an object that it doesn't name"
    privilege = fault.privilegeId or ""
    for one in fault.missingPrivileges or ():
        entity = name_of(one.entity)
        privilege = ", ".join(one.privilegeIds or ()) or privilege
    return MissingPrivilege(
        f"{failed}: the user lacks the privilege {privilege or '(unnamed)'} on {entity}.",
        "Add it to the user's role, on the VM's folder or above, with propagation.",
        privilege=privilege,
        entity=entity,
    )


def _gone(failed: str, fault: Any) -> SnapferryError:
    moref = fault.obj._moId if fault.obj else "an object"
    if isinstance(fault.obj, vim.VirtualMachine):
        return VmGone(f"{failed}: the VM {moref} is no longer in the inventory.", "See in vCenter what became of it.")
    if isinstance(fault.obj, vim.vm.Snapshot):
        return SnapshotGone(f"{failed}: the snapshot {moref} is no longer there.", "Somebody removed or merged it.")
    return SourceError(f"{failed}: {moref} is no longer there.", "Try again.")
