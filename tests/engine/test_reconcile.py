"""Reconcile repairs what is provably ours and in nobody's use, and names the rest; a second one finds nothing."""

import time
from collections.abc import Callable
from threading import Event

import pytest

from snapferry import opennebula, vsphere
from snapferry.cutover import cut_over
from snapferry.errors import RolledBack
from snapferry.holder import holder_of
from snapferry.lab import Lab
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.reconcile import Discrepancy, reconcile, reconcile_migration
from snapferry.record import Phase, identity_of_template
from snapferry.rounds import run_round
from snapferry.status import MigrationStatus, problems, status
from snapferry.watch import Watch

from .conftest import Ends
from .support import assert_equal, warm
from .test_cutover import Interrupt, die_at

pytestmark = pytest.mark.slow


def look(migration: Migration, vm: str | None = None) -> list[Discrepancy]:
    """A reconcile as somebody else would start it."""
    return reconcile(migration.source, migration.target, vm)


def snapshot(migration: Migration, name: str) -> str:
    """Leaves a snapshot on the VM; returns its moref."""
    vm = vsphere.read_vm(migration.source, migration.vm.moref)
    return vsphere.create_snapshot(migration.source, vm, name, "left behind").moref


def let_term_end(migration: Migration) -> None:
    """Sets the VM free, as the end of a dead run's term would."""
    number = opennebula.list_templates(migration.target)[0].id
    opennebula.unlock_template(migration.target, number)


