"""One VM, one run: whoever lost the lease commits nothing."""

import time
from threading import Event

import pytest

from snapferry import opennebula
from snapferry.errors import LeaseLost
from snapferry.lab import Lab
from snapferry.lease import Lease
from snapferry.prepare import prepare
from snapferry.watch import Watch

from .conftest import Ends

pytestmark = pytest.mark.slow


def test_a_second_run_is_told_who_works_on_the_vm_and_gets_it_afterwards(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    other = ends.migration(lab)
    with migration.lease(Event()), pytest.raises(LeaseLost, match="pid"), other.lease(Event()):
        pass
    with other.lease(Event()) as lease:
        lease.check()
    assert lab.control.inventory().locks == ()


def test_a_holder_that_gave_no_sign_for_its_term_loses_the_vm_and_commits_nothing(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    number, target = migration.planned.template_id, migration.target
    opennebula.lock_template(target, number)
    signed = {"TOKEN": "dead", "HOLDER": "worker-7 pid 1", "RENEWED": f"{time.time() - 200:.0f}", "TERM": "120"}
    opennebula.update_template(target, number, {"SNAPFERRY_LEASE": signed})
    stop = Event()
    sleeper = Lease(target, number, "web01", stop)
    with pytest.raises(LeaseLost):
        sleeper.check()
    assert stop.is_set()
    late = time.time()
    with pytest.raises(LeaseLost, match="worker-7"):
        # locked just now, as the frontend's clock has it: its term isn't over, whatever its old sign says
        Lease(target, number, "web01", Event()).__enter__()
    assert time.time() - late < 30


def test_a_woken_holder_finds_the_new_token_and_leaves_the_lock_to_it(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    number, target = migration.planned.template_id, migration.target
    with migration.lease(Event()) as woken:
        opennebula.update_template(target, number, {"SNAPFERRY_LEASE": {"TOKEN": "new", "HOLDER": "worker-8 pid 2"}})
        with pytest.raises(LeaseLost, match="worker-8"):
            woken.check()
    assert len(lab.control.inventory().locks) == 1
    opennebula.unlock_template(target, number)
