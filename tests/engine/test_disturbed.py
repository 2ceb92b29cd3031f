"""What others do to the VM between and during rounds: what voids a base is said, what doesn't is waited for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from snapferry import opennebula, vsphere
from snapferry.cutover import cut_over, gate_fingerprint
from snapferry.errors import Refused
from snapferry.lab import Lab
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.record import base_of_image
from snapferry.rounds import run_round
from snapferry.vsphere.waits import run_task
from snapferry.watch import Watch

from ..odd import guest_writes
from .conftest import Ends
from .support import assert_equal

pytestmark = pytest.mark.slow

BACKUP = "nightly backup"
SPOILT_BYTES = 128 << 10


def reset(lab: Lab, _: Migration) -> None:
    lab.control.set_fault("reset_change_tracking", vm="web01")


def go_back(_: Lab, migration: Migration) -> None:
    """To the reader it is the same whether tracking went back or the base is said to lie ahead of it."""
    disk = migration.planned.disks[0]
    uuid, sequence = vsphere.parse_change_id(disk.change_id or "")
    ahead = disk.model_copy(update={"change_id": f"{uuid}/{sequence + 1000}"})
    opennebula.update_image(migration.target, disk.image_id, base_of_image(ahead))


def revert(lab: Lab, _: Migration) -> None:
    lab.control.set_fault("event", vm="web01", type="com.vmware.vc.vm.VmStateRevertedToSnapshot")


def restart_by_ha(lab: Lab, _: Migration) -> None:
    lab.control.set_fault("event", vm="web01", type="com.vmware.vc.ha.VmRestartedByHAEvent")


def spoil(migration: Migration) -> None:
    """Bytes of the first image become others, as what a change query lies about."""
    image = opennebula.read_image(migration.target, migration.planned.disks[0].image_id)
    with Path(image.source).open("r+b") as file:
        file.seek(1 << 20)
        file.write(os.urandom(SPOILT_BYTES))


def cant_tell(lab: Lab, _: Migration) -> None:
    lab.control.set_fault("method", method="QueryChangedDiskAreas", fault="FileFault", times=1)


def test_a_base_in_doubt_is_compared_in_full_with_its_reason_and_then_counts_again(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    disturbances: tuple[tuple[Callable[[Lab, Migration], None], str], ...] = (
        (reset, "was reset"),
        (go_back, "went back"),
        (revert, "reverted to a snapshot"),
        (restart_by_ha, "HA restarted"),
        (cant_tell, "can't tell"),
    )
    for disturb, says in disturbances:
        disturb(lab, migration)
        spoil(migration)
        result = run_round(migration, Watch())
        first, second = result.disks
        assert (result.kind, says in first.doubt) == ("base", True), says
        assert first.read_bytes >= 12 << 20
        assert first.differing_bytes is not None
        assert SPOILT_BYTES <= first.differing_bytes < first.read_bytes
        assert (second.differing_bytes is None) == (not second.doubt)
    after = run_round(migration, Watch())
    assert (after.kind, [one.doubt for one in after.disks]) == ("delta", ["", ""])
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_tracking_that_began_while_snapshots_existed_is_not_believed(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    session, moref = migration.source, migration.vm.moref
    vm = session.bind(vim.VirtualMachine, moref)
    vsphere.create_snapshot(session, migration.vm, BACKUP, "")
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=True)
    run_task(session, "switch tracking on", lambda: vm.ReconfigVM_Task(spec), 60)
    vsphere.create_snapshot(session, migration.vm, f"{BACKUP} 2", "")
    remove_all(migration)
    prepare(migration, Watch())
    result = run_round(migration, Watch())
    for disk, source in zip(result.disks, migration.vm.disks, strict=True):
        assert "while snapshots existed" in disk.doubt
        assert disk.read_bytes == source.capacity_bytes
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def remove_all(migration: Migration) -> None:
    """As somebody else would."""
    vm = migration.source.bind(vim.VirtualMachine, migration.vm.moref)
    run_task(migration.source, "remove all snapshots", lambda: vm.RemoveAllSnapshots_Task(), 60)


def test_a_backups_snapshot_is_waited_for_and_is_no_doubt(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab, snapshot={"wait_for_others": "1s"})
    prepare(migration, Watch())

    def backup_begins(step: str, _: str) -> None:
        if step == "copying":
            vsphere.create_snapshot(migration.source, migration.vm, BACKUP, "during a round")

    run_round(migration, Watch(on_step=backup_begins))
    assert lab.control.inventory().vms["web01"].snapshots == (BACKUP,)
    with pytest.raises(Refused, match=BACKUP):
        run_round(migration, Watch())

    def backup_ends(step: str, detail: str) -> None:
        if step == "snapshot" and detail.startswith("waiting"):
            remove_all(migration)

    patient = ends.migration(lab, snapshot={"wait_for_others": "60s"})
    result = run_round(patient, Watch(on_step=backup_ends))
    assert (result.kind, [one.doubt for one in result.disks]) == ("delta", ["", ""])
    vsphere.create_snapshot(migration.source, migration.vm, BACKUP, "came and goes between rounds")
    remove_all(migration)
    assert run_round(migration, Watch()).kind == "delta"
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_a_storage_vmotion_between_rounds_costs_nothing_and_loses_nothing(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    before = [(disk.file_name, disk.backing_uuid) for disk in migration.vm.disks]
    for stem in ("moved", "moved-again"):
        guest_writes(lab, 10)
        lab.control.set_fault("storage_vmotion", vm="web01", stem=stem)
        if stem == "moved":
            result = run_round(ends.migration(lab), Watch())
            assert (result.kind, [disk.doubt for disk in result.disks]) == ("delta", ["", ""])
    again = ends.migration(lab)
    moved = [(disk.file_name, disk.backing_uuid) for disk in again.vm.disks]
    assert [uuid for _, uuid in moved] == [uuid for _, uuid in before]
    assert not {file for file, _ in moved} & {file for file, _ in before}
    final = cut_over(again, Watch()).final
    assert final and [disk.doubt for disk in final.disks] == ["", ""]
    assert_equal(lab, again)


def test_a_changed_set_of_disks_is_refused_and_voids_the_approval(lab: Lab, ends: Ends) -> None:
    first, second = (disk.key for disk in ends.migration(lab).vm.disks)
    lab.control.set_fault("edit_disk", vm="web01", key=second, there=False)
    migration = ends.migration(lab)
    prepare(migration, Watch())
    run_round(migration, Watch())
    disk, approved = migration.vm.disks[0], gate_fingerprint(migration)
    same: dict[str, Any] = {"key": first, "capacity_bytes": disk.capacity_bytes, "uuid": disk.backing_uuid}
    for change, undo in (
        ({"key": second}, {"key": second, "there": False}),
        (same | {"capacity_bytes": disk.capacity_bytes + (1 << 20)}, same),
        (same | {"uuid": "6000C29a-0000-0000-0000-000000000000"}, same),
        (same | {"there": False}, same),
    ):
        lab.control.set_fault("edit_disk", vm="web01", **change)
        with pytest.raises(Refused, match="disks changed since the migration began") as caught:
            run_round(migration, Watch())
        assert "abandon" in caught.value.next_step
        assert gate_fingerprint(migration) != approved
        assert lab.control.inventory().vms["web01"].snapshots == ()
        lab.control.set_fault("edit_disk", vm="web01", **undo)
    result = run_round(migration, Watch())
    assert (result.kind, result.disks[0].doubt) == ("delta", "")
    assert gate_fingerprint(migration) == approved
