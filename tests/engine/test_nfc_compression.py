"""A plan for a slow link has hosts compress what they send."""

from collections.abc import Callable

import pytest

from snapferry.cutover import cut_over
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabVCenter
from snapferry.prepare import prepare
from snapferry.rounds import run_round
from snapferry.watch import Watch

from .conftest import Ends, small_vm
from .support import assert_equal


@pytest.mark.slow
def test_whole_disks_that_are_mostly_zeros_cost_the_link_what_they_hold(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),), nfc_fastlz=True)))
    migration = ends.migration(lab, nfc_compression=True, changes="compare", route="nfc")
    prepare(migration, Watch())
    run_round(migration, Watch())
    held, sent = 15 << 20, sum(lab.control.counters().nfc_bytes.values())
    assert held <= sent < 2 * held < migration.planned.disks[0].capacity_bytes
    cut_over(migration, Watch())
    assert_equal(lab, migration)
