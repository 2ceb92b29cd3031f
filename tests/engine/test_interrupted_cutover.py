"""Whatever fails or dies in a cutover, and whatever its record says: one end serves the VM, and its data are equal."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry import opennebula
from snapferry.cutover import cut_over
from snapferry.errors import LeaseLost, Refused, RolledBack, SourceLeftOff
from snapferry.lab import Lab
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.record import CutoverRecord, Phase, cutover_of_template, identity_of_template
from snapferry.report import build_report
from snapferry.rounds import run_round
from snapferry.watch import Watch

from ..conftest import wait_for
from .conftest import Ends
from .support import assert_equal, warm
from .test_cutover import Interrupt, die_at, stop_at

pytestmark = pytest.mark.slow


def at_step(step: str, act: Callable[[], object]) -> Watch:
    """A watch that acts once, as the named step begins."""
    left = [step]

    def look(name: str, _: str) -> None:
        if name in left:
            left.clear()
            act()

    return Watch(on_step=look)


def scribble(migration: Migration) -> None:
    """Writes to every image, as a guest that boots does."""
    for disk in migration.planned.disks:
        with Path(opennebula.read_image(migration.target, disk.image_id).source).open("r+b") as file:
            file.seek(disk.capacity_bytes // 2)
            file.write(b"the target was here" * 400)


def test_a_target_that_wrote_and_failed_to_start_leaves_nothing_of_its_writes(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    lab.control.set_fault("one_boot", times=1)
    with pytest.raises(RolledBack, match="running again"):
        cut_over(migration, at_step("release", lambda: scribble(migration)))
    assert lab.control.power("web01") == "poweredOn"
    assert lab.control.inventory().machines == ()
    again = ends.migration(lab)
    rounds = warm(again)
    assert all(disk.doubt for disk in rounds[0].disks)
    cut_over(again, Watch())
    assert_equal(lab, again)


@pytest.mark.parametrize("step", ["copying", "release"])
def test_a_run_that_died_before_the_target_ran_is_rolled_back_by_the_next_one(step: str, lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    die_at(step, lambda watch: cut_over(ends.migration(lab), watch))
    assert lab.control.power("web01") == "poweredOff"
    if step == "release":
        scribble(migration)
    again = ends.migration(lab)
    with pytest.raises(RolledBack, match=f"ended at '{'last changes' if step == 'copying' else step}'"):
        cut_over(again, Watch())
    now = lab.control.inventory()
    assert (now.vms["web01"].power, now.vms["web01"].nics_start_connected) == ("poweredOn", (True,))
    assert (now.machines, now.locks) == ((), ())
    warm(again)
    cut_over(again, Watch())
    assert_equal(lab, again)


@pytest.mark.parametrize("step", ["mark the source", "done"])
def test_a_failure_behind_the_point_of_no_return_is_gone_on_from(step: str, lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    with pytest.raises(Interrupt):
        cut_over(migration, stop_at(step))
    (machine,) = lab.control.inventory().machines
    again = ends.migration(lab)
    assert cut_over(again, Watch()).machine_id == machine["id"]
    assert lab.control.power("web01-migrated") == "poweredOff"
    assert [one["id"] for one in lab.control.inventory().machines] == [machine["id"]]
    assert_equal(lab, again)


@pytest.mark.parametrize("who", ["an operator", "HA"])
def test_a_source_that_is_powered_on_during_the_last_copy_stays_on_with_its_network(
    who: str, lab: Lab, ends: Ends
) -> None:
    migration = ends.migration(lab)
    warm(migration)

    def power_on() -> None:
        if who == "HA":
            lab.control.set_fault("ha_power_on", vm="web01")
        else:
            lab.control.power_on("web01")

    with pytest.raises(RolledBack, match="running again"):
        cut_over(migration, at_step("copying", power_on))
    assert lab.control.power("web01") == "poweredOn"
    assert lab.control.inventory().machines == ()
    (nic,) = ends.migration(lab).vm.nics
    assert nic.start_connected and nic.connected
    again = ends.migration(lab)
    warm(again)
    cut_over(again, Watch())
    assert_equal(lab, again)


def test_a_record_that_is_deleted_during_the_cutover_doesnt_keep_the_source_off(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    with pytest.raises(RolledBack, match="somebody deleted the lease"):
        cut_over(migration, at_step("copying", lambda: lab.control.set_fault("one_record_wiped", vm="web01")))
    now = lab.control.inventory()
    assert (now.vms["web01"].power, now.vms["web01"].nics_start_connected) == ("poweredOn", (True,))
    assert (now.machines, now.locks) == ((), ())
    assert ends.migration(lab).planned.phase == Phase.ROLLED_BACK


def test_a_record_that_is_deleted_during_a_round_leaves_no_snapshot_and_no_lock(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    wipe = at_step("copying", lambda: lab.control.set_fault("one_record_wiped", vm="web01"))
    with pytest.raises(LeaseLost, match="somebody deleted the lease"):
        run_round(migration, wipe)
    assert lab.control.inventory().vms["web01"].snapshots == ()
    assert lab.control.inventory().locks == ()


def test_a_frontend_that_is_away_doesnt_keep_the_source_off(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)

    def come_back() -> None:
        wait_for(lambda: lab.control.power("web01") == "poweredOff", 30, "the shutdown")
        wait_for(lambda: lab.control.power("web01") == "poweredOn", 30, "the source's return without the frontend")
        lab.control.clear_faults()

    frontend = threading.Thread(target=come_back)
    frontend.start()
    with pytest.raises(RolledBack, match="running again"):
        cut_over(migration, at_step("copying", lambda: lab.control.set_fault("one_drop", times=None)))
    frontend.join()
    assert ends.migration(lab).planned.phase == Phase.ROLLED_BACK


@pytest.mark.parametrize("on_doubt", ["compare", "copy"])
def test_doubt_found_after_the_power_off_is_answered_as_the_plan_says(on_doubt: str, lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)

    def doubt() -> None:
        lab.control.set_fault("reset_change_tracking", vm="web01")

    down = [0.0]
    for _ in range(2):
        with pytest.raises(RolledBack, match=r"down for .* can't be trusted"):
            cut_over(migration, at_step("last changes", doubt))
        migration = ends.migration(lab)
        down.append(migration.planned.rolled_back_seconds)
        warm(migration)
    assert down[0] < down[1] < down[2]

    migration = ends.migration(lab, on_doubt=on_doubt)
    told: list[str] = []

    def look(name: str, detail: str) -> None:
        if name == "last changes":
            doubt()
        if name == "doubt":
            told.append(detail)

    final = cut_over(migration, Watch(on_step=look)).final
    assert final and all(disk.doubt for disk in final.disks)
    assert [disk.differing_bytes is not None for disk in final.disks] == [on_doubt == "compare"] * 2
    assert len(told) == 2 and "MB in about" in told[0]
    assert build_report(migration).rolled_back_seconds == down[2]
    assert_equal(lab, migration)


def write_record(migration: Migration, phase: Phase, **changes: object) -> None:
    """Edits the record as somebody might by hand; `changes` are of the cutover's."""
    record = migration.planned.model_copy(update={"phase": phase})
    cutover = migration.planned.cutover
    if changes:
        assert cutover
        cutover = CutoverRecord.model_validate(cutover.model_dump() | changes)
    parts = identity_of_template(record) | (cutover_of_template(cutover) if cutover else {})
    opennebula.update_template(migration.target, record.template_id, parts)


