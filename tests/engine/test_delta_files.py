"""Delta files tell what changed: a snapshot stays between rounds, and nothing of it is left in the end."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snapferry import opennebula, vsphere
from snapferry.abandon import abandon
from snapferry.assess import assess
from snapferry.cutover import cut_over
from snapferry.errors import Refused, RolledBack
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabDatastore, LabVCenter, Workload
from snapferry.migration import Migration
from snapferry.plan import ChangesBy
from snapferry.prepare import prepare
from snapferry.reconcile import reconcile_migration
from snapferry.round_snapshot import SnapshotLimit
from snapferry.rounds import run_round
from snapferry.watch import Watch
from snapferry.writers import ImageBusy, RawFileWriter

from ..conftest import wait_for
from ..odd import guest_writes
from .conftest import TOO_OLD, Ends, small_vm
from .support import assert_equal, die_at, means, warm

pytestmark = pytest.mark.slow


def ours(lab: Lab, vm: str = "web01") -> tuple[str, ...]:
    return lab.control.inventory().vms[vm].snapshots


def free_share(migration: Migration) -> float:
    return min(one.free_share for one in vsphere.datastore_space(migration.source, migration.vm).values())


def test_vmfs6_gives_delta_files_away_in_time_for_the_last_changes(untracked_lab: Lab, ends: Ends) -> None:
    migration = ends.migration(untracked_lab)
    text = assess(migration.source, migration.vm, migration.plan)
    assert all("vmfs6 locks a running VM's delta files" in one for one in text.changes.values())
    assert any("a snapshot stays between rounds" in one for one in text.estimate.notes)
    prepare(migration, Watch())
    first = run_round(migration, Watch())
    kept = ours(untracked_lab)
    second = run_round(migration, Watch())
    assert (first.kind, second.kind) == ("base", "compare")
    assert len(kept) == len(ours(untracked_lab)) == 1 and ours(untracked_lab) != kept
    assert second.verdict and second.verdict.decision == "converged", "what is compared isn't compared while it's off"
    guest_writes(untracked_lab, 20)
    final = cut_over(migration, Watch()).final
    assert means(final) == {ChangesBy.DELTA_FILES}
    assert final and 0 < final.changed_bytes < second.copied_bytes / 2
    assert_equal(untracked_lab, migration)
    assert ours(untracked_lab, "web01-migrated") == ()


def test_a_vm_that_is_off_has_every_round_told_by_its_delta_files(untracked_lab: Lab, ends: Ends) -> None:
    untracked_lab.control.power_off("web01")
    migration = ends.migration(untracked_lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    untracked_lab.control.power_on("web01")
    guest_writes(untracked_lab, 20)
    untracked_lab.control.power_off("web01")
    second = run_round(migration, Watch())
    assert (second.kind, means(second)) == ("delta", {ChangesBy.DELTA_FILES})
    assert 0 < second.changed_bytes < sum(disk.capacity_bytes for disk in migration.vm.disks) / 2
    assert len(ours(untracked_lab)) == 1
    final = cut_over(migration, Watch()).final
    assert final and final.changed_bytes == 0
    assert_equal(untracked_lab, migration)
    assert ours(untracked_lab, "web01-migrated") == ()


def test_a_base_whose_snapshot_somebody_deleted_is_compared(untracked_lab: Lab, ends: Ends) -> None:
    migration = ends.migration(untracked_lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    (kept,) = vsphere.our_snapshots(vsphere.read_vm(migration.source, migration.vm.moref))
    vsphere.remove_snapshot(migration.source, migration.vm, kept.moref)
    (found,) = reconcile_migration(ends.migration(untracked_lab), Watch())
    assert "was removed" in found.what and "presync" in found.needs
    with pytest.raises(RolledBack, match=r"can't be trusted.*stands on is gone"):
        cut_over(migration, Watch())
    untracked_lab.control.power_off("web01")
    result = run_round(migration, Watch())
    assert result.kind == "base" and all("is gone" in disk.doubt for disk in result.disks)
    cut_over(migration, Watch())
    assert_equal(untracked_lab, migration)


def test_what_stays_between_rounds_is_no_leftover_and_goes_with_abandon(untracked_lab: Lab, ends: Ends) -> None:
    before = untracked_lab.control.inventory()
    migration = ends.migration(untracked_lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    assert len(ours(untracked_lab)) == 1
    assert reconcile_migration(ends.migration(untracked_lab), Watch()) == []
    assert len(ours(untracked_lab)) == 1
    abandon(migration, Watch())
    assert untracked_lab.control.inventory() == before


def test_a_limit_lets_the_kept_snapshot_go_too_and_the_next_round_compares(untracked_lab: Lab, ends: Ends) -> None:
    migration = ends.migration(untracked_lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    kept = ours(untracked_lab)
    late = ends.migration(untracked_lab, rate_limit="12 MB/s", snapshot={"most_age": "0.001s"})
    with pytest.raises(SnapshotLimit):
        run_round(late, Watch())
    assert ours(untracked_lab) == kept, "the round is too old, not its base"
    with pytest.raises(SnapshotLimit):
        run_round(ends.migration(untracked_lab, rate_limit="12 MB/s", snapshot={"most_size": "1 KB"}), Watch())
    assert ours(untracked_lab) == ()
    assert run_round(migration, Watch()).kind == "compare"
    untracked_lab.control.set_fault("datastore_full", free_bytes=1 << 20)
    wait_for(lambda: free_share(migration) < 0.1, 30, "vCenter learns that the datastore is full")
    with pytest.raises(Refused, match=r"no snapshot is taken.*least_free"):
        run_round(migration, Watch())
    assert ours(untracked_lab) == ()
    untracked_lab.control.clear_faults()
    wait_for(lambda: free_share(migration) > 0.1, 30, "vCenter learns that the datastore has room")
    assert run_round(migration, Watch()).kind == "compare"
    assert len(ours(untracked_lab)) == 1
    cut_over(migration, Watch())
    assert_equal(untracked_lab, migration)


def lab_on(*kinds: str, **changes: Any) -> LabConfig:
    """One VM that can't track changes and writes a lot of zeros and unmaps, with a disk on each kind of datastore."""
    stores = tuple(LabDatastore.model_validate({"name": f"{kind}-1", "kind": kind}) for kind in kinds)
    first, second = small_vm().disks
    disks = (
        first.model_copy(update={"datastore": stores[0].name}),
        second.model_copy(update={"datastore": stores[-1].name}),
    )
    workload = Workload(rate_bytes=2_000_000, hot_bytes=40 << 20, zeros=0.2, unmaps=0.3)
    vm = small_vm(hardware_version=TOO_OLD, datastore=stores[0].name, disks=disks, workload=workload, **changes)
    return LabConfig(vcenter=LabVCenter(vms=(vm,), datastores=stores))


