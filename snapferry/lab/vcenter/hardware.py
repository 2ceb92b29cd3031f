"""A VM's virtual hardware as vSphere describes it."""

from random import Random
from typing import Any, NamedTuple

from pyVmomi import vim

from snapferry.lab.config import LabDisk, LabNic, LabVm
from snapferry.lab.host.answers import CreatedDisk

device = vim.vm.device


class _Controller(NamedTuple):
    """How disks hang on one kind of controller."""

    kind: Any
    key: int
    disk_key: int
    units: int


_CONTROLLERS = {
    "pvscsi": _Controller(device.ParaVirtualSCSIController, 1000, 2000, 16),
    "lsilogic": _Controller(device.VirtualLsiLogicController, 1000, 2000, 16),
    "sata": _Controller(device.VirtualAHCIController, 15000, 16000, 30),
    "nvme": _Controller(device.VirtualNVMEController, 31000, 32000, 15),
}
SCSI_OWN_UNIT = 7
"""The unit that a SCSI controller takes for itself."""


class Slot(NamedTuple):
    """Where one disk hangs."""

    key: int
    """The disk's device key."""
    controller: str
    bus: int
    unit: int

    @property
    def controller_key(self) -> int:
        return _CONTROLLERS[self.controller].key + self.bus


def slots(disks: tuple[LabDisk, ...]) -> list[Slot]:
    """Gives every disk a place: one controller per kind, further ones where it is full.

    SCSI controllers of two kinds share the numbers of their buses, as they do on ESXi.
    """
    found: list[Slot] = []
    buses: dict[int, list[tuple[str, int]]] = {}
    """Of each family of controllers, by bus: its kind and its next free unit."""
    for disk in disks:
        kind = _CONTROLLERS[disk.controller]
        family = buses.setdefault(kind.key, [])
        fits = (bus for bus, (name, unit) in enumerate(family) if name == disk.controller and unit < kind.units)
        bus = next(fits, len(family))
        if bus == len(family):
            family.append((disk.controller, 0))
        unit = family[bus][1]
        skips = kind.key == 1000 and unit + 1 == SCSI_OWN_UNIT
        family[bus] = (disk.controller, unit + 2 if skips else unit + 1)
        found.append(Slot(kind.disk_key + bus * kind.units + unit, disk.controller, bus, unit))
    return found


def next_slot(config: Any, controller_key: int, unit: int | None) -> Slot | None:
    """A free place on a controller: the unit that was asked for, or the first one; None where there is none."""
    controllers = {one.key: one for one in config.hardware.device if isinstance(one, device.VirtualController)}
    controller = controllers.get(controller_key)
    found = next((pair for pair in _CONTROLLERS.items() if isinstance(controller, pair[1].kind)), None)
    if controller is None or found is None:
        return None
    name, kind = found
    taken = {one.unitNumber for one in config.hardware.device if one.controllerKey == controller_key}
    taken |= {SCSI_OWN_UNIT} if isinstance(controller, device.VirtualSCSIController) else set()
    free = [one for one in range(kind.units) if one not in taken and unit in (None, -1, one)]
    key = kind.disk_key + controller.busNumber * kind.units
    return Slot(key + free[0], name, controller.busNumber, free[0]) if free else None


def disks_of(config: Any) -> list[Any]:
    """The virtual disks of a VM's config, in the order of their keys."""
    return sorted(
        (one for one in config.hardware.device if isinstance(one, device.VirtualDisk)), key=lambda one: one.key
    )


def nics_of(config: Any) -> list[Any]:
    """The network cards of a VM's config."""
    return [one for one in config.hardware.device if isinstance(one, device.VirtualEthernetCard)]


def seeded_mac(seed: int, vm: str, index: int) -> str:
    """A MAC of the range that VMware keeps for addresses set by hand."""
    number = Random(repr(("mac", seed, vm, index))).getrandbits(22)
    return f"00:50:56:{number >> 16 & 0x3F:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def build_devices(vm: LabVm, disks: list[Any], networks: dict[str, Any], seed: int) -> list[Any]:
    """Everything that hangs on the VM; `disks` are its VirtualDisks."""
    return [
        *_fixed_devices(),
        *_disk_controllers(slots(vm.disks)),
        *disks,
        *(_nic(vm, nic, index, networks, seed) for index, nic in enumerate(vm.nics)),
    ]


def _label(text: str, summary: str = "") -> Any:
    return vim.Description(label=text, summary=summary or text)


