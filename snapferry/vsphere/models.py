"""What Snapferry knows of a source VM: plain frozen values, read in bulk, with no session behind them."""

import ssl
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import SecretStr

from snapferry.plan import Frozen


class PowerState(StrEnum):
    """Power state as vSphere names it."""

    ON = "poweredOn"
    OFF = "poweredOff"
    SUSPENDED = "suspended"


class SourceDisk(Frozen):
    """One virtual disk of the VM as it is configured now, or as a snapshot has it."""

    key: int
    """Device key; 2000 can come back as another disk, so it is no identity."""
    label: str
    """`Hard disk 1`"""
    capacity_bytes: int
    backing_uuid: str
    file_name: str
    """Datastore path of the descriptor, `[san1] web01/web01.vmdk`; changes with every snapshot."""
    datastore: str
    datastore_kind: str
    """`vmfs6`, `vmfs5`, `nfs`, `vsan` or `vvol`."""
    controller: str
    """`pvscsi`, `lsilogic`, `buslogic`, `sas`, `ide`, `sata` or `nvme`."""
    controller_bus: int
    unit: int
    change_id: str | None
    mode: str
    """`persistent`, `independent_persistent`, …"""
    sharing: bool = False
    backing_type: str = "flat"
    """`flat`, `sesparse`, `sparse`, `rdm-physical`, `rdm-virtual` or another."""

    @property
    def place(self) -> str:
        """Where the disk hangs: `pvscsi0:1`."""
        return f"{self.controller}{self.controller_bus}:{self.unit}"


class SourceNic(Frozen):
    """One network card of the VM."""

    key: int
    mac: str
    network: str
    """Name of the network or port group."""
    adapter: str
    """`vmxnet3`, `e1000`, `e1000e`, …"""
    connected: bool
    start_connected: bool
    ips: tuple[str, ...] = ()
    """Addresses that VMware Tools report, IPv4 first."""


class Snapshot(Frozen):
    """One snapshot of the VM, with its disks as they were."""

    moref: str
    name: str
    description: str
    created: datetime
    parent: str | None = None
    """moref of the snapshot that it stands on."""
    disks: tuple[SourceDisk, ...] = ()
    """Filled where it was asked for; each with the snapshot's change id and frozen file."""


class SourceVm(Frozen):
    """One VM of the inventory."""

    moref: str
    name: str
    instance_uuid: str
    bios_uuid: str
    path: str
    """Inventory path, `/Vienna/dc1/vm/prod/web01`."""
    datacenter: str = ""
    """Inventory path of its datacenter as `/folder` takes it, `Vienna/dc1`; empty on a lone host."""
    vcenter_uuid: str
    """`about.instanceUuid` of its vCenter."""
    power: PowerState
    host: str
    """Name of the ESXi host that it runs on."""
    host_version: str = ""
    """That host's release, `8.0.3`; empty where the user may not see it."""
    host_build: int = 0
    cpus: int
    cores_per_socket: int
    memory_mib: int
    firmware: str
    """`bios` or `efi`."""
    secure_boot: bool
    guest_id: str
    guest_full_name: str
    host_name: str | None
    """As VMware Tools report it."""
    tools: str
    """`running`, `not-running` or `not-installed`."""
    hardware_version: int
    change_tracking: bool
    change_tracking_supported: bool
    consolidation_needed: bool
    is_template: bool
    annotation: str
    boot_time: datetime | None
    disks: tuple[SourceDisk, ...]
    nics: tuple[SourceNic, ...]
    snapshots: tuple[Snapshot, ...] = ()
    """Every snapshot of the tree, oldest first, without their disks."""
    devices: tuple[str, ...] = ()
    """Other devices that a move has to know of: `usb`, `pci-passthrough`, `vtpm`, `sriov`, …"""

    @property
    def key(self) -> str:
        """Identity across renames: `<vCenter's UUID>/<instance UUID>`."""
        return f"{self.vcenter_uuid}/{self.instance_uuid}"


class FolderAccess(NamedTuple):
    """Where the files of a datastore are served over HTTPS, and who asks for them."""

    host: str
    port: int
    tls: ssl.SSLContext
    user: str
    password: SecretStr
    datacenter: str
    """Inventory path of its datacenter, folders included: `Vienna/dc1`."""
    datastore: str


class NfcTicket(NamedTuple):
    """A right to open one NFC connection; good for a single one."""

    host: str
    port: int
    ssl_thumbprint: str
    """SHA-1 of the host's certificate, `AA:BB:…`."""
    service: str
    session_id: str


class ExportSource(NamedTuple):
    """Where one disk of a lease is downloaded. The address is a secret: whoever knows it may read the disk."""

    disk_key: int
    capacity_bytes: int
    host: str
    port: int
    path: str
    ssl_thumbprint: str
    """SHA-1 (or SHA-256) of the host's certificate; empty where a CA is to vouch for it."""
    ca_pem: str | None
    """The CA that is trusted where there is no thumbprint; the system's where it is None."""

    def __repr__(self) -> str:
        return f"ExportSource(disk {self.disk_key} at {self.host}:{self.port})"
