"""From vSphere's configuration objects to our models; pure, no call is made here."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from pyVmomi import vim

from snapferry.vsphere.models import Snapshot, SourceDisk, SourceNic

device = vim.vm.device

CONTROLLERS: tuple[tuple[Any, str], ...] = (
    (device.ParaVirtualSCSIController, "pvscsi"),
    (device.VirtualLsiLogicSASController, "sas"),
    (device.VirtualLsiLogicController, "lsilogic"),
    (device.VirtualBusLogicController, "buslogic"),
    (device.VirtualIDEController, "ide"),
    (device.VirtualSATAController, "sata"),
    (device.VirtualNVMEController, "nvme"),
)
ADAPTERS: tuple[tuple[Any, str], ...] = (
    (device.VirtualSriovEthernetCard, "sriov"),
    (device.VirtualVmxnet3, "vmxnet3"),
    (device.VirtualVmxnet2, "vmxnet2"),
    (device.VirtualVmxnet, "vmxnet"),
    (device.VirtualE1000e, "e1000e"),
    (device.VirtualE1000, "e1000"),
    (device.VirtualPCNet32, "pcnet32"),
)
BACKINGS: tuple[tuple[Any, str], ...] = (
    (device.VirtualDisk.FlatVer2BackingInfo, "flat"),
    (device.VirtualDisk.FlatVer1BackingInfo, "flat"),
    (device.VirtualDisk.SeSparseBackingInfo, "sesparse"),
    (device.VirtualDisk.SparseVer2BackingInfo, "sparse"),
    (device.VirtualDisk.SparseVer1BackingInfo, "sparse"),
)
OTHER_DEVICES: tuple[tuple[Any, str], ...] = (
    (device.VirtualSriovEthernetCard, "sriov"),
    (device.VirtualUSB, "usb"),
    (device.VirtualTPM, "vtpm"),
    (device.VirtualNVDIMM, "nvdimm"),
    (device.VirtualSerialPort, "serial"),
    (device.VirtualParallelPort, "parallel"),
    (device.VirtualSCSIPassthrough, "scsi-passthrough"),
)
GUEST_SPACE_BYTES = {"/": 100 << 20, "/boot": 50 << 20, "C:\\": 100 << 20}
"""What virt-v2v wants to be free in the guest's file systems (its manual, "Free space in the guest")."""


class Names(NamedTuple):
    """Names of what a VM's hardware refers to, by moref."""

    datastores: Mapping[str, tuple[str, str]] = {}
    """Name and kind (`vmfs6`, `nfs`, …) of each."""
    networks: Mapping[str, str] = {}


def disks_of(devices: Iterable[Any], names: Names) -> tuple[SourceDisk, ...]:
    """The virtual disks among a VM's or a snapshot's devices, by key."""
    by_key = {one.key: one for one in devices}
    disks = [one for one in by_key.values() if isinstance(one, device.VirtualDisk)]
    return tuple(_disk(disk, by_key.get(disk.controllerKey), names) for disk in sorted(disks, key=lambda one: one.key))


def nics_of(devices: Iterable[Any], guest_nics: Iterable[Any], names: Names) -> tuple[SourceNic, ...]:
    """The network cards, with the addresses that VMware Tools report."""
    ips = {one.deviceConfigId: _ips(one) for one in guest_nics or ()}
    cards = [one for one in devices if isinstance(one, device.VirtualEthernetCard)]
    return tuple(
        SourceNic(
            key=card.key,
            mac=(card.macAddress or "").lower(),
            network=_network(card, names),
            adapter=_first(card, ADAPTERS) or _kind(card),
            connected=bool(card.connectable and card.connectable.connected),
            start_connected=bool(card.connectable and card.connectable.startConnected),
            ips=ips.get(card.key, ()),
        )
        for card in sorted(cards, key=lambda one: one.key)
    )


def snapshots_of(info: Any) -> tuple[Snapshot, ...]:
    """Every snapshot of the tree, oldest first; `info` is the VM's property `snapshot`, None without snapshots."""
    found: list[Snapshot] = []
    todo: list[tuple[Any, str | None]] = [(tree, None) for tree in (info.rootSnapshotList or () if info else ())]
    while todo:
        tree, parent = todo.pop(0)
        moref = str(tree.snapshot._moId)
        found.append(
            Snapshot(
                moref=moref,
                name=tree.name,
                description=tree.description or "",
                created=tree.createTime,
                parent=parent,
            )
        )
        todo += [(child, moref) for child in tree.childSnapshotList or ()]
    return tuple(sorted(found, key=lambda one: one.created))