def _fixed_devices() -> list[Any]:
    return [
        device.VirtualIDEController(key=200, deviceInfo=_label("IDE 0"), busNumber=0),
        device.VirtualIDEController(key=201, deviceInfo=_label("IDE 1"), busNumber=1),
        device.VirtualPS2Controller(key=300, deviceInfo=_label("PS2 controller 0"), busNumber=0, device=[600, 700]),
        device.VirtualPCIController(key=100, deviceInfo=_label("PCI controller 0"), busNumber=0),
        device.VirtualSIOController(key=400, deviceInfo=_label("SIO controller 0"), busNumber=0),
        device.VirtualKeyboard(key=600, deviceInfo=_label("Keyboard"), controllerKey=300, unitNumber=0),
        device.VirtualPointingDevice(key=700, deviceInfo=_label("Pointing device"), controllerKey=300, unitNumber=1),
        device.VirtualVideoCard(key=500, deviceInfo=_label("Video card"), controllerKey=100, unitNumber=0),
        device.VirtualVMCIDevice(key=12000, deviceInfo=_label("VMCI device"), controllerKey=100, unitNumber=17),
    ]


def _disk_controllers(places: list[Slot]) -> list[Any]:
    found: dict[int, Any] = {}
    for slot in places:
        kind = _CONTROLLERS[slot.controller]
        key = slot.controller_key
        if key not in found:
            name = {"sata": "SATA", "nvme": "NVME"}.get(slot.controller, "SCSI")
            found[key] = kind.kind(
                key=key, deviceInfo=_label(f"{name} controller {slot.bus}"), controllerKey=100, busNumber=slot.bus
            )
            if isinstance(found[key], device.VirtualSCSIController):
                found[key].sharedBus = device.VirtualSCSIController.Sharing.noSharing
                found[key].scsiCtlrUnitNumber = SCSI_OWN_UNIT
        found[key].device.append(slot.key)
    return list(found.values())


def build_disk(index: int, slot: Slot, config: LabDisk, made: CreatedDisk, datastore: Any) -> Any:
    """One virtual disk.

    Args:
        made: the host's answer for it: `file` and `uuid`.
    """
    backing = device.VirtualDisk.FlatVer2BackingInfo(
        fileName=made["file"],
        datastore=datastore,
        backingObjectId="",
        diskMode=config.mode,
        split=False,
        writeThrough=False,
        thinProvisioned=True,
        eagerlyScrub=False,
        uuid=made["uuid"],
        contentId=made["uuid"].replace("-", "")[:32],
        digestEnabled=False,
        sharing="sharingNone",
    )
    return device.VirtualDisk(
        key=slot.key,
        deviceInfo=_label(f"Hard disk {index + 1}", f"{config.capacity_bytes // 1024:,} KB"),
        backing=backing,
        controllerKey=slot.controller_key,
        unitNumber=slot.unit,
        capacityInKB=config.capacity_bytes // 1024,
        capacityInBytes=config.capacity_bytes,
        diskObjectId=f"1-{slot.key}",
        nativeUnmanagedLinkedClone=False,
    )


def move_disk(disk: Any, file_name: str, frozen: list[str], change_id: str | None, delta_format: str) -> None:
    """Tells a VirtualDisk that it lives in `file_name` now, upon the frozen files (the newest first)."""
    disk.backing.fileName = file_name
    disk.backing.changeId = change_id
    disk.backing.deltaDiskFormat = delta_format if frozen else None
    backing = disk.backing
    for position, name in enumerate(frozen):
        backing.parent = device.VirtualDisk.FlatVer2BackingInfo(
            fileName=name,
            datastore=disk.backing.datastore,
            diskMode="persistent",
            thinProvisioned=True,
            uuid=disk.backing.uuid,
            deltaDiskFormat=delta_format if position + 1 < len(frozen) else None,
        )
        backing = backing.parent
    backing.parent = None


def _nic(vm: LabVm, nic: LabNic, index: int, networks: dict[str, Any], seed: int) -> Any:
    kind = {"vmxnet3": device.VirtualVmxnet3, "e1000e": device.VirtualE1000e}[nic.adapter]
    return kind(
        key=4000 + index,
        deviceInfo=_label(f"Network adapter {index + 1}", nic.network),
        backing=device.VirtualEthernetCard.NetworkBackingInfo(
            deviceName=nic.network, useAutoDetect=False, network=networks[nic.network]
        ),
        connectable=device.VirtualDevice.ConnectInfo(
            startConnected=nic.connected, allowGuestControl=True, connected=False, status="untried"
        ),
        controllerKey=100,
        unitNumber=7 + index,
        macAddress=nic.mac or seeded_mac(seed, vm.name, index),
        addressType="manual" if nic.mac else "assigned",
        wakeOnLanEnabled=True,
        uptCompatibilityEnabled=nic.adapter == "vmxnet3",
    )
