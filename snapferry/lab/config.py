"""What a lab holds: `lab.yaml` as a model. Every size may be written as text (`2 GiB`)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from snapferry.errors import PlanError
from snapferry.lab.kinds import KindName
from snapferry.plan import Bytes, Frozen, Seconds

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]
"""A name that also names files."""


class Workload(Frozen):
    """What the guest writes while its VM is powered on; the same seed writes the same bytes in the same order."""

    rate_bytes: Bytes = Field(0, ge=0, alias="rate")
    """Bytes a second over all disks of the VM once the VM has run for `settle`; 0: the guest is quiet."""
    start_rate_bytes: Bytes | None = Field(None, ge=0, alias="start_rate")
    """Bytes a second right after power-on; falls in a straight line to `rate` over `settle`."""
    settle_seconds: Seconds = Field(0, ge=0, alias="settle")
    hot_bytes: Bytes = Field(16 << 20, ge=0, alias="hot")
    """Size of the hot set, at a seeded place of each disk; most random writes hit it."""
    sequential: float = Field(0.3, ge=0, le=1)
    """Share of the bytes that is written front to back, as a log is."""
    zeros: float = Field(0.05, ge=0, le=1)
    """Share of the writes that write zeros over what was there."""
    unmaps: float = Field(0.05, ge=0, le=1)
    """Share of the writes that unmap (TRIM) what was there."""
    write_bytes: Bytes = Field(64 << 10, gt=0, alias="write")
    """Bytes of one write."""
    late_disks_after_seconds: Seconds | None = Field(None, alias="late_disks_after")
    """If set, disks but the first change only this long after power-on."""

    model_config = ConfigDict(populate_by_name=True)


class LabDisk(Frozen):
    """One disk of a VM."""

    capacity_bytes: Bytes = Field(gt=0, alias="capacity")
    """Any multiple of 512."""
    data_bytes: Bytes = Field(0, ge=0, alias="data")
    """How much of it holds seeded, incompressible data when the lab starts; the rest was never written."""
    data_runs: int = Field(64, ge=1)
    """Into how many runs, spread over the disk, the data falls; the last bytes of the disk are always data."""
    controller: Literal["pvscsi", "lsilogic", "sata", "nvme"] = "pvscsi"
    mode: Literal["persistent", "independent_persistent"] = "persistent"
    datastore: str | None = None
    """Name of its datastore; its VM's by default."""

    model_config = ConfigDict(populate_by_name=True)


class LabNic(Frozen):
    """One network card of a VM; its MAC is seeded where none is given."""

    network: str
    mac: str | None = None
    ip: str | None = None
    adapter: Literal["vmxnet3", "e1000e"] = "vmxnet3"
    connected: bool = True


class LabVm(Frozen):
    """One VM of the simulated vCenter."""

    name: str
    folder: str = "prod"
    """Folder below the datacenter's `vm` folder."""
    host: str | None = None
    """Name of its host; the first one by default."""
    datastore: str | None = None
    """Name of its datastore; the first one by default."""
    cpus: int = 2
    cores_per_socket: int = 1
    memory_mib: int = 2048
    firmware: Literal["bios", "efi"] = "bios"
    secure_boot: bool = False
    guest_id: str = "debian12_64Guest"
    guest_full_name: str = "Debian GNU/Linux 12 (64-bit)"
    host_name: str | None = None
    """What Tools report; the VM's name by default."""
    tools: Literal["running", "not-running", "not-installed"] = "running"
    shutdown_seconds: Seconds = Field(1, ge=0, alias="shutdown")
    """How long the guest takes to shut down once asked."""
    power: Literal["on", "off"] = "on"
    change_tracking: bool = False
    hardware_version: int = 19
    disks: tuple[LabDisk, ...]
    nics: tuple[LabNic, ...] = ()
    workload: Workload = Workload()

    model_config = ConfigDict(populate_by_name=True)


class LabDatastore(Frozen):
    """One datastore that every host sees."""

    name: FileName = "san1"
    kind: KindName = "vmfs6"
    capacity_bytes: Bytes = Field(500 << 30, alias="capacity")

    model_config = ConfigDict(populate_by_name=True)


class LabUser(Frozen):
    """A vCenter user beside the administrator, with just these privileges (`VirtualMachine.State.CreateSnapshot`)."""

    name: str
    privileges: tuple[str, ...] = ()


