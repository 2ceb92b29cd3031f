"""What the frontend keeps: plain mutable records, guarded by the world's lock."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import ClassVar

from snapferry.lab.opennebula.attributes import Attributes, Vector


class Kind(Enum):
    """A kind of object: its name in authorizations, and its name in other messages."""

    IMAGE = ("IMAGE", "image")
    TEMPLATE = ("TEMPLATE", "virtual machine template")
    NET = ("NET", "virtual network")
    VM = ("VM", "virtual machine")
    DATASTORE = ("DATASTORE", "datastore")
    HOST = ("HOST", "host")
    USER = ("USER", "user")
    GROUP = ("GROUP", "group")

    @property
    def auth(self) -> str:
        return self.value[0]

    @property
    def label(self) -> str:
        return self.value[1]


class ImageStates(IntEnum):
    """`IMAGE/STATE`."""

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

    @property
    def text(self) -> str:
        """As messages name it: a used image is USED, persistent or not."""
        return self.name.removesuffix("_PERS")


class VmState(IntEnum):
    """`VM/STATE`."""

    INIT = 0
    PENDING = 1
    HOLD = 2
    ACTIVE = 3
    STOPPED = 4
    SUSPENDED = 5
    DONE = 6
    POWEROFF = 8
    UNDEPLOYED = 9
    CLONING = 10
    CLONING_FAILURE = 11


class Lcm(IntEnum):
    """`VM/LCM_STATE`, those that this frontend passes through."""

    LCM_INIT = 0
    PROLOG = 1
    BOOT = 2
    RUNNING = 3
    SAVE_SUSPEND = 6
    EPILOG = 11
    SHUTDOWN = 12
    HOTPLUG = 17
    SHUTDOWN_POWEROFF = 18
    BOOT_POWEROFF = 20
    BOOT_SUSPENDED = 21
    CLEANUP_DELETE = 23
    HOTPLUG_NIC = 25
    HOTPLUG_PROLOG_POWEROFF = 33
    HOTPLUG_EPILOG_POWEROFF = 34
    BOOT_FAILURE = 36
    PROLOG_FAILURE = 39
    EPILOG_FAILURE = 40
    HOTPLUG_NIC_POWEROFF = 65


IMAGE_TYPES = ("OS", "CDROM", "DATABLOCK", "KERNEL", "RAMDISK", "CONTEXT", "BACKUP", "FILESYSTEM")


@dataclass
class Lock:
    level: int
    owner: int
    time: int
    request_id: int


@dataclass(kw_only=True)
class Thing:
    """What every object has."""

    kind: ClassVar[Kind]

    id: int
    uid: int = 0
    gid: int = 0
    name: str
    permissions: list[int] = field(default_factory=lambda: [1, 1, 0, 0, 0, 0, 0, 0, 0])
    """Use, manage, admin of owner, group, others."""
    lock: Lock | None = None
    attributes: Attributes = field(default_factory=Attributes)
    """The TEMPLATE section; of a VM the USER_TEMPLATE."""
    regtime: int = 0


@dataclass(kw_only=True)
class Group(Thing):
    kind = Kind.GROUP


@dataclass(kw_only=True)
class User(Thing):
    kind = Kind.USER
    password: str
    tokens: dict[str, float] = field(default_factory=dict)
    """Login tokens with the time they end (seconds since the epoch; -1: never)."""


@dataclass(kw_only=True)
class Host(Thing):
    kind = Kind.HOST
    vms: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Datastore(Thing):
    kind = Kind.DATASTORE
    type: int
    """0 image, 1 system, 2 file."""
    tm: str
    base_path: str
    total_mib: int


@dataclass(kw_only=True)
class Image(Thing):
    kind = Kind.IMAGE
    type: int
    persistent: bool
    datastore_id: int
    size: int
    """MiB."""
    format: str = "raw"
    source: str = ""
    path: str = ""
    state: ImageStates = ImageStates.LOCKED
    fresh: bool = True
    """Never left the state it was born in."""
    registered: bool = False
    """Made from an existing volume (SOURCE=)."""
    vms: list[int] = field(default_factory=list)
    cloning_ops: int = 0
    cloning_id: int = -1
    modtime: int = 0

    def move(self, state: ImageStates) -> None:
        self.state = state
        self.fresh = False


@dataclass(kw_only=True)
class Template(Thing):
    kind = Kind.TEMPLATE


@dataclass
class AddressRange:
    id: int
    type: str
    first_ip: str | None
    first_mac: str
    size: int
    extra: Vector = field(default_factory=dict)
    """Attributes that somebody added."""
    leases: dict[int, int] = field(default_factory=dict)
    """Index within the range to the VM; -1: on hold."""


@dataclass(kw_only=True)
class Network(Thing):
    kind = Kind.NET
    ranges: list[AddressRange] = field(default_factory=list)
    next_range: int = 0
    state: int = 1
    """1 READY, 2 LOCK_CREATE."""


@dataclass
class History:
    seq: int
    host_id: int
    host_name: str
    datastore_id: int
    tm: str
    times: dict[str, int] = field(default_factory=dict)
    """STIME, ETIME, PSTIME, PETIME, RSTIME, RETIME, ESTIME, EETIME; 0 where it hasn't happened."""
    action: int = 0
    uid: int = -1
    gid: int = -1
    request_id: int = -1


@dataclass(kw_only=True)
class Machine(Thing):
    kind = Kind.VM
    template: Attributes = field(default_factory=Attributes)
    """TEMPLATE, but its disks, NICs and context."""
    disks: list[Vector] = field(default_factory=list)
    nics: list[Vector] = field(default_factory=list)
    context: Vector | None = None
    state: VmState = VmState.PENDING
    lcm: int = Lcm.LCM_INIT
    hold: bool = False
    last_poll: int = 0
    etime: int = 0
    deploy_id: str = ""
    history: list[History] = field(default_factory=list)
    step: int = 0
    """Counts transitions, so that a job of an earlier one doesn't act any more."""

    @property
    def state_text(self) -> str:
        if self.state is not VmState.ACTIVE:
            return self.state.name
        return Lcm(self.lcm).name if self.lcm in set(Lcm) else str(self.lcm)
