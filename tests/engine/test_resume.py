"""A round that had to end is taken up: what is on stable storage isn't copied twice, and nothing stale is kept."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry import opennebula, vsphere
from snapferry.cutover import cut_over
from snapferry.errors import Refused, Stopped
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabDatastore, LabDisk, LabVCenter, Workload
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.record import BaseState
from snapferry.round_snapshot import SnapshotLimit
from snapferry.rounds import run_round
from snapferry.vsphere import snapshot_name
from snapferry.watch import DiskProgress, Watch

from ..odd import guest_writes
from .conftest import Ends, small_vm
from .support import assert_equal

pytestmark = pytest.mark.slow

MIB = 1 << 20
DATA = 192 * MIB
HALF = 100 * MIB
"""The first journal entry, at 64 MiB, is there by then."""
INTERVAL = 64 * MIB
IN_FLIGHT = 24 * MIB
"""Three connections with four buffers of 2 MiB each."""
SLOWLY = "40 MB/s"


@pytest.fixture
def lab(make_lab: Callable[[LabConfig], Lab]) -> Lab:
    """One VM with a disk of several journal intervals, whose guest zeros and unmaps a lot."""
    disks = (
        LabDisk(capacity_bytes=256 * MIB + 512, data_bytes=DATA, data_runs=40),
        LabDisk(capacity_bytes=9 * MIB + 512, data_bytes=3 * MIB, data_runs=5),
    )
    workload = Workload(rate_bytes=3_000_000, hot_bytes=200 * MIB, zeros=0.2, unmaps=0.3)
    store = LabDatastore(capacity_bytes=800 * MIB)
    vm = small_vm(disks=disks, workload=workload)
    return make_lab(LabConfig(vcenter=LabVCenter(vms=(vm,), datastores=(store,))))


def at_half(act: Callable[[], None]) -> Watch:
    """A watch that acts once, as the large disk's copy passes its half."""
    left = [act]

    def look(progress: DiskProgress) -> None:
        if progress.done_bytes >= HALF and left:
            left.pop()()

    return Watch(on_disk=look)


def kill_at_half(lab: Lab, ends: Ends) -> None:
    """Makes a round in a process that is gone, without a word, at half of the large disk."""
    child = os.fork()
    if child == 0:
        try:
            run_round(ends.migration(lab, rate_limit=SLOWLY), at_half(lambda: os._exit(9)))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def killed_at_half(lab: Lab, ends: Ends) -> Migration:
    """A migration whose base copy was made by a process that is gone, without a word; opened by another one."""
    prepare(ends.migration(lab), Watch())
    kill_at_half(lab, ends)
    migration = ends.migration(lab)
    opennebula.unlock_template(migration.target, migration.planned.template_id)  # as its term's end would
    return migration


def ours(lab: Lab) -> tuple[str, ...]:
    return lab.control.inventory().vms["web01"].snapshots