class LabVCenter(Frozen):
    """The simulated vCenter."""

    datacenter: str = "dc1"
    datacenter_folder: str = "Vienna"
    cluster: str = "cluster1"
    hosts: tuple[FileName, ...] = Field(("esx1.lab.test",), min_length=1)
    datastores: tuple[LabDatastore, ...] = (LabDatastore(),)
    networks: tuple[str, ...] = ("VM Network",)
    users: tuple[LabUser, ...] = ()
    session_idle_seconds: Seconds = Field(1800, gt=0, alias="session_idle")
    change_page_extents: int = Field(2000, ge=1)
    """Extents in one page of a change query."""
    lease_timeout_seconds: int = Field(300, ge=1, alias="lease_timeout")
    """How long an export lease lives without a word of its holder."""
    nfc_fastlz: bool = False
    """Whether hosts compress what they send over NFC where they are asked to."""
    vms: tuple[LabVm, ...] = ()

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _all_known(self) -> Self:
        datastores = {one.name for one in self.datastores}
        if {"ca", "localhost"} & set(self.hosts) or len(set(self.hosts)) < len(self.hosts):
            raise ValueError("every host needs a name of its own, and not ca or localhost")
        if not datastores or len(datastores) < len(self.datastores):
            raise ValueError("at least one datastore is needed, each with a name of its own")
        for vm in self.vms:
            for kind, names, known in (
                ("host", {vm.host} - {None}, set(self.hosts)),
                ("datastore", {vm.datastore, *(disk.datastore for disk in vm.disks)} - {None}, datastores),
                ("network", {nic.network for nic in vm.nics}, set(self.networks)),
            ):
                if names - known:
                    raise ValueError(f"{vm.name}: there is no {kind} {', '.join(map(str, names - known))}")
        if len({(vm.folder, vm.name) for vm in self.vms}) < len(self.vms):
            raise ValueError("two VMs of one folder have the same name")
        return self


class LabNetwork(Frozen):
    """An OpenNebula network with one IPv4 range."""

    name: str
    first_ip: str = "10.0.5.10"
    size: int = 50
    match: str | None = None
    """Its attribute VCENTER_NETWORK_MATCH."""


class LabOneDatastore(Frozen):
    """An OpenNebula image datastore: a real folder."""

    name: str = "default"
    tm: Literal["shared", "local"] = "shared"
    capacity_bytes: Bytes = Field(500 << 30, alias="capacity")

    model_config = ConfigDict(populate_by_name=True)


class LabOpenNebula(Frozen):
    """The simulated OpenNebula frontend with one KVM host."""

    datastores: tuple[LabOneDatastore, ...] = (LabOneDatastore(),)
    networks: tuple[LabNetwork, ...] = (LabNetwork(name="lan", match="VM Network"),)
    hosts: tuple[str, ...] = ("kvm1",)
    owner: str | None = None
    """The user of this machine who owns the datastores' files; whoever starts the lab by default."""
    image_delay: tuple[float, float] = (0.3, 1.0)
    """Seconds, from and to, until a new image is READY."""
    step_delay: tuple[float, float] = (0.1, 0.4)
    """Seconds, from and to, of each step in a VM's life (PROLOG, BOOT, shutdown, …)."""


class LabFault(Frozen):
    """A fault that is set when the lab is up: its name, and its arguments beside it (`LabControl.set_fault`)."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LabConfig(Frozen):
    """The whole lab."""

    seed: int = 1
    faults: tuple[LabFault, ...] = ()
    vcenter: LabVCenter = LabVCenter()
    opennebula: LabOpenNebula = LabOpenNebula()

    @classmethod
    def small(cls) -> Self:
        """Something to look at: one running VM with two disks that writes a little."""
        disks = (
            LabDisk(capacity_bytes=1 << 30, data_bytes=64 << 20),
            LabDisk(capacity_bytes=256 << 20, data_bytes=16 << 20),
        )
        vm = LabVm(
            name="web01",
            disks=disks,
            nics=(LabNic(network="VM Network", ip="10.0.5.20"),),
            workload=Workload(rate_bytes=1 << 20),
        )
        return cls(vcenter=LabVCenter(vms=(vm,)))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads a `lab.yaml`. Raises PlanError with file and field."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except OSError as error:
            raise PlanError(f"{path}: can't be read: {error}.", "Give the path of a lab.yaml.") from error
        except yaml.YAMLError as error:
            raise PlanError(f"{path}: it isn't YAML: {error}.", "Mend it.") from error
        except ValidationError as error:
            mistakes = [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}." for one in error.errors()]
            raise PlanError("\n".join(mistakes), "See snapferry/lab/config.py for the fields.") from error


class Endpoints(Frozen):
    """What the lab prints to its endpoints file (JSON, 0600) once everything answers."""

    pid: int
    ca_file: str
    """PEM of the lab's CA; it signed every certificate, host certificates included."""
    vcenter_host: str
    vcenter_port: int
    vcenter_user: str
    vcenter_password: str
    users: dict[str, str] = {}
    """Passwords of the other vCenter users."""
    opennebula_endpoint: str
    """`https://localhost:port/RPC2`"""
    opennebula_user: str
    opennebula_password: str
    control_url: str
    """The lab's own control interface; see `snapferry.lab.control`."""
    control_token: str
    folder: str

    def environment(self) -> dict[str, str]:
        """What describes both ends to the command line and to a worker, in place of blocks."""
        return {
            "SNAPFERRY_VCENTER_HOST": self.vcenter_host,
            "SNAPFERRY_VCENTER_PORT": str(self.vcenter_port),
            "SNAPFERRY_VCENTER_USER": self.vcenter_user,
            "SNAPFERRY_VCENTER_PASSWORD": self.vcenter_password,
            "SNAPFERRY_VCENTER_CA": self.ca_file,
            "SNAPFERRY_OPENNEBULA_ENDPOINT": self.opennebula_endpoint,
            "SNAPFERRY_OPENNEBULA_USER": self.opennebula_user,
            "SNAPFERRY_OPENNEBULA_PASSWORD": self.opennebula_password,
            "SNAPFERRY_OPENNEBULA_CA": self.ca_file,
        }