@pytest.mark.parametrize("kind", ["vmfs5", "nfs"])
def test_each_round_of_a_running_vm_is_told_by_the_delta_file_before_it(
    kind: str, make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(lab_on(kind))
    migration = ends.migration(lab, downtime_budget="1s", floor="0", max_rounds=4)
    assert set(assess(migration.source, migration.vm, migration.plan).changes.values()) == {
        "delta-files: the VM can't track changes (hardware version 4)"
    }
    prepare(migration, Watch())
    rounds = [run_round(migration, Watch())]
    kept = [ours(lab)]
    for _ in range(3):
        guest_writes(lab, 15)
        rounds.append(run_round(migration, Watch()))
        kept.append(ours(lab))
    assert [one.kind for one in rounds] == ["base", "delta", "delta", "delta"]
    assert [len(one) for one in kept] == [1] * 4 and len(set(kept)) == 4, "each is let go once the next has landed"
    size = sum(disk.capacity_bytes for disk in migration.vm.disks)
    assert all(0 < one.copied_bytes < size / 2 for one in rounds[1:])
    guest_writes(lab, 15)
    final = cut_over(migration, Watch()).final
    assert all(means(one) == {ChangesBy.DELTA_FILES} for one in (*rounds[1:], final))
    assert_equal(lab, migration)
    assert ours(lab, "web01-migrated") == ()


def test_delta_files_of_a_mounted_datastore_need_no_https(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lab = make_lab(lab_on("nfs"))
    mounts = {"nfs-1": str(Path(lab.endpoints.folder) / "datastores" / "nfs-1")}
    migration = ends.migration(lab, mounts=mounts)
    rounds = warm(migration)
    guest_writes(lab, 15)
    final = cut_over(migration, Watch()).final
    assert means(rounds[-1]) == means(final) == {ChangesBy.DELTA_FILES}
    assert lab.control.counters().folder_bytes == 0
    assert_equal(lab, migration)


def test_each_disk_goes_the_best_way_that_it_has(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lab = make_lab(lab_on("nfs", "vsan"))
    migration = ends.migration(lab)
    first, second = assess(migration.source, migration.vm, migration.plan).changes.values()
    assert first.startswith("delta-files") and second.startswith("compare") and "vsan has no delta files" in second
    with pytest.raises(Refused, match="asks for delta files, and Hard disk 2 has none"):
        prepare(ends.migration(lab, changes="delta-files"), Watch())
    rounds = warm(migration)
    assert [disk.changes for disk in rounds[-1].disks] == ["delta-files", "compare"]
    final = cut_over(migration, Watch()).final
    assert final and [disk.changes for disk in final.disks] == ["delta-files", "compare"]
    assert_equal(lab, migration)


@pytest.mark.parametrize("reconciled", [False, True])
@pytest.mark.parametrize(("step", "detail"), [("changes", ""), ("copying", ""), ("snapshot", "letting")])
def test_a_killed_round_keeps_the_base_that_counts_and_goes_on(
    step: str, detail: str, reconciled: bool, make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(lab_on("nfs"))
    warm(ends.migration(lab))
    (kept,) = ours(lab)
    guest_writes(lab, 15)
    die_at(step, lambda watch: run_round(ends.migration(lab), watch), detail)
    left = ours(lab)
    assert len(left) == 2 and kept in left
    migration = ends.migration(lab)
    if reconciled:
        found = reconcile_migration(migration, Watch())
        base = kept if step != "snapshot" else (set(left) - {kept}).pop()
        assert any("is left" in one.what and one.repaired for one in found)
        assert ours(lab) == (base,)
    else:
        opennebula.unlock_template(migration.target, migration.planned.template_id)  # as its term's end would
    result = run_round(migration, Watch())
    assert (result.kind, means(result)) == ("delta", {ChangesBy.DELTA_FILES})
    assert len(ours(lab)) == 1 and kept not in ours(lab)
    cut_over(migration, Watch())
    assert_equal(lab, migration)
    assert ours(lab, "web01-migrated") == ()


def test_a_round_that_failed_for_one_disk_keeps_what_each_disk_stands_on(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(lab_on("nfs"))
    migration = ends.migration(lab)
    warm(migration)
    guest_writes(lab, 15)
    second = migration.planned.disks[1]
    path = Path(opennebula.read_image(migration.target, second.image_id).source)
    with closing(RawFileWriter(path, second.capacity_bytes)), pytest.raises(ImageBusy):  # which locks it
        run_round(ends.migration(lab), Watch())
    assert len(ours(lab)) == 2, "the first disk stands on the new one, the second on the old"
    assert {one.repaired for one in reconcile_migration(ends.migration(lab), Watch())} <= {""}
    assert len(ours(lab)) == 2
    guest_writes(lab, 15)
    result = run_round(migration, Watch())
    assert result.kind == "delta" and not any(disk.doubt for disk in result.disks)
    assert len(ours(lab)) == 1
    cut_over(migration, Watch())
    assert_equal(lab, migration)


@pytest.mark.parametrize("step", ["copying", "release"])
def test_a_cutover_that_died_is_rolled_back_and_nothing_stays_that_isnt_needed(
    step: str, make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(lab_on("nfs"))
    warm(ends.migration(lab))
    die_at(step, lambda watch: cut_over(ends.migration(lab), watch))
    migration = ends.migration(lab)
    with pytest.raises(RolledBack):
        cut_over(migration, Watch())
    assert lab.control.power("web01") == "poweredOn"
    diverged = step == "release"
    assert len(ours(lab)) == (0 if diverged else 1)
    guest_writes(lab, 15)
    result = run_round(migration, Watch())
    assert result.kind == ("base" if diverged else "delta") and all(
        bool(disk.doubt) == diverged for disk in result.disks
    )
    assert len(ours(lab)) == 1
    cut_over(migration, Watch())
    assert_equal(lab, migration)
    assert ours(lab, "web01-migrated") == ()


def test_a_revert_is_doubted_though_the_delta_files_are_there(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lab = make_lab(lab_on("nfs"))
    migration = ends.migration(lab)
    warm(migration)
    guest_writes(lab, 15)
    lab.control.set_fault("revert", vm="web01")
    result = run_round(migration, Watch())
    assert result.kind == "base" and all("reverted" in disk.doubt for disk in result.disks)
    cut_over(migration, Watch())
    assert_equal(lab, migration)


@pytest.mark.parametrize("kind", ["vmfs6", "vmfs5"])
def test_a_leaf_that_stays_busy_after_the_power_off_is_waited_for(
    kind: str, make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(lab_on(kind))
    migration = ends.migration(lab)
    warm(migration)
    guest_writes(lab, 15)
    lab.control.set_fault("leaf_busy", seconds=4)
    final = cut_over(migration, Watch()).final
    assert means(final) == {ChangesBy.DELTA_FILES}
    assert_equal(lab, migration)
