"""A running VM moves, whole: what arrives equals what the source held when it went off."""

from collections.abc import Callable

import pytest

from snapferry import opennebula
from snapferry.cutover import cut_over
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig
from snapferry.prepare import prepare
from snapferry.rounds import run_round
from snapferry.watch import Watch

from ..odd import MANY_AREAS, guest_reaches, odd_lab, steady_write
from .conftest import Ends
from .support import assert_equal


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_running_vm_arrives_equal(seed: int, make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lab = make_lab(odd_lab(seed))
    migration = ends.migration(lab, downtime_budget="1s", floor="20 MB", max_rounds=2)
    prepare(migration, Watch())
    begun = lab.control.last_sequence("web01")
    rounds = [run_round(migration, Watch())]
    # on a slow machine the other disks begin to change before the first one has; zeros over zeros are no change, and
    # neighbours make one area
    enough = steady_write(begun, 7 * MANY_AREAS // 4)
    guest_reaches(lab, max(enough, lab.control.last_sequence("web01") + 3 * MANY_AREAS // 2))
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
