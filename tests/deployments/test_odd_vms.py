"""VMs that are odd in every way go through the deployments, and arrive whole."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from snapferry.deployments import answer_gate, deploy
from snapferry.lab import Lab, up
from snapferry.plan import MigrationPlan
from snapferry.record import Phase

from ..engine.support import assert_equal
from ..odd import MANY_AREAS, STEADY, guest_reaches, odd_lab
from .conftest import Site, save_blocks
from .support import begin, open_migration, plan, watch, yes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect, long")]  # side by side with the others
SEEDS = (101, 102, 103)
FALLING = STEADY.model_copy(
    update={"start_rate_bytes": 1_500_000, "rate_bytes": 150_000, "settle_seconds": 60, "late_disks_after_seconds": 30}
)
"""Ends before a slow machine has too much to copy."""
LATE_SEQUENCE = 30 * (1_500_000 + 825_000) // 2 // FALLING.write_bytes
"""Number of the guest's write after 30 s: from then on it writes to all disks."""


@pytest.fixture
def odd_labs(tmp_path: Path) -> Iterator[dict[str, Lab]]:
    """A lab for each seed, by the name of its VM, which is off."""
    configs = {f"odd{seed}": odd_lab(seed, f"odd{seed}", FALLING, "off") for seed in SEEDS}
    with ExitStack() as stack:
        yield {name: stack.enter_context(up(config, tmp_path / name)) for name, config in configs.items()}


def test_odd_vms_arrive_equal_through_the_deployments(site: Site, odd_labs: dict[str, Lab]) -> None:
    """Three seeds side by side: pre-sync, then the migration up to its gate, the answer, the cutover."""
    plans = {name: plan(name, site=name) for name in odd_labs}
    for name, lab in odd_labs.items():
        save_blocks(name, lab)
        lab.control.power_on(name)
    deploy(list(plans.values()))
    presyncs = [begin(f"presync-vm/presync-{name}") for name in plans]
    assert {watch(presync).outcome for presync in presyncs} == {"completed"}
    wanted = {name: lab.control.last_sequence(name) + 3 * MANY_AREAS // 2 for name, lab in odd_labs.items()}
    for name, lab in odd_labs.items():
        guest_reaches(lab, max(wanted[name], LATE_SEQUENCE), name, seconds=120)
    migrations = {name: begin(f"migrate-vm/migrate-{name}") for name in plans}
    for name, migration in migrations.items():
        assert watch(migration).outcome == "waiting"
        answer_gate(migration, yes(name))
    for name, migration in migrations.items():
        assert watch(migration).outcome == "completed"
        check_arrived(odd_labs[name], plans[name])


def check_arrived(lab: Lab, plan: MigrationPlan) -> None:
    """Both ends are equal, and the rounds had everything that is odd in them."""
    with open_migration(plan) as migration:
        assert migration.planned.phase == Phase.MIGRATED
        rounds = migration.planned.rounds
        assert [one.kind for one in rounds][:2] == ["base", "delta"]
        assert rounds[-1].kind == "final"
        assert max(sum(disk.extents for disk in one.disks) for one in rounds[1:]) > MANY_AREAS
        assert any(disk.zero_bytes for one in rounds[1:] for disk in one.disks)
        assert any(one.disks[1].changed_bytes for one in rounds[1:])  # the disk that changes late
        assert migration.vm.disks[2].capacity_bytes == 3 << 40
        assert_equal(lab, migration)
    (machine,) = lab.control.inventory().machines
    assert (machine["name"], machine["state"]) == (plan.vm, "ACTIVE")
