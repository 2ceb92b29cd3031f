"""vSphere's configuration objects become our models."""

from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim

from snapferry.vsphere import hardware
from snapferry.vsphere.hardware import Names

device = vim.vm.device
NAMES = Names({"datastore-1": ("san1", "vmfs6")}, {"network-1": "VM Network", "dvportgroup-2": "servers"})
FLAT = device.VirtualDisk.FlatVer2BackingInfo
CHANGE_ID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81"


def controller(kind: Any = device.ParaVirtualSCSIController, key: int = 1000, bus: int = 0, **more: Any) -> Any:
    return kind(key=key, busNumber=bus, **more)


def disk(key: int = 2000, at: int = 1000, unit: int = 0, backing: Any = None, **more: Any) -> Any:
    backing = backing or flat()
    values = {"capacityInBytes": 1 << 30, "capacityInKB": 1 << 20, "deviceInfo": vim.Description(label=f"Disk {key}")}
    return device.VirtualDisk(key=key, controllerKey=at, unitNumber=unit, backing=backing, **(values | more))


def flat(**more: Any) -> Any:
    values = {
        "fileName": "[san1] web01/web01-000001.vmdk",
        "datastore": vim.Datastore("datastore-1"),
        "diskMode": "persistent",
        "uuid": "6000C29a-1",
    }
    return FLAT(**(values | more))


def test_a_disk_is_known_by_place_backing_and_change_id() -> None:
    found = hardware.disks_of([controller(bus=1), disk(unit=3, backing=flat(changeId=CHANGE_ID))], NAMES)
    assert len(found) == 1
    assert found[0].model_dump() == {
        "key": 2000,
        "label": "Disk 2000",
        "capacity_bytes": 1 << 30,
        "backing_uuid": "6000C29a-1",
        "file_name": "[san1] web01/web01-000001.vmdk",
        "datastore": "san1",
        "datastore_kind": "vmfs6",
        "controller": "pvscsi",
        "controller_bus": 1,
        "unit": 3,
        "change_id": CHANGE_ID,
        "mode": "persistent",
        "sharing": False,
        "backing_type": "flat",
    }
    assert found[0].place == "pvscsi1:3"


def test_a_capacity_that_is_no_whole_number_of_kib_keeps_its_last_sector() -> None:
    odd = disk(capacityInBytes=(1 << 30) + 512, capacityInKB=1 << 20)
    assert hardware.disks_of([odd], NAMES)[0].capacity_bytes == (1 << 30) + 512


def test_every_controller_has_its_name() -> None:
    kinds = {
        device.ParaVirtualSCSIController: "pvscsi",
        device.VirtualLsiLogicController: "lsilogic",
        device.VirtualLsiLogicSASController: "sas",
        device.VirtualBusLogicController: "buslogic",
        device.VirtualIDEController: "ide",
        device.VirtualAHCIController: "sata",
        device.VirtualNVMEController: "nvme",
    }
    for kind, name in kinds.items():
        assert hardware.disks_of([controller(kind), disk()], NAMES)[0].controller == name


def test_disks_that_no_snapshot_freezes_are_told_apart() -> None:
    rdm = device.VirtualDisk.RawDiskMappingVer1BackingInfo
    kinds = {
        "rdm-physical": rdm(fileName="[san1] a/a.vmdk", compatibilityMode="physicalMode"),
        "rdm-virtual": rdm(fileName="[san1] a/a.vmdk", compatibilityMode="virtualMode"),
        "sesparse": device.VirtualDisk.SeSparseBackingInfo(fileName="[san1] a/a.vmdk"),
    }
    for name, backing in kinds.items():
        assert hardware.disks_of([disk(backing=backing)], NAMES)[0].backing_type == name
    multi_writer = hardware.disks_of([disk(backing=flat(sharing="sharingMultiWriter"))], NAMES)[0]
    shared_bus = hardware.disks_of([controller(sharedBus="physicalSharing"), disk()], NAMES)[0]
    own_bus = hardware.disks_of([controller(sharedBus="noSharing"), disk()], NAMES)[0]
    assert (multi_writer.sharing, shared_bus.sharing, own_bus.sharing) == (True, True, False)