def test_a_record_that_says_migrated_of_a_running_source_isnt_believed(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    write_record(migration, Phase.MIGRATED)
    with pytest.raises(Refused, match="but the source runs"):
        cut_over(ends.migration(lab), Watch())
    assert lab.control.power("web01") == "poweredOn"


def test_a_cutovers_record_that_was_edited_is_doubted_not_obeyed(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    die_at("copying", lambda watch: cut_over(ends.migration(lab), watch))
    migration.refresh()
    true = migration.planned.cutover
    assert true

    write_record(migration, Phase.CUTTING_OVER, past_no_return=True)
    with pytest.raises(Refused, match="no machine of it has run"):
        cut_over(ends.migration(lab), Watch())
    opennebula.update_template(migration.target, migration.planned.template_id, {"SNAPFERRY_CUTOVER": {}})
    with pytest.raises(SourceLeftOff, match="its record is gone"):
        cut_over(ends.migration(lab), Watch())
    assert lab.control.inventory().vms["web01"].nics_start_connected == (False,)

    write_record(migration, Phase.WARM)  # with the true intents: what was begun is ended all the same
    with pytest.raises(RolledBack, match="ended at 'last changes'"):
        cut_over(ends.migration(lab), Watch())
    now = lab.control.inventory().vms["web01"]
    assert (now.power, now.nics_start_connected) == ("poweredOn", (True,))


def test_a_target_that_runs_against_its_record_is_never_joined_by_the_source(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    die_at("mark the source", lambda watch: cut_over(ends.migration(lab), watch))
    migration.refresh()
    write_record(migration, Phase.CUTTING_OVER, released=False, past_no_return=False)  # an older one came back
    result = cut_over(ends.migration(lab), Watch())
    assert result.outcome == "migrated"
    assert result.downtime_seconds > 0  # of which the dead run knew the parts
    assert lab.control.power("web01-migrated") == "poweredOff"
