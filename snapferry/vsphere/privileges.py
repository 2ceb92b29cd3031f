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

ROUTE_PRIVILEGES = {"datastore": ("Datastore.Browse", "Datastore.FileManagement"), "export": ("VApp.Export",)}
"""What single routes to a disk's bytes need beside: `datastore` on the VM's datastores, `export` on the VM."""


def missing_privileges(session: "Session", vm: SourceVm) -> list[str]:
    """The required privileges that the user lacks on the VM, in the order of `REQUIRED_PRIVILEGES`."""
    return _missing(session, vm, [session.bind(vim.VirtualMachine, vm.moref)], tuple(REQUIRED_PRIVILEGES))


def closed_routes(session: "Session", vm: SourceVm) -> dict[str, list[str]]:
    """The routes that the user can't take to the VM's disks, and the privileges that are missing for each."""
    bound = session.bind(vim.VirtualMachine, vm.moref)
    datastores = session.call(f"list the datastores of {vm.name}", lambda: list(bound.datastore), repeatable=True)
    entities = {"datastore": datastores, "export": [bound]}
    missing = {route: _missing(session, vm, entities[route], names) for route, names in ROUTE_PRIVILEGES.items()}
    return {route: names for route, names in missing.items() if names}


def _missing(session: "Session", vm: SourceVm, entities: list[Any], privileges: tuple[str, ...]) -> list[str]:
    """Those that the user lacks on at least one of the entities."""
    manager = session.content.authorizationManager
    session.keep_alive()  # so that the login whose key is sent is a live one

    def ask() -> Any:
        return manager.HasPrivilegeOnEntities(entities, session.key, list(privileges))

    answers = session.call(f"tell the privileges on {vm.name}", ask, repeatable=True) or ()
    granted = [{one.privId for one in answer.privAvailability or () if one.isGranted} for answer in answers]
    return [name for name in privileges if len(granted) < len(entities) or not all(name in one for one in granted)]
