"""What the vCenter user must be allowed to do, checked before anything is begun."""

from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.vsphere.models import SourceVm

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

REQUIRED_PRIVILEGES = {
    "System.View": "see the VM",
    "System.Read": "read its configuration",
    "VirtualMachine.State.CreateSnapshot": "freeze its disks for a round",
    "VirtualMachine.State.RemoveSnapshot": "let the snapshot go again",
    "VirtualMachine.Config.ChangeTracking": "switch change tracking on",
    "VirtualMachine.Config.DiskLease": "open its disks for reading",
    "VirtualMachine.Provisioning.DiskRandomRead": "ask for changed areas, and read its disks through the host",
    "VirtualMachine.Provisioning.GetVmFiles": "read its files through the host",
    "VirtualMachine.Interact.PowerOff": "shut the guest down at cutover",
    "VirtualMachine.Interact.PowerOn": "put it back in service when a cutover fails",
    "VirtualMachine.Config.EditDevice": "keep its network cards from connecting once it has moved",
    "VirtualMachine.Config.Rename": "mark it as migrated by its name",
    "VirtualMachine.Config.Annotation": "mark it as migrated in its notes",
}
"""Privilege and what it is needed for, all on the VM."""


def missing_privileges(session: "Session", vm: SourceVm) -> list[str]:
    """The required privileges that the user lacks on the VM, in the order of `REQUIRED_PRIVILEGES`."""
    bound = session.bind(vim.VirtualMachine, vm.moref)
    manager = session.content.authorizationManager

    session.keep_alive()  # so that the login whose key is sent is a live one

    def ask() -> Any:
        return manager.HasPrivilegeOnEntities([bound], session.key, list(REQUIRED_PRIVILEGES))

    answers = session.call(f"tell the privileges on {vm.name}", ask, repeatable=True)
    granted = {one.privId for answer in answers or () for one in answer.privAvailability or () if one.isGranted}
    return [name for name in REQUIRED_PRIVILEGES if name not in granted]
