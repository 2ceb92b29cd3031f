"""Finding VMs and reading them in bulk."""

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pyVmomi import vim

from snapferry.errors import PlanError
from snapferry.vsphere import hardware
from snapferry.vsphere.errors import InventoryIncomplete
from snapferry.vsphere.hardware import Names
from snapferry.vsphere.models import PowerState, SourceVm
from snapferry.vsphere.properties import Found, read_inventory, read_objects, read_with_ancestors

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

VM_PATHS = (
    "config", "guest.disk", "guest.hostName", "guest.net", "guest.toolsRunningStatus", "guest.toolsVersionStatus2",
    "runtime", "capability.changeTrackingSupported", "snapshot", "datastore", "network",
)  # fmt: skip
TREE_PATHS = ("name", "parent")
TREE = {vim.Folder: TREE_PATHS, vim.Datacenter: TREE_PATHS, vim.VirtualApp: ("name", "parentFolder")}
"""What a VM can stand in below the root folder."""
DATASTORE_PATHS = ("name", "summary", "info")
NETWORK_PATHS = ("name",)
HOST_PATHS = ("name", "summary.config.product")
NEAR_NAMES = 5


def find_vm(session: "Session", reference: str) -> SourceVm:
    """The VM of this name, inventory path (`/Vienna/dc1/vm/prod/web01`) or instance UUID.

    Raises:
        PlanError: there is none (with the nearest names), or several have the name (with their paths).
    """
    wanted = {
        vim.VirtualMachine: (*TREE_PATHS, "parentVApp", "config.instanceUuid"),
        **TREE,
    }
    found = read_inventory(session, "read the inventory", wanted)
    tree = {one.moref: one for one in found}
    vms = [one for one in found if isinstance(one.obj, vim.VirtualMachine)]
    paths = {one.moref: _path(one, tree) for one in vms}
    hits = [
        one
        for one in vms
        if reference in (plain_name(one.values.get("name", "")), paths[one.moref])
        or reference.lower() == (one.values.get("config.instanceUuid") or "").lower()
    ]
    if len(hits) == 1:
        return read_vm(session, hits[0].moref)
    if hits:
        choices = "\n".join(sorted(f"  {paths[one.moref]}" for one in hits))
        raise PlanError(f"{len(hits)} VMs are called {reference!r}.", f"Give the path of one of them:\n{choices}")
    raise _unknown(session, reference, [plain_name(one.values.get("name", "")) for one in vms], paths.values())


def read_vm(session: "Session", moref: str) -> SourceVm:
    """One VM as it is now.

    Raises:
        VmGone: it is no longer there.
        InventoryIncomplete: vCenter doesn't tell enough of it.
    """
    vm = session.bind(vim.VirtualMachine, moref)
    found = read_with_ancestors(session, f"read the VM {moref}", vm, VM_PATHS)
    tree = {moref: Found(vm, {}), **{one.moref: one for one in found}}
    values = tree[moref].values
    around = [*_refs(values, "datastore"), *_refs(values, "network"), *_refs(values, "runtime.host")]
    wanted = {vim.Datastore: DATASTORE_PATHS, vim.Network: NETWORK_PATHS, vim.HostSystem: HOST_PATHS}
    tree.update({one.moref: one for one in read_objects(session, f"read around the VM {moref}", around, wanted)})
    return _source_vm(tree[moref], tree, session.vcenter_uuid)


def list_vms(session: "Session") -> list[SourceVm]:
    """Every VM that the user may see, by path; those that vCenter doesn't tell enough of are left out and logged."""
    wanted = {
        vim.VirtualMachine: (*TREE_PATHS, "parentVApp", *VM_PATHS),
        **TREE,
        vim.HostSystem: HOST_PATHS,
        vim.Datastore: DATASTORE_PATHS,
        vim.Network: NETWORK_PATHS,
    }
    tree = {one.moref: one for one in read_inventory(session, "read the inventory", wanted)}
    vms = []
    for one in tree.values():
        if isinstance(one.obj, vim.VirtualMachine):
            try:
                vms.append(_source_vm(one, tree, session.vcenter_uuid))
            except InventoryIncomplete as error:
                log.warning("%s", error)
    return sorted(vms, key=lambda vm: vm.path)


def datastore_names(session: "Session", what: str, stores: Iterable[Any]) -> Mapping[str, tuple[str, str]]:
    """Name and kind of these datastores, by moref."""
    found = read_objects(session, what, stores, {vim.Datastore: DATASTORE_PATHS})
    return _names({one.moref: one for one in found}).datastores


