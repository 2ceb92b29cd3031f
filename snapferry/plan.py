"""What shall be moved, and how: one YAML file a VM."""

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from snapferry.errors import PlanError

_DURATION = re.compile(r"(?:(?P<hours>\d+)h)?\s*(?:(?P<minutes>\d+)m(?:in)?)?\s*(?:(?P<seconds>\d+(?:\.\d+)?)s)?")
_SHARE = re.compile(r"(?P<percent>\d+(?:\.\d+)?)\s*%")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?i?B?)(?:/s)?", re.IGNORECASE)


def parse_duration(value: object) -> object:
    """Seconds from a number, or from text such as `90s`, `5m` or `1h 30m`."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value.strip())
    if not found or not any(found.groups()):
        raise ValueError(f"{value!r} is no duration; write for example 90s, 5m or 1h 30m")
    parts = found.groupdict(default="0")
    return float(parts["hours"]) * 3600 + float(parts["minutes"]) * 60 + float(parts["seconds"])


def parse_size(value: object) -> object:
    """Bytes from a number, or from text such as `64 MiB`, `1.5GB` or `200 MB/s` (a rate: bytes a second)."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if not found:
        raise ValueError(f"{value!r} is no size; write for example 64 MiB or 1.5 GB")
    unit = found["unit"].upper().rstrip("B")
    base = 1024 if unit.endswith("I") else 1000
    exponent = " KMGT".index(unit[0]) if unit else 0
    return round(float(found["number"]) * base**exponent)


def parse_share(value: object) -> object:
    """A share from 0 to 1 from a number, or from text such as `10%`."""
    if not isinstance(value, str):
        return value
    found = _SHARE.fullmatch(value.strip())
    if not found:
        raise ValueError(f"{value!r} is no share; write for example 10%")
    return float(found["percent"]) / 100


Seconds = Annotated[float, BeforeValidator(parse_duration)]
Bytes = Annotated[int, BeforeValidator(parse_size)]
Share = Annotated[float, BeforeValidator(parse_share)]


class Deploy(StrEnum):
    """What a migration leaves at the target."""

    VM = "vm"
    TEMPLATE = "template"


class OnShutdownTimeout(StrEnum):
    """What to do with a guest that doesn't shut down in time."""

    ABORT = "abort"
    POWER_OFF = "power-off"


class OnNoConvergence(StrEnum):
    """What to do when the VM dirties its disks faster than they can be copied."""

    HOLD = "hold"
    GATE = "gate"


class Route(StrEnum):
    """A way to the bytes of a disk."""

    NFC = "nfc"
    """Random reads through the host's NFC service (TCP 902), on any datastore."""
    DATASTORE = "datastore"
    """The disk's files, by HTTPS from its host."""
    MOUNT = "mount"
    """The disk's files, where its datastore is mounted on the worker."""
    EXPORT = "export"
    """The whole disk as a stream, through an export lease."""


class ChangesBy(StrEnum):
    """By what it is found out which blocks of a disk changed."""

    TRACKING = "tracking"
    """vSphere's changed block tracking."""
    DELTA_FILES = "delta-files"
    """The tables of the files that a snapshot has the guest write to: it stays until the next round's is copied."""
    COMPARE = "compare"
    """Every block is read and held against the image."""


class OnDoubt(StrEnum):
    """What to do where what is told of the last changes can't be trusted, while the VM is off."""

    ROLL_BACK = "roll_back"
    COMPARE = "compare"
    COPY = "copy"