def test_a_warm_vm_gives_nothing_to_repair(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    assert look(migration) == []
    warm(migration)
    before = lab.control.inventory()
    assert look(migration) == []
    assert lab.control.inventory() == before


def test_leftover_snapshots_of_ours_go_and_others_are_named_and_stay(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    snapshot(migration, vsphere.snapshot_name(migration.planned.migration_id, 99))
    snapshot(migration, vsphere.STUN_NAME)
    snapshot(migration, "snapferry-0123456789-r1")
    snapshot(migration, "nightly backup")
    named = problems(migration.source, migration.target)
    assert len(lab.control.inventory().vms["web01"].snapshots) == 4
    assert all(one.needs for one in named)
    found = look(migration)
    assert [bool(one.repaired) for one in found] == [True, True, False]
    assert lab.control.inventory().vms["web01"].snapshots == ("snapferry-0123456789-r1", "nightly backup")
    (left,) = look(migration)
    assert "No record here knows it" in left.needs and "0123456789" in left.what


def test_nothing_is_touched_while_a_live_run_holds_the_vm(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    snapshot(migration, vsphere.snapshot_name(migration.planned.migration_id, 99))
    with migration.lease(Event()):
        before = lab.control.inventory()
        assert look(ends.migration(lab)) == []
        assert lab.control.inventory() == before
    assert [one.repaired for one in look(migration)] == ["it is removed"]


def test_the_snapshot_of_a_killed_round_is_kept_for_the_round_that_follows(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    die_at("copying", lambda watch: run_round(ends.migration(lab), watch))
    let_term_end(migration)
    again = ends.migration(lab)
    (kept,) = lab.control.inventory().vms["web01"].snapshots
    assert reconcile_migration(again, Watch(), resume=True) == []
    assert lab.control.inventory().vms["web01"].snapshots == (kept,)
    (found,) = look(again)
    assert kept in found.what and found.repaired
    assert lab.control.inventory().vms["web01"].snapshots == ()
    assert look(again) == []
    warm(again)
    cut_over(again, Watch())
    assert_equal(lab, again)


@pytest.mark.parametrize(
    ("step", "phase", "power"),
    [
        ("release", Phase.ROLLED_BACK, "poweredOn"),
        ("mark the source", Phase.MIGRATED, "poweredOff"),
    ],
)
def test_a_cutover_whose_process_died_is_brought_to_its_end(
    step: str, phase: Phase, power: str, lab: Lab, ends: Ends
) -> None:
    migration = ends.migration(lab)
    warm(migration)
    die_at(step, lambda watch: cut_over(ends.migration(lab), watch))
    (seen,) = status(migration.source, migration.target)
    assert seen.holder and seen.holder.dead  # at once: its process was one of this machine
    (found,) = look(migration)
    assert found.repaired and not found.urgent
    migration = ends.migration(lab)
    now = lab.control.inventory()
    assert migration.planned.phase == phase
    assert now.vms[migration.vm.name].power == power
    assert now.locks == ()
    assert len(now.machines) == (phase == Phase.MIGRATED)
    assert look(migration) == []


def edit(migration: Migration) -> None:
    opennebula.update_template(
        migration.target, migration.planned.template_id, {"SNAPFERRY_ROUNDS": {"HISTORY": "not base64!"}}
    )


def forge(migration: Migration) -> None:
    forged = migration.planned.model_copy(update={"vm_moref": "vm-99999"})
    opennebula.update_template(migration.target, forged.template_id, identity_of_template(forged))


def double(migration: Migration) -> None:
    twin = migration.planned.model_copy(update={"template_id": -1, "migration_id": "ffffffffff"})
    opennebula.create_template(migration.target, "web01-again", identity_of_template(twin))


def swap(migration: Migration) -> None:
    image = migration.planned.disks[0].image_id
    vector = dict(opennebula.read_image(migration.target, image).attributes["SNAPFERRY"])
    opennebula.update_image(migration.target, image, {"SNAPFERRY": vector | {"VM_KEY": "other/vm"}})


@pytest.mark.parametrize(
    ("damage", "says"),
    [(edit, "can't be read"), (forge, "vm-99999"), (double, "two templates"), (swap, "names another VM")],
)
def test_a_record_that_was_edited_or_doubled_is_named_and_never_obeyed(
    damage: Callable[[Migration], None], says: str, lab: Lab, ends: Ends
) -> None:
    migration = ends.migration(lab)
    warm(migration)
    damage(migration)
    before = lab.control.inventory()
    found = look(migration)
    assert [one for one in found if says in one.what and one.needs and not one.repaired]
    assert lab.control.inventory() == before


def test_what_belongs_to_no_template_is_named_and_a_free_address_range_goes(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    images = {f"`oneimage delete {one.image_id}`" for one in migration.planned.disks}
    network = opennebula.list_networks(migration.target)[0].id
    stray = '[TYPE="ETHER",MAC="02:00:00:00:77:01",SIZE="1",SNAPFERRY="gone"]'
    migration.target.call("vn.add_ar", network, f"AR={stray}")
    opennebula.delete_template(migration.target, migration.planned.template_id)
    found = look(migration)
    assert images == {
        one.needs.removeprefix("If nobody needs its copy of the disk: ").rstrip(".") for one in found if one.needs
    }
    assert all("address range" in one.what for one in found if one.repaired)
    assert [one for one in found if "gone" in one.what and one.repaired]
    assert not [one for one in look(migration) if one.repaired]


def test_a_vm_that_runs_at_both_ends_is_urgent(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    cut_over(migration, Watch())
    (machine,) = lab.control.inventory().machines
    lab.control.power_on("web01-migrated")
    (found,) = look(migration)
    assert found.urgent and "BOTH ends" in found.what and str(machine["id"]) in found.needs
    (one,) = status(migration.source, migration.target)
    assert not one.safe and "BOTH" in one.service and "stop the other at once" in one.advice
    opennebula.poweroff_hard(migration.target, machine["id"])
    (found,) = look(migration)
    assert found.urgent and "was migrated" in found.what
    (one,) = status(migration.source, migration.target)
    assert not one.safe and "source runs" in one.service and "Power the source off" in one.advice
    lab.control.power_off("web01-migrated")
    (one,) = status(migration.source, migration.target)
    assert one.safe and "POWEROFF" in one.service and f"onevm resume {machine['id']}" in one.advice
    opennebula.terminate_hard(migration.target, machine["id"])
    (one,) = status(migration.source, migration.target)
    assert not one.safe and "NOWHERE" in one.service and "keep the source" in one.advice


def test_status_says_that_rounds_are_refused_and_that_a_cutover_that_lives_is_no_emergency(
    lab: Lab, ends: Ends
) -> None:
    migration = ends.migration(lab)
    warm(migration)
    seen: list[MigrationStatus] = []

    def look_on(step: str, _: str) -> None:
        if step == "last changes":
            seen.extend(status(migration.source, migration.target))
            raise Interrupt(step)

    with pytest.raises(RolledBack):
        cut_over(ends.migration(lab), Watch(on_step=look_on))
    (one,) = seen
    assert one.safe and "cutover that is under way" in one.service and one.advice == "Wait for it to end."
    lab.control.set_fault("edit_disk", vm="web01", key=migration.vm.disks[1].key, there=False)
    (one,) = status(migration.source, migration.target)
    assert one.safe and "refused" in one.next and "abandon" in one.advice


def test_a_machine_of_ours_that_waits_on_hold_goes(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    record, target = migration.planned, migration.target
    for disk in record.disks:
        opennebula.enable_image(target, disk.image_id)
    opennebula.instantiate(target, record.template_id, "theirs", hold=True, extra={})
    (theirs,) = lab.control.inventory().machines
    assert look(migration) == []
    opennebula.terminate_hard(target, theirs["id"])
    extra = {"SNAPFERRY_ID": record.migration_id}
    opennebula.instantiate(target, record.template_id, record.target_name, hold=True, extra=extra)
    assert [one.repaired for one in look(migration)] == ["it is terminated"]
    assert lab.control.inventory().machines == ()


def test_a_dead_runs_lock_is_told_by_status_and_released_by_reconcile(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    number, target = migration.planned.template_id, migration.target
    opennebula.lock_template(target, number)
    sign = {"TOKEN": "dead", "HOLDER": "worker-7 pid 1", "RENEWED": f"{time.time():.0f}", "TERM": "1"}
    opennebula.update_template(target, number, {"SNAPFERRY_LEASE": sign})
    deadline = time.monotonic() + 10
    while not ((holder := holder_of(opennebula.read_template(target, number))) and holder.dead):
        assert time.monotonic() < deadline
        Event().wait(0.2)
    (one,) = status(migration.source, target)
    assert "worker-7 pid 1" in one.next and "Nothing is lost" in one.advice and one.safe
    assert [found.repaired for found in look(migration)] == ["its lock is released"]
    assert lab.control.inventory().locks == ()
    assert look(migration) == []


def test_a_half_made_template_is_named_until_a_run_finishes_it(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    die_at("image", lambda watch: prepare(ends.migration(lab), watch))
    let_term_end(migration)
    (found,) = look(migration)
    assert "half made" in found.what and "snapferry presync web01" in found.needs
    warm(ends.migration(lab))
    assert look(migration) == []
