"""The search index."""

from collections.abc import Iterator
from typing import Any

from pyVmomi import vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.inventory import children
from snapferry.lab.vcenter.store import Store


def find_path(store: Store, root: Any, path: str) -> Any | None:
    """The entity at an inventory path below `root`; names are compared as vCenter shows them (`%2f` for a slash)."""
    found = root
    for part in path.strip("/").split("/"):
        found = next((one for one in children(store, found) if store.get(one, "name") == part), None)
        if found is None:
            return None
    return found


@answers("FindByInventoryPath")
def _find_by_path(call: Call) -> Any:
    return find_path(call.vcenter.store, call.vcenter.root, call.arguments["inventoryPath"])


@answers("FindChild")
def _find_child(call: Call) -> Any:
    store = call.vcenter.store
    below = children(store, call.arguments["entity"])
    return next((one for one in below if store.get(one, "name") == call.arguments["name"]), None)


def _with_uuid(call: Call) -> Iterator[Any]:
    store, wanted = call.vcenter.store, call.arguments["uuid"].lower()
    if not call.arguments["vmSearch"]:
        hosts = store.every(vim.HostSystem)
        return (one for one in hosts if store.read(one, "summary.hardware.uuid").lower() == wanted)
    field = "config.instanceUuid" if call.get("instanceUuid", False) else "config.uuid"
    return (one for one in store.every(vim.VirtualMachine) if store.read(one, field).lower() == wanted)


@answers("FindByUuid")
def _find_by_uuid(call: Call) -> Any:
    return next(_with_uuid(call), None)


@answers("FindAllByUuid")
def _find_all_by_uuid(call: Call) -> Any:
    return vim.ManagedEntity.Array(list(_with_uuid(call)))


def _with_guest(call: Call, field: str, wanted: str) -> list[Any]:
    if not call.arguments["vmSearch"]:
        return []
    store = call.vcenter.store
    return [vm for vm in store.every(vim.VirtualMachine) if store.read(vm, field) == wanted]


@answers("FindByDnsName")
def _find_by_dns_name(call: Call) -> Any:
    return next(iter(_with_guest(call, "guest.hostName", call.arguments["dnsName"])), None)


@answers("FindAllByDnsName")
def _find_all_by_dns_name(call: Call) -> Any:
    return vim.ManagedEntity.Array(_with_guest(call, "guest.hostName", call.arguments["dnsName"]))


@answers("FindByIp")
def _find_by_ip(call: Call) -> Any:
    return next(iter(_with_guest(call, "guest.ipAddress", call.arguments["ip"])), None)


@answers("FindByDatastorePath")
def _find_by_datastore_path(call: Call) -> Any:
    store, wanted = call.vcenter.store, call.arguments["path"]
    vms = store.every(vim.VirtualMachine)
    return next((vm for vm in vms if store.read(vm, "config.files.vmPathName") == wanted), None)