def test_network_cards_of_standard_and_distributed_switches_have_names_and_addresses() -> None:
    card = device.VirtualEthernetCard
    connect = device.VirtualDevice.ConnectInfo(connected=True, startConnected=False, allowGuestControl=True)
    port = vim.dvs.PortConnection(portgroupKey="dvportgroup-2", switchUuid="x")
    cards = [
        device.VirtualE1000e(
            key=4001,
            macAddress="00:50:56:AA:00:02",
            backing=card.DistributedVirtualPortBackingInfo(port=port),
        ),
        device.VirtualVmxnet3(
            key=4000,
            macAddress="00:50:56:aa:00:01",
            connectable=connect,
            backing=card.NetworkBackingInfo(deviceName="old name", network=vim.Network("network-1")),
        ),
    ]
    guest = [vim.vm.GuestInfo.NicInfo(deviceConfigId=4000, connected=True, ipAddress=["fe80::1%eth0", "10.0.5.7"])]
    first, second = hardware.nics_of(cards, guest, NAMES)
    assert (first.key, first.adapter, first.network) == (4000, "vmxnet3", "VM Network")
    assert (first.connected, first.start_connected) == (True, False)
    assert first.ips == ("10.0.5.7", "fe80::1%eth0")
    assert (second.mac, second.adapter, second.network, second.ips) == ("00:50:56:aa:00:02", "e1000e", "servers", ())


def test_the_snapshot_tree_is_told_oldest_first_with_parents() -> None:
    def tree(number: int, *children: Any) -> Any:
        return vim.vm.SnapshotTree(
            snapshot=vim.vm.Snapshot(f"snapshot-{number}"),
            name=f"s{number}",
            createTime=datetime(2026, 5, number, tzinfo=UTC),
            childSnapshotList=list(children),
        )

    info = vim.vm.SnapshotInfo(rootSnapshotList=[tree(1, tree(2, tree(4)), tree(3))])
    found = [(one.moref, one.parent) for one in hardware.snapshots_of(info)]
    assert found == [
        ("snapshot-1", None),
        ("snapshot-2", "snapshot-1"),
        ("snapshot-3", "snapshot-1"),
        ("snapshot-4", "snapshot-2"),
    ]
    assert hardware.snapshots_of(None) == ()


def test_what_else_a_move_has_to_know_of_is_named_once() -> None:
    vgpu = device.VirtualPCIPassthrough.VmiopBackingInfo(vgpu="grid")
    config = vim.vm.ConfigInfo(
        hardware=vim.vm.VirtualHardware(
            device=[
                device.VirtualUSB(key=1),
                device.VirtualUSB(key=2),
                device.VirtualTPM(key=3),
                device.VirtualPCIPassthrough(key=4),
                device.VirtualPCIPassthrough(key=5, backing=vgpu),
                device.VirtualUSBController(key=6),
                device.VirtualVmxnet3(key=7),
            ]
        ),
        cpuAffinity=vim.vm.AffinityInfo(affinitySet=[0, 1]),
        memoryAffinity=vim.vm.AffinityInfo(affinitySet=[]),
        cpuHotAddEnabled=True,
        extraConfig=[vim.option.OptionValue(key="numa.nodeAffinity", value="0")],
    )
    space = vim.vm.GuestInfo.DiskInfo
    volumes = [space(diskPath="/", freeSpace=5 << 30), space(diskPath="/boot", freeSpace=1 << 20)]
    assert hardware.peculiarities(config, volumes, vim.vm.RuntimeInfo()) == (
        "usb",
        "vtpm",
        "pci-passthrough",
        "vgpu",
        "cpu-affinity",
        "numa-affinity",
        "cpu-hotplug",
        "guest-space-low:/boot",
    )


def test_datastores_have_the_kind_that_decides_how_they_are_read() -> None:
    summary = vim.Datastore.Summary
    six = vim.host.VmfsDatastoreInfo(vmfs=vim.host.VmfsVolume(majorVersion=6))
    assert hardware.datastore_kind(summary(accessible=True, type="VMFS"), six) == "vmfs6"
    assert hardware.datastore_kind(summary(accessible=True, type="NFS41"), None) == "nfs"
    assert hardware.datastore_kind(summary(accessible=True, type="vsan"), None) == "vsan"
    assert hardware.datastore_kind(summary(accessible=True, type="VVOL"), None) == "vvol"
    assert hardware.datastore_kind(summary(accessible=False, type="VMFS"), six) == "inaccessible"