class Frozen(BaseModel):
    """A model that can't be changed and refuses fields that it doesn't know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NetworkRule(Frozen):
    """Which OpenNebula network takes the place of a vSphere one."""

    source: str
    """Name of the vSphere network or port group; `*` stands for any run of characters."""
    target: str | int
    """Name or ID of the OpenNebula network."""


class Shutdown(Frozen):
    """How the guest is stopped at cutover."""

    timeout_seconds: Seconds = Field(300, gt=0, le=3600, alias="timeout")
    """How long the guest may take to shut down."""
    on_timeout: OnShutdownTimeout = OnShutdownTimeout.ABORT
    """`abort` leaves the VM running and ends the cutover; `power-off` pulls the plug."""

    model_config = ConfigDict(populate_by_name=True)


class SnapshotPolicy(Frozen):
    """What a round's snapshot may cost the source; a round that reaches a limit ends and lets its snapshot go."""

    most_age_seconds: Seconds = Field(86400, gt=0, alias="most_age")
    """How long it may be there while a round copies it; VMware advises against more than 72 hours."""
    most_size_bytes: Bytes | None = Field(None, gt=0, alias="most_size")
    """How large its delta files may grow over all disks; no limit by default."""
    least_free: Share = Field(0.1, ge=0, lt=1)
    """Share of each of the disks' datastores that has to stay free; with less, no snapshot is taken."""
    wait_for_others_seconds: Seconds = Field(600, ge=0, alias="wait_for_others")
    """How long a round waits for somebody else's snapshot, such as a backup's, to go."""

    model_config = ConfigDict(populate_by_name=True)


class Window(Frozen):
    """When a cutover may start, at any time of day from `start` to `end` on these days; without one: at any time."""

    days: tuple[Annotated[str, Field(pattern="^(mon|tue|wed|thu|fri|sat|sun)$")], ...] = (
        "mon", "tue", "wed", "thu", "fri", "sat", "sun",
    )  # fmt: skip
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is no time zone; write for example Europe/Vienna")
        ZoneInfo(name)
        return name


class Schedule(Frozen):
    """When pre-sync runs by itself."""

    cron: str = "0 1 * * *"
    """Five cron fields; the default is one o'clock at night."""
    timezone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _cron(cls, text: str) -> str:
        if len(text.split()) != 5:
            raise ValueError(f"{text!r} is no cron line; it has five fields, for example 0 1 * * *")
        return text

    _known = field_validator("timezone")(Window._known.__func__)  # type: ignore[attr-defined]


