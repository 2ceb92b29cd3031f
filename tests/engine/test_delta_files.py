"""Delta files tell what changed: a snapshot stays between rounds, and nothing of it is left in the end."""

from collections.abc import Callable

import pytest

from snapferry import vsphere
from snapferry.abandon import abandon
from snapferry.assess import assess
from snapferry.cutover import cut_over
from snapferry.errors import Refused, RolledBack
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabVCenter
from snapferry.migration import Migration
from snapferry.plan import ChangesBy
from snapferry.prepare import prepare
from snapferry.reconcile import reconcile_migration
from snapferry.record import RoundResult
from snapferry.round_snapshot import SnapshotLimit
from snapferry.rounds import run_round
from snapferry.watch import Watch

from ..conftest import wait_for
from ..odd import guest_writes
from .conftest import Ends, small_vm
from .support import assert_equal

pytestmark = pytest.mark.slow

TOO_OLD = 4
"""A hardware version that can't track changes."""


@pytest.fixture
def lab(make_lab: Callable[[LabConfig], Lab]) -> Lab:
    return make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(hardware_version=TOO_OLD),))))


def means(result: RoundResult | None) -> set[str]:
    assert result
    return {disk.changes for disk in result.disks}


def ours(lab: Lab, vm: str = "web01") -> tuple[str, ...]:
    return lab.control.inventory().vms[vm].snapshots


def free_share(migration: Migration) -> float:
    return min(one.free_share for one in vsphere.datastore_space(migration.source, migration.vm).values())


def test_vmfs6_gives_delta_files_away_in_time_for_the_last_changes(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    text = assess(migration.source, migration.vm, migration.plan)
    assert all("vmfs6 locks a running VM's delta files" in one for one in text.changes.values())
    assert any("A snapshot stays between rounds" in one for one in text.estimate.notes)
    prepare(migration, Watch())
    first = run_round(migration, Watch())
    kept = ours(lab)
    second = run_round(migration, Watch())
    assert (first.kind, second.kind) == ("base", "compare")
    assert len(kept) == len(ours(lab)) == 1 and ours(lab) != kept
    assert second.verdict and second.verdict.decision == "converged", "what is compared isn't compared while it's off"
    guest_writes(lab, 20)
    final = cut_over(migration, Watch()).final
    assert means(final) == {ChangesBy.DELTA_FILES}
    assert final and 0 < final.changed_bytes < second.copied_bytes / 2
    assert_equal(lab, migration)
    assert ours(lab, "web01-migrated") == ()


def test_a_vm_that_is_off_has_every_round_told_by_its_delta_files(lab: Lab, ends: Ends) -> None:
    lab.control.power_off("web01")
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    lab.control.power_on("web01")
    guest_writes(lab, 20)
    lab.control.power_off("web01")
    second = run_round(migration, Watch())
    assert (second.kind, means(second)) == ("delta", {ChangesBy.DELTA_FILES})
    assert 0 < second.changed_bytes < sum(disk.capacity_bytes for disk in migration.vm.disks) / 2
    assert len(ours(lab)) == 1
    final = cut_over(migration, Watch()).final
    assert final and final.changed_bytes == 0
    assert_equal(lab, migration)
    assert ours(lab, "web01-migrated") == ()


def test_a_base_whose_snapshot_somebody_deleted_is_compared(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    (kept,) = vsphere.our_snapshots(vsphere.read_vm(migration.source, migration.vm.moref))
    vsphere.remove_snapshot(migration.source, migration.vm, kept.moref)
    (found,) = reconcile_migration(ends.migration(lab), Watch())
    assert "was removed" in found.what and "presync" in found.needs
    with pytest.raises(RolledBack, match=r"can't be trusted.*stands on is gone"):
        cut_over(migration, Watch())
    lab.control.power_off("web01")
    result = run_round(migration, Watch())
    assert result.kind == "base" and all("is gone" in disk.doubt for disk in result.disks)
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_what_stays_between_rounds_is_no_leftover_and_goes_with_abandon(lab: Lab, ends: Ends) -> None:
    before = lab.control.inventory()
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    assert len(ours(lab)) == 1
    assert reconcile_migration(ends.migration(lab), Watch()) == []
    assert len(ours(lab)) == 1
    abandon(migration, Watch())
    assert lab.control.inventory() == before


def test_a_limit_lets_the_kept_snapshot_go_too_and_the_next_round_compares(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    lab.control.set_fault("datastore_full", free_bytes=1 << 20)
    wait_for(lambda: free_share(migration) < 0.1, 30, "vCenter learns that the datastore is full")
    with pytest.raises(Refused, match=r"no snapshot is taken.*least_free"):
        run_round(migration, Watch())
    assert ours(lab) == ()
    lab.control.clear_faults()
    wait_for(lambda: free_share(migration) > 0.1, 30, "vCenter learns that the datastore has room")
    late = ends.migration(lab, snapshot={"most_age": "0.001s"})
    with pytest.raises(SnapshotLimit):
        run_round(late, Watch())
    assert ours(lab) == ()
    assert run_round(migration, Watch()).kind == "compare"
    assert len(ours(lab)) == 1
    cut_over(migration, Watch())
    assert_equal(lab, migration)