def peculiarities(config: Any, guest_disks: Iterable[Any], runtime: Any) -> tuple[str, ...]:
    """What else a move has to know of, each once: devices (`usb`, `pci-passthrough`, `vgpu`, `vtpm`, `sriov`, …) and
    settings (`cpu-affinity`, `memory-affinity`, `numa-affinity`, `cpu-hotplug`, `memory-hotplug`, `fault-tolerance`,
    `encrypted`, `question`, and `guest-space-low:/boot` where virt-v2v would want more).
    """
    found = [name for one in config.hardware.device for name in _other(one)]
    found += ["cpu-affinity"] if config.cpuAffinity and config.cpuAffinity.affinitySet else []
    found += ["memory-affinity"] if config.memoryAffinity and config.memoryAffinity.affinitySet else []
    extra = {option.key for option in config.extraConfig or ()}
    found += ["numa-affinity"] if "numa.nodeAffinity" in extra else []
    found += ["cpu-hotplug"] if config.cpuHotAddEnabled else []
    found += ["memory-hotplug"] if config.memoryHotAddEnabled else []
    found += ["fault-tolerance"] if config.ftInfo else []
    found += ["encrypted"] if config.keyId else []
    found += ["question"] if runtime.question else []
    for volume in guest_disks or ():
        wanted = GUEST_SPACE_BYTES.get(volume.diskPath or "")
        if wanted and volume.freeSpace is not None and volume.freeSpace < wanted:
            found.append(f"guest-space-low:{volume.diskPath}")
    return tuple(dict.fromkeys(found))


def datastore_kind(summary: Any, info: Any) -> str:
    """`vmfs6`, `vmfs5`, `nfs`, `vsan`, `vvol`; `vmfs` where the version isn't told; `inaccessible`."""
    if summary is None or summary.accessible is False:
        return "inaccessible"
    kind = (summary.type or "").lower()
    if kind == "vmfs" and isinstance(info, vim.host.VmfsDatastoreInfo) and info.vmfs:
        return f"vmfs{info.vmfs.majorVersion}"
    return "nfs" if kind.startswith("nfs") else kind


def hardware_version(version: str | None) -> int:
    """19 from `vmx-19`; 0 where it isn't told."""
    digits = (version or "").rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _disk(disk: Any, controller: Any, names: Names) -> SourceDisk:
    backing = disk.backing
    moref = backing.datastore._moId if getattr(backing, "datastore", None) else ""
    file_name = getattr(backing, "fileName", None) or ""
    in_file = file_name.partition("]")[0].lstrip("[") if file_name.startswith("[") else ""
    name, kind = names.datastores.get(moref, (in_file, ""))
    bus_sharing = getattr(controller, "sharedBus", None) or "noSharing"
    return SourceDisk(
        key=disk.key,
        label=disk.deviceInfo.label if disk.deviceInfo else f"disk {disk.key}",
        capacity_bytes=disk.capacityInBytes or (disk.capacityInKB or 0) * 1024,
        backing_uuid=getattr(backing, "uuid", None) or "",
        file_name=file_name,
        datastore=name,
        datastore_kind=kind,
        controller=_first(controller, CONTROLLERS) or _kind(controller),
        controller_bus=controller.busNumber if controller else 0,
        unit=disk.unitNumber or 0,
        change_id=getattr(backing, "changeId", None) or None,
        mode=getattr(backing, "diskMode", None) or "",
        sharing=getattr(backing, "sharing", None) == "sharingMultiWriter" or bus_sharing != "noSharing",
        backing_type=_backing_type(backing),
    )


def _backing_type(backing: Any) -> str:
    if isinstance(backing, device.VirtualDisk.RawDiskMappingVer1BackingInfo):
        return "rdm-physical" if backing.compatibilityMode == "physicalMode" else "rdm-virtual"
    return _first(backing, BACKINGS) or _kind(backing)


def _network(card: Any, names: Names) -> str:
    """Name of the network or port group behind a card."""
    backing = card.backing
    card_type = device.VirtualEthernetCard
    moref, given = "", ""
    if isinstance(backing, card_type.DistributedVirtualPortBackingInfo):
        moref = backing.port.portgroupKey or ""
    elif isinstance(backing, card_type.OpaqueNetworkBackingInfo):
        moref = backing.opaqueNetworkId or ""
    elif isinstance(backing, card_type.NetworkBackingInfo):
        moref, given = (backing.network._moId if backing.network else ""), backing.deviceName or ""
    label = card.deviceInfo.summary if card.deviceInfo else ""
    return names.networks.get(moref) or given or label or moref


def _ips(guest_nic: Any) -> tuple[str, ...]:
    told = [one.ipAddress for one in guest_nic.ipConfig.ipAddress] if guest_nic.ipConfig else []
    addresses = list(dict.fromkeys(told or list(guest_nic.ipAddress or ())))
    return tuple(sorted(addresses, key=lambda text: ip_address(text.partition("%")[0]).version))


def _other(one: Any) -> list[str]:
    if isinstance(one, device.VirtualPCIPassthrough):
        return ["vgpu" if isinstance(one.backing, device.VirtualPCIPassthrough.VmiopBackingInfo) else "pci-passthrough"]
    name = _first(one, OTHER_DEVICES)
    return [name] if name else []


def _first(one: Any, kinds: Iterable[tuple[Any, str]]) -> str | None:
    return next((name for kind, name in kinds if isinstance(one, kind)), None)


def _kind(one: Any) -> str:
    """A type that has no name of ours, as vSphere calls it."""
    return type(one).__name__.rpartition(".")[2] if one is not None else "none"
