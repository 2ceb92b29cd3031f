"""What a host answers to the control process: plain JSON values, typed."""

from typing import TypedDict

from snapferry.lab.kinds import KindName


class NewDisk(TypedDict):
    """A disk to create in its VM's folder on a datastore, with `data_bytes` of seeded content in `data_runs` runs."""

    key: int
    datastore: str
    kind: KindName
    capacity_bytes: int
    data_bytes: int
    data_runs: int
    file: str


class CreatedDisk(TypedDict):
    key: int
    file: str
    uuid: str
    allocated_bytes: int


class CreatedVm(TypedDict):
    disks: list[CreatedDisk]


class PoweredOff(TypedDict):
    sequence: int


class SnapshotDisk(TypedDict):
    key: int
    frozen: str
    leaf: str
    change_id: str | None


class CreatedSnapshot(TypedDict):
    disks: list[SnapshotDisk]


class LeafDisk(TypedDict):
    key: int
    leaf: str


class FrozenDisk(TypedDict):
    key: int
    frozen: str


class Chains(TypedDict):
    """The leaves now, and what the snapshots hold: their files may have another name than before."""

    disks: list[LeafDisk]
    snapshots: dict[str, list[FrozenDisk]]


class TrackedDisk(TypedDict):
    key: int
    change_id: str | None


class Tracking(TypedDict):
    """`pending` is a switch that waits for the next stun."""

    enabled: bool
    pending: bool | None
    disks: list[TrackedDisk]


class ChangedAreas(TypedDict):
    start: int
    length: int
    areas: list[list[int]]


class Digest(TypedDict):
    sha256: str


class FolderFile(TypedDict):
    """`path` is its whole one: `[san1] web01/web01.vmdk`."""

    path: str
    name: str
    size_bytes: int
    allocated_bytes: int


class CounterValues(TypedDict):
    nfc_bytes: dict[str, int]
    connections: int
    requests: int
    faults: dict[str, int]
