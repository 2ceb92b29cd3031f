"""What Snapferry knows of the target: plain frozen values, with no client behind them."""

from enum import IntEnum
from ipaddress import ip_address

from snapferry.plan import Frozen


class ImageState(IntEnum):
    """`IMAGE/STATE`; an unknown number becomes `UNKNOWN`."""

    UNKNOWN = -1
    INIT = 0
    READY = 1
    USED = 2
    DISABLED = 3
    LOCKED = 4
    ERROR = 5
    CLONE = 6
    DELETE = 7
    USED_PERS = 8
    LOCKED_USED = 9
    LOCKED_USED_PERS = 10

    @classmethod
    def _missing_(cls, value: object) -> "ImageState":
        return cls.UNKNOWN


class Image(Frozen):
    """One image."""

    id: int
    name: str
    state: ImageState
    source: str
    """Path or volume; empty until the driver has made it."""
    size_mib: int
    type: int
    """0 OS, 2 DATABLOCK."""
    format: str
    persistent: bool
    datastore_id: int
    vms: tuple[int, ...]
    """VMs that use it."""
    attributes: dict[str, str | dict[str, str]]
    """The TEMPLATE section: single values and vectors."""
    lock: "Lock | None" = None


class Lock(Frozen):
    """A lock on an object."""

    level: int
    owner: int
    time: int
    """Seconds since the epoch, the frontend's clock."""


class Datastore(Frozen):
    """One datastore."""

    id: int
    name: str
    kind: int
    """0 image, 1 system, 2 file."""
    ds_mad: str
    tm_mad: str
    base_path: str
    """As the frontend says it, double slash and all."""
    free_mib: int
    total_mib: int
    attributes: dict[str, str | dict[str, str]]


class Lease(Frozen):
    """An address that is taken."""

    ip: str | None
    mac: str
    vm: int
    """The VM that has it; -1 where the address is only held back."""


class AddressRange(Frozen):
    """A range of a network."""

    id: int
    kind: str
    """`IP4`, `ETHER`, …"""
    first_ip: str | None
    first_mac: str
    size: int
    leased_ips: tuple[str, ...] = ()
    leased_macs: tuple[str, ...] = ()
    leases: tuple[Lease, ...] = ()
    """Filled where the network was read by itself."""
    attributes: dict[str, str] = {}
    """All of the AR vector, ours too."""

    def holds_ip(self, ip: str) -> bool:
        """Whether the address lies in this range."""
        return self.index_of_ip(ip) is not None

    def index_of_ip(self, ip: str) -> int | None:
        """Which address of the range it is, from 0; None outside."""
        if not self.first_ip:
            return None
        first, wanted = ip_address(self.first_ip), ip_address(ip)
        index = int(wanted) - int(first)
        return index if first.version == wanted.version and 0 <= index < self.size else None

    def index_of_mac(self, mac: str) -> int | None:
        """Which MAC of the range it is, from 0; None outside."""
        index = _mac_number(mac) - _mac_number(self.first_mac)
        return index if 0 <= index < self.size else None


def _mac_number(mac: str) -> int:
    return int(mac.replace(":", "") or "0", 16)


class Network(Frozen):
    """One virtual network."""

    id: int
    name: str
    attributes: dict[str, str | dict[str, str]]
    ranges: tuple[AddressRange, ...]


class Template(Frozen):
    """One VM template."""

    id: int
    name: str
    attributes: dict[str, str | dict[str, str] | list[dict[str, str]]]
    lock: Lock | None = None


class Machine(Frozen):
    """One VM at the target."""

    id: int
    name: str
    state: int
    """`VM/STATE`: 1 PENDING, 2 HOLD, 3 ACTIVE, 6 DONE, 8 POWEROFF, …"""
    lcm_state: int
    """`VM/LCM_STATE`: 1 PROLOG, 2 BOOT, 3 RUNNING, 36 BOOT_FAILURE, 39 PROLOG_FAILURE, …"""
    template_id: int | None
    error: str
    """`USER_TEMPLATE/ERROR`; empty where there is none."""
    disks: tuple[dict[str, str], ...]
    nics: tuple[dict[str, str], ...]
    attributes: dict[str, str | dict[str, str] | list[dict[str, str]]]
    """USER_TEMPLATE."""
    host: str = ""
    """Where it runs, or ran last."""