def test_a_killed_round_resumes_without_copying_twice(lab: Lab, ends: Ends) -> None:
    migration = killed_at_half(lab, ends)
    (left,) = ours(lab)
    result = run_round(migration, Watch())
    assert (result.snapshot, result.kind) == (migration.planned.disks[0].snapshot, "base")
    assert left == snapshot_name(migration.planned.migration_id, result.number)
    for disk in result.disks:
        assert disk.doubt == ""
        served = lab.control.counters().nfc_bytes[f"web01/{disk.key}"]
        assert disk.changed_bytes <= served <= disk.changed_bytes + INTERVAL + IN_FLIGHT
    assert result.disks[0].read_bytes <= result.disks[0].changed_bytes - INTERVAL
    assert ours(lab) == ()
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_a_killed_comparison_goes_on_and_writes_only_what_differs(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    before = lab.control.counters().nfc_bytes["web01/2000"]
    lab.control.set_fault("reset_change_tracking", vm="web01")
    kill_at_half(lab, ends)
    migration = ends.migration(lab)
    spoil(migration)
    result = run_round(migration, Watch())
    large = result.disks[0]
    assert large.changed_bytes == migration.vm.disks[0].capacity_bytes  # the map isn't believed by the next run either
    assert result.kind == "base" and large.differing_bytes is not None
    assert lab.control.counters().nfc_bytes["web01/2000"] - before <= large.changed_bytes + INTERVAL + IN_FLIGHT
    assert large.read_bytes <= large.changed_bytes - INTERVAL
    assert 0 < large.differing_bytes < large.read_bytes / 2
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def spoil(migration: Migration) -> None:
    """Writes to the end of the large disk's image, which the killed run hadn't reached."""
    disk = migration.planned.disks[0]
    with Path(opennebula.read_image(migration.target, disk.image_id).source).open("r+b") as file:
        file.seek(disk.capacity_bytes - 100_000)
        file.write(b"this was somebody" * 1000)


@pytest.mark.parametrize("made_again", [False, True])
def test_a_base_whose_snapshot_is_gone_is_finished_from_another(made_again: bool, lab: Lab, ends: Ends) -> None:
    migration = killed_at_half(lab, ends)
    (left,) = vsphere.read_vm(migration.source, migration.vm.moref).snapshots
    vsphere.remove_snapshot(migration.source, migration.vm, left.moref)
    guest_writes(lab, 300)  # zeros and unmaps among them
    if made_again:
        vsphere.create_snapshot(migration.source, migration.vm, left.name, "made again under its name")
    result = run_round(migration, Watch())
    assert (result.kind, result.disks[0].doubt) == ("base", "")
    assert result.snapshot != left.moref
    assert result.disks[0].read_bytes < result.disks[0].changed_bytes - INTERVAL / 2
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_a_delta_whose_snapshot_was_made_again_under_its_name_is_copied_anew(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    lab.control.set_fault("false_changes", blocks=3000)  # a delta of several journal intervals
    kill_at_half(lab, ends)
    (left,) = vsphere.read_vm(migration.source, migration.vm.moref).snapshots
    vsphere.remove_snapshot(migration.source, migration.vm, left.moref)
    guest_writes(lab, 200)  # also over what the dead run has copied
    vsphere.create_snapshot(migration.source, migration.vm, left.name, "made again under its name")
    again = ends.migration(lab)
    result = run_round(again, Watch())
    assert (result.kind, result.snapshot != left.moref) == ("delta", True)
    large = result.disks[0]
    assert large.changed_bytes > 2 * INTERVAL
    assert large.read_bytes + large.zero_bytes >= large.changed_bytes  # nothing was resumed
    lab.control.clear_faults()
    cut_over(again, Watch())
    assert_equal(lab, again)


def test_a_base_that_was_told_to_stop_lets_go_and_is_finished_later(lab: Lab, ends: Ends) -> None:
    prepare(ends.migration(lab), Watch())
    watch = at_half(lambda: watch.stop.set())
    with pytest.raises(Stopped):
        run_round(ends.migration(lab, rate_limit=SLOWLY), watch)
    assert ours(lab) == ()
    migration = ends.migration(lab)
    result = run_round(migration, Watch())
    assert result.disks[0].doubt == ""
    assert result.disks[0].read_bytes < result.disks[0].changed_bytes - INTERVAL / 2
    cut_over(migration, Watch())
    assert_equal(lab, migration)


@pytest.mark.parametrize("trouble", ["another worker", "tracking reset", "written to"])
def test_a_partial_base_counts_for_nothing_where_anything_speaks_against_it(
    trouble: str, lab: Lab, ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = killed_at_half(lab, ends)
    disk = migration.planned.disks[0]
    if trouble == "another worker":
        monkeypatch.setenv("SNAPFERRY_STATE", str(tmp_path / "another"))
        says = "no journal"
    elif trouble == "tracking reset":
        (left,) = vsphere.read_vm(migration.source, migration.vm.moref).snapshots
        vsphere.remove_snapshot(migration.source, migration.vm, left.moref)
        lab.control.set_fault("reset_change_tracking", vm="web01")
        says = "was reset"
    else:
        image = opennebula.enable_image(migration.target, disk.image_id)
        with Path(image.source).open("r+b") as file:
            file.write(b"somebody was here" * 1000)
        says = "written to"
    result = run_round(migration, Watch())
    assert says in result.disks[0].doubt
    assert result.disks[0].read_bytes == result.disks[0].changed_bytes
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_a_filling_datastore_ends_the_round_which_lets_go_and_is_finished_later(lab: Lab, ends: Ends) -> None:
    ballast = lab.folder / "datastores" / "san1" / "other-vm" / "ballast"
    ballast.parent.mkdir()

    def fill() -> None:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 400 * MIB)

    prepare(ends.migration(lab), Watch())
    with pytest.raises(SnapshotLimit, match=r"snapshot\.least_free") as caught:
        run_round(ends.migration(lab, rate_limit="12 MB/s", snapshot={"least_free": "40%"}), at_half(fill))
    assert "goes on with a new snapshot" in caught.value.next_step
    assert ours(lab) == ()
    migration = ends.migration(lab, snapshot={"least_free": "40%"})
    first = migration.planned.disks[0]
    assert first.state is BaseState.PARTIAL and first.change_id
    taken = lab.control.counters().calls["CreateSnapshot_Task"]
    with pytest.raises(Refused, match="san1 has"):
        run_round(migration, Watch())
    assert lab.control.counters().calls["CreateSnapshot_Task"] == taken
    ballast.unlink()
    guest_writes(lab, 30)  # the datastore's free space is summed up anew meanwhile
    result = run_round(migration, Watch())
    assert result.disks[0].doubt == ""
    assert result.disks[0].read_bytes < result.disks[0].changed_bytes - INTERVAL / 2
    cut_over(migration, Watch())
    assert_equal(lab, migration)


@pytest.mark.parametrize(
    ("limit", "says"), [({"most_age": "0.001s"}, "most_age"), ({"most_size": "1 KB"}, "most_size")]
)
def test_a_snapshot_that_is_too_old_or_too_large_is_let_go(
    limit: dict[str, str], says: str, lab: Lab, ends: Ends
) -> None:
    prepare(ends.migration(lab), Watch())
    with pytest.raises(SnapshotLimit, match=says):
        run_round(ends.migration(lab, rate_limit=SLOWLY, snapshot=limit), Watch())
    assert ours(lab) == ()
    assert run_round(ends.migration(lab), Watch()).kind == "base"
