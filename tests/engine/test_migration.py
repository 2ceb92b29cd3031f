"""A running VM moves, whole: what arrives equals what the source held when it went off."""

import time
from collections.abc import Callable

import pytest

from snapferry import opennebula
from snapferry.cutover import cut_over
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabOneDatastore, LabOpenNebula, LabVCenter, LabVm, Workload
from snapferry.prepare import prepare
from snapferry.rounds import run_round
from snapferry.watch import Watch

from .conftest import Ends
from .support import assert_equal

MANY_AREAS = 2_000


def odd_lab(seed: int) -> LabConfig:
    """A VM that is odd in every way that a thin line has to survive; its shape and content change with the seed."""
    workload = Workload(
        rate_bytes=3_000_000,
        hot_bytes=1200 << 20,  # most of the disk: areas far apart, in more than one page
        sequential=0.1,
        zeros=0.15,
        unmaps=0.15,
        write_bytes=4 << 10,
        late_disks_after_seconds=12,
    )
    disks = (
        LabDisk(capacity_bytes=(1250 << 20) + 512 * (1 + seed), data_bytes=160 << 20, data_runs=100 + seed),
        LabDisk(capacity_bytes=(64 << 20) + 4096 * seed + 512, data_bytes=20 << 20),
        LabDisk(capacity_bytes=3 << 40, data_bytes=8 << 20),
    )
    vm = LabVm(name="web01", disks=disks, nics=(LabNic(network="VM Network", ip="10.0.5.20"),), workload=workload)
    big = LabOpenNebula(datastores=(LabOneDatastore(capacity_bytes=8 << 40),))
    return LabConfig(seed=seed, vcenter=LabVCenter(vms=(vm,), change_page_extents=700), opennebula=big)


def guest_writes(lab: Lab, count: int, seconds: float = 60) -> None:
    """Waits until the guest has written so many times more."""
    wanted, deadline = lab.control.last_sequence("web01") + count, time.monotonic() + seconds
    while lab.control.last_sequence("web01") < wanted:
        assert time.monotonic() < deadline, "the guest writes too slowly"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_running_vm_arrives_equal(seed: int, make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lab = make_lab(odd_lab(seed))
    migration = ends.migration(lab, downtime_budget="1s", floor="20 MB", max_rounds=3)
    prepare(migration, Watch())
    rounds = [run_round(migration, Watch())]
    guest_writes(lab, MANY_AREAS)  # the other disks change late: these go to the first one
    while rounds[-1].verdict and rounds[-1].verdict.decision == "another":
        rounds.append(run_round(migration, Watch()))
    result = cut_over(migration, Watch())
    assert result.outcome == "migrated" and result.final is not None
    assert [one.kind for one in rounds[:2]] == ["base", "delta"]
    assert max(disk.extents for one in rounds[1:] for disk in one.disks) > MANY_AREAS
    assert any(disk.zero_bytes for one in rounds[1:] for disk in one.disks)
    assert_equal(lab, migration)
    assert result.machine_id is not None
    machine = opennebula.read_machine(migration.target, result.machine_id)
    assert (machine.state, machine.lcm_state) == (3, 3)
    source = lab.control.inventory().vms["web01-migrated"]
    assert (source.power, source.snapshots, source.nics_start_connected) == ("poweredOff", (), (False,))
    assert lab.control.inventory().locks == ()