class MigrationPlan(Frozen):
    """One VM's move from vCenter to OpenNebula."""

    vm: str = Field(min_length=1)
    """The VM: its name, its inventory path (`/Vienna/vm/prod/web01`) or its instance UUID."""
    vcenter: str = "vcenter"
    """Name of the Prefect block `VCenter` that knows the source."""
    opennebula: str = "opennebula"
    """Name of the Prefect block `OpenNebula` that knows the target."""
    image_datastore: str | int
    """Name or ID of the OpenNebula image datastore that takes the disks."""
    networks: tuple[NetworkRule, ...] = ()
    """Rules from vSphere to OpenNebula networks, first match wins; where none matches, the network is taken whose
    attribute VCENTER_NETWORK_MATCH equals the vSphere name."""
    deploy: Deploy = Deploy.VM
    """`vm` starts the machine at the target; `template` leaves a template and its images."""
    target_name: str | None = None
    """Name at the target; the source's name by default."""
    keep_ip: bool = True
    """Whether NICs ask for the address that the guest has now, where the target network's range holds it."""
    downtime_budget_seconds: Seconds = Field(120, gt=0, alias="downtime_budget")
    """The cutover is offered once its predicted downtime fits."""
    floor_bytes: Bytes = Field(64 << 20, ge=0, alias="floor")
    """A delta below this counts as converged whatever the prediction says."""
    max_rounds: int = Field(10, ge=2, le=100)
    """Rounds, the base included, after which a run stops trying to converge."""
    on_no_convergence: OnNoConvergence = OnNoConvergence.GATE
    """`gate` goes on to the gate and says so; `hold` keeps the VM warm and waits for the next run."""
    on_doubt: OnDoubt = OnDoubt.ROLL_BACK
    """What to do if what is told of the last changes is doubted, the VM being off: `roll_back` puts it back in service;
    `compare` compares it with its image and `copy` copies it in full while the VM is off, which may take hours."""
    gate: bool = True
    """Whether a person has to approve the cutover."""
    gate_timeout_seconds: Seconds = Field(7 * 86400, gt=0, alias="gate_timeout")
    """How long the gate waits for an answer."""
    window: Window | None = None
    """When a cutover may start; an approval outside it waits for the next one."""
    presync: Schedule = Schedule()
    """When the deployment `presync-<vm>` runs by itself."""
    shutdown: Shutdown = Shutdown()
    snapshot: SnapshotPolicy = SnapshotPolicy()
    """What a round's snapshot may cost the source."""
    route: Route | None = None
    """How the disks are read: `nfc`, `datastore` (their files by HTTPS), `mount` (their files where `mounts` has their
    datastore) or `export` (whole disks as a stream); by default the best that is open. Where it fails or can't be, the
    next one is taken, and that is said."""
    mounts: dict[str, Path] = {}
    """Where NFS datastores are mounted on the worker: `{nfs1: /mnt/nfs1}`."""
    changes: ChangesBy | None = None
    """By what it is found out which blocks changed: `tracking` (switched on where it is off), `delta-files` (a snapshot
    stays between rounds; VMFS 6 gives them away only of a VM that is off, so rounds compare there) or `compare` (each
    round, and the cutover while the VM is off, reads the whole disks); by default the first that can be had."""
    rate_limit_bytes: Bytes | None = Field(None, gt=0, alias="rate_limit")
    """The most that is read from the source in a second, over all disks of the VM; no limit by default."""
    enable_change_tracking: bool = True
    """Whether change tracking is switched on where it is off (a snapshot is made and removed for it)."""
    restore_change_tracking: bool = False
    """Whether `snapferry abandon` switches change tracking off again where Snapferry switched it on."""
    connections: int = Field(3, ge=1, le=8)
    """NFC connections for each disk."""
    nfc_compression: bool = False
    """Whether hosts compress what they send over NFC. It is for slow links: programs and text are expanded at some MB/s
    only, so that it would slow down a link of more than about 25 Mbit/s."""
    copies_per_host: int = Field(8, ge=1, le=50)
    """Disks that are read from one ESXi host at once, over all migrations."""

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _networks_as_a_map(cls, data: Any) -> Any:
        """`networks: {VM Network: lan}` is a shorter way to write the rules."""
        if isinstance(data, dict) and isinstance(data.get("networks"), dict):
            rules = [{"source": source, "target": target} for source, target in data["networks"].items()]
            return {**data, "networks": rules}
        return data

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a plan.

        Raises:
            PlanError: the file can't be read, isn't YAML, or a field is unknown or bad; the message names file,
                line and field.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path}: can't be read: {error}.", "Give the path of a plan in YAML.") from error
        return cls.from_yaml(text, str(path))

    @classmethod
    def from_yaml(cls, text: str, name: str) -> Self:
        """Reads a plan from text; `name` stands for the file in messages. Raises PlanError."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "it isn't YAML"
            raise PlanError(f"{name}{line}: {problem}.", "Mend the YAML.") from error
        if not isinstance(data, dict):
            raise PlanError(
                f"{name}:1: a plan is a list of fields, such as `vm: web01`.", "See `snapferry plan --help`."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = [_mistake(name, root, dict(one)) for one in error.errors()]
            fields = ", ".join(field.alias or name for name, field in cls.model_fields.items())
            raise PlanError("\n".join(lines), f"Fields of a plan: {fields}.") from error

    @property
    def slug(self) -> str:
        """The VM's name as it may stand in a deployment's name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", vm_name(self.vm)).strip("-") or "vm"


def vm_name(reference: str) -> str:
    """The VM's name in a reference to it, which may be an inventory path (`/Vienna/dc1/vm/prod/web01`).

    A name with a slash in it, which vSphere escapes in paths, is no path.
    """
    return unquote(reference.rsplit("/", 1)[-1]) if reference.startswith("/") else reference


def _mistake(name: str, root: Any, error: dict[str, Any]) -> str:
    """One line for one mistake: file, line, field and what is wrong."""
    path = [part for part in error["loc"] if not str(part).startswith(("function-", "float", "int", "str"))]
    field = ".".join(str(part) for part in path) or "plan"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such field"
    elif error["type"] == "missing":
        message = "this field is required"
    return f"{name}:{_line(root, path)}: {field}: {message}."


def _line(node: Any, path: list[Any]) -> int:
    """The line (from 1) of the deepest part of `path` that the document has."""
    line: int = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
