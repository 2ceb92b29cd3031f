"""Until the point of no return a failure ends with the source back in service; behind it there is only forward."""

from pathlib import Path

import pytest

from snapferry import opennebula, vsphere
from snapferry.abandon import abandon
from snapferry.cutover import Approval, check_approval, cut_over, gate_fingerprint
from snapferry.errors import LeaseLost, Refused, RolledBack, SnapferryError
from snapferry.lab import Lab
from snapferry.lab.control import LabInventory
from snapferry.prepare import prepare
from snapferry.record import BaseState, Phase
from snapferry.rounds import run_round
from snapferry.status import status
from snapferry.vsphere.models import PowerState
from snapferry.watch import Watch

from .conftest import Ends
from .support import assert_equal, die_at, warm

pytestmark = pytest.mark.slow


def test_a_guest_that_ignores_the_shutdown_is_left_running_where_the_plan_says_abort(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab, shutdown={"timeout": "2s", "on_timeout": "abort"})
    warm(migration)
    lab.control.set_fault("shutdown_hangs")
    with pytest.raises(RolledBack, match="running again"):
        cut_over(migration, Watch())
    assert lab.control.power("web01") == "poweredOn"
    lab.control.set_fault("shutdown_hangs")
    off = ends.migration(lab, shutdown={"timeout": "2s", "on_timeout": "power-off"})
    warm(off)
    assert cut_over(off, Watch()).outcome == "migrated"
    assert_equal(lab, off)


