"""The inventory above the VMs: folders, datacenter, cluster, hosts, datastores and networks."""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

from pyVmomi import vim

from snapferry.lab.config import LabDatastore, LabVCenter
from snapferry.lab.hosts import HostProcess
from snapferry.lab.kinds import KINDS
from snapferry.lab.vcenter.store import Store

PRODUCT_VERSION, PRODUCT_BUILD = "8.0.3", "24022510"


def encode_name(name: str) -> str:
    """An entity's name as vCenter stores and shows it: the three characters of its paths are written as `%2f`, …"""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def seeded_uuid(*parts: object) -> str:
    """The same UUID for the same parts."""
    return str(uuid.UUID(int=Random(repr(parts)).getrandbits(128), version=4))


def children(store: Store, mo: Any) -> list[Any]:
    """What hangs below an entity in the inventory."""
    if isinstance(mo, vim.Folder):
        return list(store.get(mo, "childEntity"))
    if isinstance(mo, vim.Datacenter):
        return [store.get(mo, name) for name in ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder")]
    if isinstance(mo, vim.ComputeResource):
        return [*store.get(mo, "host"), store.get(mo, "resourcePool")]
    if isinstance(mo, (vim.HostSystem, vim.ResourcePool)):
        return list(store.get(mo, "vm"))
    return []


def add_folder(store: Store, parent: Any | None, name: str, prefix: str, kinds: list[str]) -> Any:
    """A folder that may hold objects of `kinds`."""
    mo = vim.Folder(store.next_id(prefix))
    store.add(mo, name=encode_name(name), childType=kinds, childEntity=[], **_entity(mo, parent))
    if parent is not None and isinstance(parent, vim.Folder):
        add_child(store, parent, mo)
    return mo


def add_child(store: Store, folder: Any, mo: Any) -> None:
    """Hangs an entity into a folder."""
    store.change(folder, childEntity=[*store.get(folder, "childEntity"), mo])


def _entity(mo: Any, parent: Any | None) -> dict[str, Any]:
    """The properties that every entity has."""
    return {
        "parent": parent,
        "overallStatus": vim.ManagedEntity.Status.green,
        "configStatus": vim.ManagedEntity.Status.green,
        "effectiveRole": [-1],
        "disabledMethod": [],
        "recentTask": [],
        "triggeredAlarmState": [],
        "permission": [],
        "tag": [],
    }


class Site(NamedTuple):
    """The entities that VMs are placed in, by their names."""

    root: Any
    datacenter: Any
    vm_folder: Any
    resource_pool: Any
    hosts: dict[str, Any]
    datastores: dict[str, Any]
    networks: dict[str, Any]


def build_site(
    store: Store, config: LabVCenter, hosts: list[HostProcess], free_bytes: Callable[[str, int], int], seed: int
) -> Site:
    """Everything but the VMs."""
    root = add_folder(store, None, "Datacenters", "group-d", ["Folder", "Datacenter"])
    top = root
    for part in filter(None, config.datacenter_folder.split("/")):
        top = add_folder(store, top, part, "group-d", ["Folder", "Datacenter"])
    datacenter = vim.Datacenter(store.next_id("datacenter"))
    store.add(datacenter, name=encode_name(config.datacenter), **_entity(datacenter, top))
    add_child(store, top, datacenter)
    folders = {
        name: add_folder(store, datacenter, name, prefix, kinds)
        for name, prefix, kinds in (
            ("vm", "group-v", ["Folder", "VirtualMachine"]),
            ("host", "group-h", ["Folder", "ComputeResource"]),
            ("datastore", "group-s", ["Folder", "Datastore"]),
            ("network", "group-n", ["Folder", "Network"]),
        )
    }
    store.change(datacenter, **{f"{name}Folder": folder for name, folder in folders.items()})
    networks = {name: _add_network(store, folders["network"], name) for name in config.networks}
    datastores = {one.name: _add_datastore(store, folders["datastore"], one, free_bytes) for one in config.datastores}
    shared = {"datastore": list(datastores.values()), "network": list(networks.values())}
    store.change(datacenter, **shared)
    cluster, pool = _add_cluster(store, folders["host"], config.cluster, shared)
    mos = {one.name: _add_host(store, cluster, one, seed, shared) for one in hosts}
    store.change(cluster, host=list(mos.values()))
    for mo in networks.values():
        store.change(mo, host=list(mos.values()))
    for mo in datastores.values():
        store.change(mo, host=[_mount(host) for host in mos.values()])
    return Site(root, datacenter, folders["vm"], pool, mos, datastores, networks)


def _add_network(store: Store, folder: Any, name: str) -> Any:
    mo = vim.Network(store.next_id("network"))
    summary = vim.Network.Summary(network=mo, name=encode_name(name), accessible=True, ipPoolName="")
    store.add(mo, name=encode_name(name), summary=summary, host=[], vm=[], **_entity(mo, folder))
    add_child(store, folder, mo)
    return mo


def _add_datastore(store: Store, folder: Any, config: LabDatastore, free_bytes: Callable[[str, int], int]) -> Any:
    mo = vim.Datastore(store.next_id("datastore"))
    volume_id = seeded_uuid("datastore", config.name)
    free = _Remembered(lambda: free_bytes(config.name, config.capacity_bytes))
    store.add(
        mo,
        name=encode_name(config.name),
        summary=lambda: _datastore_summary(mo, config, volume_id, free()),
        info=lambda: _datastore_info(config, volume_id, free()),
        host=[],
        vm=[],
        **_entity(mo, folder),
    )
    add_child(store, folder, mo)
    return mo


def _datastore_summary(mo: Any, config: LabDatastore, volume_id: str, free_bytes: int) -> Any:
    return vim.Datastore.Summary(
        datastore=mo,
        name=encode_name(config.name),
        url=_url(config, volume_id),
        capacity=config.capacity_bytes,
        freeSpace=free_bytes,
        uncommitted=0,
        accessible=True,
        multipleHostAccess=True,
        type=KINDS[config.kind].vsphere_type,
        maintenanceMode="normal",
    )


def _datastore_info(config: LabDatastore, volume_id: str, free_bytes: int) -> Any:
    kind, host = KINDS[config.kind], vim.host
    common = {
        "name": config.name,
        "url": _url(config, volume_id),
        "freeSpace": free_bytes,
        "maxFileSize": 64 << 40,
        "maxVirtualDiskCapacity": 62 << 40,
        "timestamp": datetime.now(UTC),
    }
    volume = {"name": config.name, "capacity": config.capacity_bytes, "type": kind.vsphere_type}
    match kind.vsphere_type:
        case "NFS":
            nas = host.NasVolume(**volume, remoteHost="filer.lab.test", remotePath=f"/exports/{config.name}")
            return host.NasDatastoreInfo(**common, nas=nas)
        case "vsan":
            return host.VsanDatastoreInfo(**common, membershipUuid=volume_id)
    vmfs = host.VmfsVolume(
        **volume,
        uuid=volume_id,
        version=kind.vmfs_version,
        majorVersion=int(kind.vmfs_version[0]),
        blockSizeMb=1,
        blockSize=1024,
        unmapGranularity=1024,
        extent=[vim.host.ScsiDisk.Partition(diskName=f"naa.{volume_id.replace('-', '')}", partition=1)],
        ssd=False,
        local=False,
    )
    return host.VmfsDatastoreInfo(**common, vmfs=vmfs)


def _url(config: LabDatastore, volume_id: str) -> str:
    prefix = "" if KINDS[config.kind].has_files else "vsan:"
    return f"ds:///vmfs/volumes/{prefix}{volume_id}/"


class _Remembered:
    """A number that is asked for anew once a second at most."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._value = 0
        self._until = 0.0

    def __call__(self) -> int:
        if time.monotonic() >= self._until:
            self._value, self._until = self._ask(), time.monotonic() + 1
        return self._value


def _mount(host: Any) -> Any:
    info = vim.host.MountInfo(path="/vmfs/volumes", accessMode="readWrite", mounted=True, accessible=True)
    return vim.Datastore.HostMount(key=host, mountInfo=info)


def _add_cluster(store: Store, folder: Any, name: str, shared: dict[str, Any]) -> tuple[Any, Any]:
    mo = vim.ClusterComputeResource(store.next_id("domain-c"))
    pool = vim.ResourcePool(store.next_id("resgroup"))
    store.add(mo, name=encode_name(name), host=[], resourcePool=pool, **shared, **_entity(mo, folder))
    store.add(pool, name="Resources", owner=mo, resourcePool=[], vm=[], **_entity(pool, mo))
    add_child(store, folder, mo)
    return mo, pool


def _add_host(store: Store, cluster: Any, host: HostProcess, seed: int, shared: dict[str, Any]) -> Any:
    mo = vim.HostSystem(store.next_id("host"))
    product = vim.AboutInfo(
        name="VMware ESXi",
        fullName=f"VMware ESXi {PRODUCT_VERSION} build-{PRODUCT_BUILD}",
        vendor="VMware, Inc.",
        version=PRODUCT_VERSION,
        build=PRODUCT_BUILD,
        osType="vmnix-x86",
        productLineId="embeddedEsx",
        apiType="HostAgent",
        apiVersion="8.0.3.0",
    )
    runtime = vim.host.RuntimeInfo(
        connectionState="connected", powerState="poweredOn", inMaintenanceMode=False, bootTime=datetime.now(UTC)
    )
    summary = vim.host.Summary(
        host=mo,
        hardware=vim.host.Summary.HardwareSummary(
            vendor="Snapferry", model="Lab", uuid=seeded_uuid(seed, "host", host.name), numCpuCores=16, cpuMhz=2400
        ),
        runtime=runtime,
        config=vim.host.Summary.ConfigSummary(
            name=host.name, port=443, sslThumbprint=host.thumbprint, product=product, vmotionEnabled=True
        ),
        quickStats=vim.host.Summary.QuickStats(),
        overallStatus="green",
        rebootRequired=False,
    )
    store.add(mo, name=host.name, runtime=runtime, summary=summary, vm=[], **shared, **_entity(mo, cluster))
    return mo
