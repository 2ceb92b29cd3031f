"""One VM, one run: whoever lost the lease commits nothing."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple

import pytest

from snapferry import opennebula
from snapferry.cutover import cut_over
from snapferry.errors import LeaseLost, RolledBack, SnapferryError
from snapferry.lab import Lab
from snapferry.lease import Lease
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.record import BaseState, Phase
from snapferry.rounds import run_round
from snapferry.watch import Watch

from ..conftest import wait_for
from ..odd import guest_writes
from .conftest import Ends
from .support import assert_equal, warm

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


def test_a_lease_is_given_back_although_the_first_try_or_its_answer_is_lost(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    for fault in ("one_drop", "one_drop_answer"):
        for method in ("template.update", "template.unlock"):
            stop = Event()
            with migration.lease(stop):
                lab.control.set_fault(fault, method=method)
            assert lab.control.inventory().locks == ()
            assert not stop.is_set()


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


def test_a_frontend_that_is_away_ends_copies_at_half_the_term_and_roll_backs_at_its_end(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    migration.lease_seconds = 8.0

    def refuses(act: Callable[[], None], error: type[SnapferryError]) -> bool:
        try:
            act()
        except error:
            return True
        except SnapferryError:
            return False
        return False

    with migration.lease(Event()) as lease:
        lab.control.set_fault("one_drop", times=None)
        wait_for(lambda: refuses(lease.check, LeaseLost), 10, "half the term")
        lease.regain()
        wait_for(lambda: refuses(lease.regain, opennebula.Unreachable), 10, "the term's end")
        lab.control.clear_faults()
        lease.regain()
        lease.check()
    assert lab.control.inventory().locks == ()


TERM_SECONDS = 6.0


class Child(NamedTuple):
    """A process that was forked for a test."""

    number: int
    says: BinaryIO
    """Lines that it tells."""

    def ended(self) -> int:
        """Waits for its end; its exit code, negative for a signal."""
        self.says.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])


def child_of(work: Callable[[Callable[[str], None]], None]) -> Child:
    """Does the work, which may tell lines, in a process of its own; it exits with 3 where the lease was lost."""
    out, into = os.pipe()
    number = os.fork()
    if number:
        os.close(into)
        return Child(number, os.fdopen(out, "rb"))
    code = 1
    try:
        work(lambda text: os.write(into, f"{text}\n".encode()) and None)
        code = 0
    except LeaseLost as error:
        os.write(into, f"{error}\n".encode())
        code = 3
    finally:
        os._exit(code)


def slow_round(lab: Lab, ends: Ends) -> Child:
    """A process in the middle of a round's writes, whose lease has a short term."""

    def work(tell: Callable[[str], None]) -> None:
        migration = ends.migration(lab, rate_limit="400 kB/s")
        migration.lease_seconds = TERM_SECONDS
        run_round(migration, Watch(on_disk=lambda disk: tell(f"{disk.done_bytes}")))

    child = child_of(work)
    assert int(child.says.readline()) > 0
    return child


def digests(migration: Migration) -> list[str]:
    """Of the image files and of all that the records say."""
    found = []
    for disk in migration.planned.disks:
        image = opennebula.read_image(migration.target, disk.image_id)
        found += [hashlib.sha256(Path(image.source).read_bytes()).hexdigest(), str(sorted(image.attributes.items()))]
    template = opennebula.read_template(migration.target, migration.planned.template_id)
    return [*found, str(sorted(template.attributes.items())), str(template.lock)]


def test_a_stopped_worker_of_this_machine_is_ended_by_the_run_that_takes_over(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    guest_writes(lab, 80)
    asleep = slow_round(lab, ends)
    os.kill(asleep.number, signal.SIGSTOP)
    assert cut_over(ends.migration(lab), Watch(), take_seconds=60).outcome == "migrated"
    before = digests(migration)
    os.kill(asleep.number, signal.SIGCONT)  # too late: it has been killed, and nobody has waited for it yet
    assert asleep.ended() == -signal.SIGKILL
    assert digests(migration) == before
    assert_equal(lab, migration)


def test_a_stopped_worker_of_another_machine_keeps_its_image_and_wakes_to_commit_nothing(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)
    guest_writes(lab, 80)
    asleep = slow_round(lab, ends)
    os.kill(asleep.number, signal.SIGSTOP)
    number, target = migration.planned.template_id, migration.target
    signed = opennebula.read_template(target, number).attributes["SNAPFERRY_LEASE"]
    assert isinstance(signed, dict)
    elsewhere = signed | {"PROCESS": "another-boot:1:2:3", "HOLDER": "worker-7 pid 2"}
    opennebula.update_template(target, number, {"SNAPFERRY_LEASE": elsewhere})
    with pytest.raises(RolledBack, match="somebody else holds the file"):
        cut_over(ends.migration(lab), Watch(), take_seconds=60)
    assert lab.control.power("web01") == "poweredOn"
    before = digests(migration)[1::2]  # what the records say; the round's own blocks may still land
    os.kill(asleep.number, signal.SIGCONT)
    assert asleep.ended() == 3
    assert digests(migration)[1::2] == before
    again = ends.migration(lab)
    warm(again)
    assert cut_over(again, Watch()).outcome == "migrated"
    assert_equal(lab, again)


def hold(lab: Lab, ends: Ends, start: int) -> Child:
    """A process that wants the VM once `start` closes, says whether it got it, and keeps it until it is killed."""

    def work(tell: Callable[[str], None]) -> None:
        migration = ends.migration(lab)
        tell("ready")
        os.read(start, 1)
        with migration.lease(Event(), take_seconds=0.1) as lease:
            lease.check()
            tell("holds")
            signal.pause()

    child = child_of(work)
    assert child.says.readline() == b"ready\n"
    return child


def race(lab: Lab, ends: Ends) -> None:
    """Two processes want the VM at the same moment; the one that gets it is killed while it holds it."""
    out, into = os.pipe()
    both = [hold(lab, ends, out) for _ in range(2)]
    os.write(into, b"go")
    os.close(into)
    os.close(out)
    answers = {one: one.says.readline().decode().strip() for one in both}
    (winner,) = (one for one in both if answers[one] == "holds")
    (loser,) = (one for one in both if one is not winner)
    assert f"pid {winner.number} " in answers[loser]
    assert loser.ended() == 3
    os.kill(winner.number, signal.SIGKILL)
    assert winner.ended() == -signal.SIGKILL


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.torture)])
def test_of_two_processes_at_once_one_works_and_the_other_says_who(times: int, lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    for number in range(times):
        race(lab, ends)  # from the second one on, for a VM whose holder was killed
        if number % 2:
            with migration.lease(Event()) as lease:  # and every other time for one that was given back
                lease.check()
    with ends.migration(lab).lease(Event()):
        pass
    assert lab.control.inventory().locks == ()
    assert ends.migration(lab).planned.phase == Phase.SYNCING
    assert {disk.state for disk in migration.planned.disks} == {BaseState.EMPTY}