def _source_vm(found: Found, tree: Mapping[str, Found], vcenter_uuid: str) -> SourceVm:
    values = found.values
    name = plain_name(values.get("name", found.moref))
    config, runtime = values.get("config"), values.get("runtime")
    if config is None or runtime is None or config.hardware is None:
        state = runtime.connectionState if runtime else "unknown"
        raise InventoryIncomplete(
            f"vCenter doesn't tell the configuration of {name} ({found.moref}); connection state: {state}.",
            "See in vCenter whether the VM is accessible, and whether the user has System.Read on it.",
        )
    names = _names(tree)
    devices = config.hardware.device
    boot = config.bootOptions
    product = _product(tree, runtime.host)
    return SourceVm(
        moref=found.moref,
        name=name,
        instance_uuid=config.instanceUuid or "",
        bios_uuid=config.uuid or "",
        path=_path(found, tree),
        datacenter=_datacenter(found, tree),
        vcenter_uuid=vcenter_uuid,
        power=PowerState(str(runtime.powerState)),
        host=_name(tree, runtime.host),
        host_version=product.version if product else "",
        host_build=int(product.build) if product and product.build.isdigit() else 0,
        cpus=config.hardware.numCPU,
        cores_per_socket=config.hardware.numCoresPerSocket or 1,
        memory_mib=config.hardware.memoryMB,
        firmware=config.firmware or "bios",
        secure_boot=bool(boot and boot.efiSecureBootEnabled),
        guest_id=config.guestId or "",
        guest_full_name=config.guestFullName or "",
        host_name=values.get("guest.hostName") or None,
        tools=_tools(values),
        hardware_version=hardware.hardware_version(config.version),
        change_tracking=bool(config.changeTrackingEnabled),
        change_tracking_supported=bool(values.get("capability.changeTrackingSupported")),
        consolidation_needed=bool(runtime.consolidationNeeded),
        is_template=bool(config.template),
        annotation=config.annotation or "",
        boot_time=runtime.bootTime,
        disks=hardware.disks_of(devices, names),
        nics=hardware.nics_of(devices, values.get("guest.net", ()), names),
        snapshots=hardware.snapshots_of(values.get("snapshot")),
        devices=hardware.peculiarities(config, values.get("guest.disk", ()), runtime),
    )


def _names(tree: Mapping[str, Found]) -> Names:
    """Names of the datastores and networks that were read."""
    stores: dict[str, tuple[str, str]] = {}
    networks: dict[str, str] = {}
    for one in tree.values():
        if isinstance(one.obj, vim.Datastore):
            kind = hardware.datastore_kind(one.values.get("summary"), one.values.get("info"))
            stores[one.moref] = (one.values.get("name", one.moref), kind)
        elif isinstance(one.obj, vim.Network):
            networks[one.moref] = plain_name(one.values.get("name", one.moref))
    return Names(stores, networks)


def _tools(values: Mapping[str, Any]) -> str:
    if values.get("guest.toolsRunningStatus") in ("guestToolsRunning", "guestToolsExecutingScripts"):
        return "running"
    missing = values.get("guest.toolsVersionStatus2") in (None, "guestToolsNotInstalled")
    return "not-installed" if missing else "not-running"


def _refs(values: Mapping[str, Any], path: str) -> Iterable[Any]:
    """The objects that a property refers to."""
    if path == "runtime.host":
        runtime = values.get("runtime")
        return [runtime.host] if runtime and runtime.host else []
    return values.get(path) or ()


def _name(tree: Mapping[str, Found], reference: Any) -> str:
    if reference is None:
        return ""
    found = tree.get(reference._moId)
    return str(found.values.get("name", reference._moId)) if found else str(reference._moId)


def _product(tree: Mapping[str, Found], host: Any) -> Any:
    """What the host runs; None where the user may not see it."""
    found = tree.get(host._moId) if host is not None else None
    return found.values.get("summary.config.product") if found else None


def _path(found: Found, tree: Mapping[str, Found]) -> str:
    """Inventory path; as everywhere in vSphere the root folder isn't part of it."""
    return "/" + "/".join(one.values.get("name", one.moref) for one in reversed(_way_up(found, tree)))


def _datacenter(found: Found, tree: Mapping[str, Found]) -> str:
    """Inventory path of the datacenter, without the slash in front."""
    way = _way_up(found, tree)
    here = next((number for number, one in enumerate(way) if isinstance(one.obj, vim.Datacenter)), len(way))
    return "/".join(one.values.get("name", one.moref) for one in reversed(way[here:]))


def _way_up(found: Found, tree: Mapping[str, Found]) -> list[Found]:
    """The object and what it lies in, up to below the root folder."""
    way: list[Found] = []
    here: Found | None = found
    while here is not None:
        parent = here.values.get("parentFolder") or here.values.get("parent") or here.values.get("parentVApp")
        if parent is None and here is not found:
            break  # the root folder
        way.append(here)
        here = tree.get(parent._moId) if parent is not None else None
    return way


def plain_name(name: str) -> str:
    """A name as people write it: vSphere escapes `/`, `\\` and `%` in names."""
    return unquote(name) if any(mark in name for mark in ("%2f", "%5c", "%25")) else name


def _unknown(session: "Session", reference: str, names: list[str], paths: Iterable[str]) -> PlanError:
    candidates = list(paths) if "/" in reference else sorted(set(names))
    folded = {name.casefold(): name for name in candidates}
    near = [folded[one] for one in difflib.get_close_matches(reference.casefold(), folded, NEAR_NAMES, 0.6)]
    hint = f"Near it: {', '.join(near)}." if near else f"The user {session.login.user} sees {len(names)} VMs."
    return PlanError(
        f"{session.login.host} has no VM {reference!r}.", f"{hint} Give a name, an inventory path or an instance UUID."
    )
