"""What is left of a cutover that was begun before is done without another approval, and no more than that."""

import os
import signal
from pathlib import Path
from threading import Event

import pytest

from snapferry.cutover import cut_over, end_cutover
from snapferry.errors import Refused
from snapferry.lab import Lab
from snapferry.watch import Watch

from ..torture.kills import in_child
from .conftest import Ends
from .support import warm

pytestmark = pytest.mark.slow


def test_a_vm_whose_cutover_was_rolled_back_meanwhile_isnt_cut_over_without_an_approval(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    with pytest.raises(Refused, match="another run has ended the cutover"):
        end_cutover(migration, Watch())
    assert lab.control.power("web01") == "poweredOn"
    assert lab.control.inventory().locks == ()


def test_a_run_that_died_after_the_last_step_leaves_its_lock_to_the_next_one(
    lab: Lab, ends: Ends, tmp_path: Path
) -> None:
    migration = ends.migration(lab)
    warm(migration)
    result = cut_over(migration, Watch())

    def die_with_the_lease() -> None:
        with ends.migration(lab).lease(Event()):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die_with_the_lease, tmp_path / "dies") == -signal.SIGKILL
    assert lab.control.inventory().locks != ()
    again = end_cutover(ends.migration(lab), Watch())
    assert (again.outcome, again.machine_id) == ("migrated", result.machine_id)
    assert lab.control.inventory().locks == ()
