"""A VM that can't track its changes moves all the same: the way is chosen, said and kept in the record."""

from collections.abc import Callable

import pytest

from snapferry.assess import assess
from snapferry.cutover import cut_over
from snapferry.errors import Refused
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabVCenter
from snapferry.plan import ChangesBy
from snapferry.prepare import prepare
from snapferry.readers import RouteFailed
from snapferry.record import BaseState
from snapferry.report import build_report, report_markdown
from snapferry.rounds import run_round
from snapferry.watch import Watch

from .conftest import Ends, small_vm
from .support import assert_equal, means, warm

pytestmark = pytest.mark.slow


def test_without_tracking_each_round_compares_and_what_arrives_is_equal(untracked_lab: Lab, ends: Ends) -> None:
    migration = ends.migration(untracked_lab, changes="compare", downtime_budget="1s")
    rounds = warm(migration)
    assert [one.kind for one in rounds] == ["base", "compare"]
    base, compared = rounds
    assert compared.verdict and compared.verdict.decision == "not-converging"
    assert "nothing tells what changed" in compared.verdict.reason
    assert 0 < compared.changed_bytes < base.changed_bytes / 2, "only what differs counts as changed"
    assert compared.copied_bytes == sum(disk.capacity_bytes for disk in migration.vm.disks)
    assert untracked_lab.control.inventory().vms["web01"].snapshots == ()
    final = cut_over(migration, Watch()).final
    assert means(base) == means(compared) == means(final) == {ChangesBy.COMPARE}
    assert final and all(disk.doubt == "" and disk.differing_bytes is not None for disk in final.disks)
    assert_equal(untracked_lab, migration)
    assert untracked_lab.control.inventory().vms["web01-migrated"].snapshots == ()
    report = build_report(migration)
    assert "asks for compare" in report.untracked and "asks for compare" in report_markdown(report)


def test_a_failed_comparison_leaves_the_base_as_warm_as_it_was(untracked_lab: Lab, ends: Ends) -> None:
    migration = ends.migration(untracked_lab, changes="compare")
    prepare(migration, Watch())
    run_round(migration, Watch())
    untracked_lab.control.set_fault("nfc_connect", times=10_000)
    untracked_lab.control.set_fault("method", method="ExportSnapshot", fault="InvalidState", times=10)
    with pytest.raises(RouteFailed):
        run_round(migration, Watch())
    untracked_lab.control.clear_faults()
    migration.refresh()
    assert {disk.state for disk in migration.planned.disks} == {BaseState.WARM}
    cut_over(migration, Watch())
    assert_equal(untracked_lab, migration)


def test_the_way_is_said_before_and_what_a_plan_asks_for_in_vain_is_refused(untracked_lab: Lab, ends: Ends) -> None:
    migration = ends.migration(untracked_lab)
    found = assess(migration.source, migration.vm, migration.plan)
    assert found.ready
    assert all("can't track changes (hardware version 4)" in one for one in found.changes.values())
    assert {one.id: one.severity for one in found.concerns}["change-tracking-unsupported"] == "warning"
    prepare(migration, Watch())
    assert "hardware version 4" in ends.migration(untracked_lab).planned.untracked
    asked = ends.migration(untracked_lab, changes="tracking")
    assert not assess(asked.source, asked.vm, asked.plan).ready
    with pytest.raises(Refused, match=r"asks for change tracking.*hardware version 4"):
        prepare(asked, Watch())


def test_tracking_that_may_not_be_switched_on_is_done_without(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),))))
    migration = ends.migration(lab, enable_change_tracking=False)
    warm(migration)
    assert "doesn't let it be switched on" in migration.planned.untracked
    assert not lab.control.inventory().vms["web01"].change_tracking
    cut_over(migration, Watch())
    assert_equal(lab, migration)