def test_a_cutover_whose_images_went_cold_is_refused_before_the_shutdown(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    disk = migration.planned.disks[0]
    opennebula.update_image(migration.target, disk.image_id, {"SNAPFERRY_BASE": {"STATE": BaseState.PARTIAL.value}})
    with pytest.raises(Refused, match="not warm"):
        cut_over(migration, Watch())
    assert lab.control.power("web01") == "poweredOn"


def test_a_finished_migration_is_not_done_twice(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    first = cut_over(migration, Watch())
    again = cut_over(migration, Watch())
    assert (again.machine_id, again.downtime_seconds) == (first.machine_id, first.downtime_seconds)
    assert len(lab.control.inventory().machines) == 1
    assert migration.vm.name == "web01-migrated"


def test_an_approval_is_void_for_another_name_or_other_disks(lab: Lab, ends: Ends) -> None:
    from datetime import UTC, datetime

    migration = ends.migration(lab)
    warm(migration)
    good = Approval(vm="web01", by="me", at=datetime.now(UTC), fingerprint=gate_fingerprint(migration))
    check_approval(migration, good)
    for change in ({"vm": "web02"}, {"fingerprint": "0" * 16}):
        with pytest.raises(Refused):
            check_approval(migration, good.model_copy(update=change))


def test_a_vm_that_another_run_holds_is_left_alone(lab: Lab, ends: Ends) -> None:
    from threading import Event

    migration = ends.migration(lab)
    warm(migration)
    with migration.lease(Event()), pytest.raises(LeaseLost, match="works on it now"):
        cut_over(ends.migration(lab), Watch(), take_seconds=1)
    assert lab.control.power("web01") == "poweredOn"


def test_status_says_where_a_move_stands_and_what_to_do(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    assert status(migration.source, migration.target) == []
    warm(migration)
    (one,) = status(migration.source, migration.target, "web01")
    assert (one.phase, one.source_state, one.safe, one.snapshots) == (Phase.WARM, "running", True, ())
    assert one.advice and one.warm_age_seconds is not None
    cut_over(migration, Watch())
    (one,) = status(migration.source, migration.target)
    assert (one.phase, one.source_state, one.safe) == (Phase.MIGRATED, "off", True)


def without_tracking_files(inventory: LabInventory) -> LabInventory:
    """The inventory without the files of change tracking, which a running VM keeps until its next stun."""
    vms = {
        name: vm.model_copy(update={"files": tuple(file for file in vm.files if "-ctk" not in file)})
        for name, vm in inventory.vms.items()
    }
    return inventory.model_copy(update={"vms": vms})


def test_abandoning_leaves_both_ends_as_they_were(lab: Lab, ends: Ends) -> None:
    before = without_tracking_files(lab.control.inventory())
    migration = ends.migration(lab, restore_change_tracking=True)
    warm(migration)
    paths = [Path(opennebula.read_image(migration.target, one.image_id).source) for one in migration.planned.disks]
    assert len(abandon(migration, Watch())) >= 3
    assert without_tracking_files(lab.control.inventory()) == before
    assert not any(path.exists() for path in paths)
    assert abandon(ends.migration(lab), Watch()) == []

    other = ends.migration(lab)  # whose plan doesn't ask for it
    prepare(other, Watch())
    told: list[str] = []
    abandon(other, Watch(on_step=lambda _, detail: told.append(detail)))
    assert [one for one in told if "change tracking stays on" in one]
    assert lab.control.inventory().vms["web01"].change_tracking


def test_a_migrated_vm_cant_be_abandoned(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    cut_over(migration, Watch())
    with pytest.raises(Refused, match="runs at the target"):
        abandon(migration, Watch())


def test_a_backups_snapshot_is_waited_for_not_copied(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    vm = vsphere.read_vm(migration.source, migration.vm.moref)
    assert vm.power == PowerState.ON
    vsphere.create_snapshot(migration.source, vm, "nightly backup", "somebody else's")
    with pytest.raises(SnapferryError, match="nightly backup"):
        cut_over(migration, Watch())
    assert lab.control.inventory().vms["web01"].snapshots == ("nightly backup",)


class Interrupt(Exception):
    """Stands for whatever ends a run in the middle: it isn't one of our own errors."""


def stop_at(step: str) -> Watch:
    """A watch that ends the run once, as the named step begins."""
    left = [step]

    def look(name: str, _: str) -> None:
        if name in left:
            left.clear()
            raise Interrupt(step)

    return Watch(on_step=look)


@pytest.mark.parametrize("step", ["shutdown", "copying", "start"])
def test_a_failure_of_our_own_before_the_target_runs_puts_the_source_back(step: str, lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab, shutdown={"timeout": "5s"})
    warm(migration)
    with pytest.raises(RolledBack, match="Interrupt"):
        cut_over(migration, stop_at(step))
    now = lab.control.inventory()
    assert (now.vms["web01"].power, now.vms["web01"].nics_start_connected) == ("poweredOn", (True,))
    assert (now.machines, now.locks, now.vms["web01"].snapshots) == ((), (), ())


def test_a_target_that_has_run_is_never_taken_back_even_if_it_is_off_now(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    die_at("mark the source", lambda watch: cut_over(ends.migration(lab), watch))
    (machine,) = lab.control.inventory().machines
    opennebula.poweroff_hard(migration.target, machine["id"])
    again = ends.migration(lab)
    assert cut_over(again, Watch()).machine_id == machine["id"]
    assert [one["id"] for one in lab.control.inventory().machines] == [machine["id"]]
    assert lab.control.power("web01-migrated") == "poweredOff"


def test_no_round_is_copied_over_a_migrated_vms_images(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    late = ends.migration(lab)
    warm(migration)
    late.refresh()
    cut_over(migration, Watch())
    with pytest.raises(Refused, match="migrated"):
        run_round(late, Watch())
    assert ends.migration(lab).planned.phase == Phase.MIGRATED


def test_an_image_that_somebody_enabled_is_copied_in_full_again(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    disk = migration.planned.disks[0]
    image = opennebula.enable_image(migration.target, disk.image_id)
    with Path(image.source).open("r+b") as file:
        file.write(b"somebody was here")
    with pytest.raises(Refused, match="enabled"):
        cut_over(migration, Watch())
    again = run_round(migration, Watch())
    assert again.disks[0].doubt and not again.disks[1].doubt
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_a_half_made_template_is_finished_before_anything_is_copied(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    # both images are there then, and the template doesn't link them yet
    die_at("change tracking", lambda watch: prepare(ends.migration(lab), watch))
    warm(migration)
    assert len(lab.control.inventory().images) == 2
    machine = cut_over(migration, Watch()).machine_id
    assert machine is not None
    assert len(opennebula.read_machine(migration.target, machine).disks) >= 2
    assert_equal(lab, migration)


def test_a_snapshot_left_by_a_killed_run_is_gone_after_the_cutover(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    vm = vsphere.read_vm(migration.source, migration.vm.moref)
    for name in (vsphere.snapshot_name(migration.planned.migration_id, 99), vsphere.STUN_NAME):
        vsphere.create_snapshot(migration.source, vm, name, "left behind")
    cut_over(migration, Watch())
    assert lab.control.inventory().vms["web01-migrated"].snapshots == ()
