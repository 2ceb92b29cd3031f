"""A lab whose VM is odd in every way that a move has to survive; engine and deployments move it."""

import time
from typing import Literal

from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabOneDatastore, LabOpenNebula, LabVCenter, LabVm, Workload
from snapferry.lab.host.answers import NewDisk
from snapferry.lab.kinds import KindName

MANY_AREAS = 2_000
LATE_SECONDS = 12
"""From then on the steady guest writes to any of its three disks."""
STEADY = Workload(
    rate_bytes=1_200_000,
    hot_bytes=1200 << 20,  # most of the disk: areas far apart, in more than one page
    sequential=0.1,
    zeros=0.15,
    unmaps=0.15,
    write_bytes=4 << 10,
    late_disks_after_seconds=LATE_SECONDS,
)


def odd_lab(seed: int, vm: str = "web01", workload: Workload = STEADY, power: Literal["on", "off"] = "on") -> LabConfig:
    """A VM that is odd in every way that a thin line has to survive; its shape and content change with the seed."""
    disks = (
        LabDisk(capacity_bytes=(1250 << 20) + 512 * (1 + seed), data_bytes=48 << 20, data_runs=100 + seed),
        LabDisk(capacity_bytes=(64 << 20) + 4096 * seed + 512, data_bytes=8 << 20),
        LabDisk(capacity_bytes=3 << 40, data_bytes=4 << 20),
    )
    nics = (LabNic(network="VM Network", ip="10.0.5.20"),)
    odd = LabVm(name=vm, disks=disks, nics=nics, workload=workload, power=power, shutdown_seconds=0.2)
    big = LabOneDatastore(capacity_bytes=8 << 40)
    target = LabOpenNebula(datastores=(big,), image_delay=(0.05, 0.3), step_delay=(0.02, 0.1))
    return LabConfig(seed=seed, vcenter=LabVCenter(vms=(odd,), change_page_extents=700), opennebula=target)


def guest_writes(lab: Lab, count: int, vm: str = "web01", seconds: float = 60) -> None:
    """Waits until the guest has written so many times more."""
    guest_reaches(lab, lab.control.last_sequence(vm) + count, vm, seconds)


def steady_write(since: int, first_disk: int) -> int:
    """Number of the steady guest's write by which the first disk has had so many since the write `since`."""
    late = LATE_SECONDS * STEADY.rate_bytes // STEADY.write_bytes
    alone = max(0, late - since)
    return since + first_disk if first_disk <= alone else max(since, late) + 3 * (first_disk - alone)


def guest_reaches(lab: Lab, sequence: int, vm: str = "web01", seconds: float = 60) -> None:
    """Waits until the guest has made the write of that number."""
    deadline = time.monotonic() + seconds
    while lab.control.last_sequence(vm) < sequence:
        assert time.monotonic() < deadline, "the guest writes too slowly"
        time.sleep(0.05)


def new_disk(capacity: int, data: int, runs: int, kind: KindName = "vmfs6", number: int = 0) -> NewDisk:
    """What a lab's host is asked for: disk `number` of a VM in `[san1] web01`."""
    return {
        "key": 2000 + number,
        "datastore": "san1",
        "kind": kind,
        "capacity_bytes": capacity,
        "data_bytes": data,
        "data_runs": runs,
        "file": f"web01_{number}.vmdk" if number else "web01.vmdk",
    }
