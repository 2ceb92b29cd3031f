"""A failure or a death at every step of a cutover, with a target that writes to its disks as soon as it runs.

Before the point of no return the target stops, the source is in service again, and the next attempt ends equal; behind
it there is only forward.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyVmomi import vim

from snapferry import opennebula, vsphere
from snapferry.cutover import cut_over
from snapferry.errors import RolledBack, SnapferryError
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabOpenNebula, LabVCenter, Workload
from snapferry.lab.digest import file_extents_digest
from snapferry.migration import Migration
from snapferry.reconcile import reconcile
from snapferry.record import Phase
from snapferry.watch import Watch

from ..conftest import wait_for
from ..torture.kills import Points, in_child
from .conftest import Ends, small_vm
from .support import assert_equal, warm
from .test_disturbed import remove_all

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cutover steps")]

DISKS = (
    LabDisk(capacity_bytes=6 << 20, data_bytes=2 << 20, data_runs=5),
    LabDisk(capacity_bytes=(1 << 20) + 512, data_bytes=256 << 10, data_runs=3),
)
BOOT_FAILURE = 36
"""LCM_STATE."""
OURS = {
    "VmGuestShutdownEvent", "VmPoweredOffEvent", "VmPoweredOnEvent", "VmReconfiguredEvent", "VmRenamedEvent",
    "VmStartingEvent", "VmStoppingEvent", "TaskEvent",
}  # fmt: skip
"""Everything that a source may tell of a move."""


class Failure(NamedTuple):
    """What an end answers while a step is under way: a fault of the lab, and its arguments."""

    step: str
    fault: str
    arguments: dict[str, Any]
    goes_forward: bool = False


FAILURES = (
    Failure("shutdown", "method", {"method": "ShutdownGuest", "fault": "HostCommunication", "times": 9}),
    Failure("disconnect NICs", "task", {"method": "ReconfigVM_Task", "fault": "GenericVmConfigFault"}),
    Failure("last changes", "method", {"method": "QueryChangedDiskAreas", "fault": "FileFault"}),
    Failure("copying", "one_refuse", {"method": "image.info", "message": "no"}),
    Failure("hand over", "one_refuse", {"method": "image.enable", "message": "no"}),
    Failure("start", "one_refuse", {"method": "template.instantiate", "message": "no"}),
    Failure("release", "one_refuse", {"method": "vm.action", "message": "no"}),
    Failure("release", "one_prolog", {}),
    Failure("release", "one_boot", {}),
    Failure("release", "one_refuse", {"method": "template.update", "message": "no"}, goes_forward=True),
    Failure("mark the source", "task", {"method": "ReconfigVM_Task", "fault": "GenericVmConfigFault"}, True),
    Failure("done", "one_refuse", {"method": "template.update", "message": "no"}, goes_forward=True),
)
"""The refused update behind `release` is the one that would record the point of no return."""


class Death(NamedTuple):
    """Where the process dies: as a step is told, or at the first call behind that."""

    step: str
    call: str = ""
    goes_forward: bool = False
    boots: bool = True


DEATHS = (
    Death("shutdown"),
    Death("shutdown", "after ShutdownGuest"),
    Death("disconnect NICs"),
    Death("last changes"),
    Death("copying"),
    Death("hand over"),
    Death("hand over", "after one.image.enable"),
    Death("start"),
    Death("start", "after one.template.instantiate"),
    Death("release"),
    Death("release", "after one.vm.action", boots=False),
    Death("release", "before one.template.update", goes_forward=True),
    Death("mark the source", goes_forward=True),
    Death("done", goes_forward=True),
)


class Dying(Points):
    """Ends this process without a word at the drawn point."""

    def __init__(self, file: Path, death: Death) -> None:
        super().__init__(file, None)
        self._death = death
        self._near = False

    def passed(self, kind: str, name: str) -> None:
        self._near = self._near or name == self._death.step
        if self._near and name == (self._death.call or self._death.step):
            os._exit(9)


def names() -> list[str]:
    return [f"vm{number}" for number in range(len(FAILURES) + len(DEATHS))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A quiet VM for each case, so that what the source holds must stay the same to the last byte."""
    odds: dict[str, Any] = {"disks": DISKS, "nics": (LabNic(network="VM Network"),), "workload": Workload()}
    vcenter = LabVCenter(vms=tuple(small_vm(one, power="off", **odds) for one in names()))
    target = LabOpenNebula(image_delay=(0.01, 0.05), step_delay=(0.01, 0.05))
    with up(LabConfig(vcenter=vcenter, opennebula=target), tmp_path_factory.mktemp("steps") / "lab") as lab:
        yield lab
        lab.control.clear_faults()


@pytest.fixture(scope="module")
def free() -> Iterator[str]:
    return iter(names())


class Case:
    """One VM, what its disks held before anything was done, and what must be true behind it."""

    def __init__(self, lab: Lab, ends: Ends, vm: str) -> None:
        self._lab, self._ends, self._vm = lab, ends, vm
        lab.control.power_on(vm)
        self.migration = self.opened()
        warm(self.migration)
        lab.control.set_fault("guest_unmaps", vm=vm, share=0.3)  # something for the last changes
        self._held = self._proof()
        self._images = [
            opennebula.read_image(self.migration.target, one.image_id) for one in self.migration.planned.disks
        ]
        lab.control.set_fault("one_guest_writes", bytes=200_000)

    def opened(self) -> Migration:
        """Both ends anew, as another process has them."""
        return self._ends.migration(self._lab, self._vm, shutdown={"timeout": "3s"})

    def landed(self) -> bool:
        """Whether the images hold what the source does."""
        return [file_extents_digest(Path(one.source)) for one in self._images] == self._held

    def watch(self, act: Callable[[str], None]) -> Watch:
        """Hands each step on; sees that all has landed before the target is started."""

        def look(name: str, _: str) -> None:
            assert name != "release" or self.landed()
            act(name)

        return Watch(on_step=look)

    def check_back(self) -> None:
        """The source is in service, nothing is left at the target, and the next attempt ends equal."""
        self._lab.control.clear_faults()
        now = self._lab.control.inventory()
        source = now.vms[self._vm]
        assert (source.power, source.nics_start_connected, source.snapshots) == ("poweredOn", (True,), ())
        assert (self._machines(), now.locks) == ([], ())
        again = self.opened()
        assert again.planned.phase in (Phase.ROLLED_BACK, Phase.WARM)
        warm(again)
        assert cut_over(again, Watch()).outcome == "migrated"
        assert_equal(self._lab, again)
        self.check_source(again)

    def check_forward(self, machine: int) -> None:
        """The machine that ran is the VM, and the source is off and marked."""
        self._lab.control.clear_faults()
        again = self.opened()
        assert cut_over(again, Watch()).machine_id == machine
        assert self._machines() == [machine]
        assert not self._lab.control.inventory().locks
        assert not self.landed()  # the target has written since, which is the VM's own now
        self.check_source(again)

    def check_source(self, migration: Migration) -> None:
        """Marked, off, and not a byte of it is another one than before."""
        assert migration.planned.phase == Phase.MIGRATED
        source = f"{self._vm}-migrated"
        assert self._lab.control.power(source) == "poweredOff"
        assert self._source(source) == self._held
        assert events_of(migration) <= OURS
        assert {one for one in self._lab.control.counters().calls if "Nfc" in one} == {"NfcRandomAccessOpenReadonly"}

    def machine(self) -> int:
        (found,) = self._machines()
        return found

    def machine_state(self) -> int:
        """LCM_STATE"""
        (found,) = [one["lcm_state"] for one in self._lab.control.inventory().machines if one["name"] == self._vm]
        return int(found)

    def _proof(self) -> list[str]:
        """What the running source holds, from a snapshot that comes and goes."""
        snapshot = vsphere.create_snapshot(self.migration.source, self.migration.vm, "proof", "")
        held = self._source(self._vm, snapshot.name)
        remove_all(self.migration)
        return held

    def _machines(self) -> list[int]:
        return [int(one["id"]) for one in self._lab.control.inventory().machines if one["name"] == self._vm]

    def _source(self, name: str, snapshot: str | None = None) -> list[str]:
        return [self._lab.control.extents_digest(name, index, snapshot) for index in range(len(DISKS))]


def events_of(migration: Migration) -> set[str]:
    """Types of everything that vCenter tells of the source."""
    spec = vim.event.EventFilterSpec
    entity = spec.ByEntity(entity=migration.source.bind(vim.VirtualMachine, migration.vm.moref), recursion="self")
    events = migration.source.content.eventManager.QueryEvents(spec(entity=entity))
    return {type(one).__name__.rpartition(".")[2] for one in events}


@pytest.fixture
def case(site: Lab, ends: Ends, free: Iterator[str]) -> Case:
    return Case(site, ends, next(free))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: f"{one.step}-{one.arguments.get('method', one.fault)}")
def test_an_end_that_fails_at_any_step_leaves_one_end_in_service_and_the_next_attempt_ends_equal(
    failure: Failure, site: Lab, case: Case
) -> None:
    left = [failure.step]

    def fail(step: str) -> None:
        if step in left:
            left.clear()
            site.control.set_fault(failure.fault, **failure.arguments)

    try:
        cut_over(case.migration, case.watch(fail))
    except RolledBack as error:
        assert not failure.goes_forward and error.next_step
        assert failure.fault != "one_boot" or not case.landed()  # it had, and then the target wrote
        case.check_back()
    except SnapferryError as error:
        assert failure.goes_forward and error.next_step
        case.check_forward(case.machine())
    else:
        assert failure.goes_forward
        case.check_forward(case.machine())


@pytest.mark.parametrize("death", DEATHS, ids=lambda one: one.call or one.step)
def test_reconcile_does_the_same_where_the_process_died(death: Death, site: Lab, case: Case, tmp_path: Path) -> None:
    points = tmp_path / "points"

    def cut() -> None:
        dying = Dying(points, death)
        dying.around_everything()
        cut_over(case.opened(), case.watch(lambda step: dying.passed("call", step)))

    if not death.boots:
        site.control.set_fault("one_boot")
    assert in_child(cut, points) == 9
    if not death.boots:
        wait_for(lambda: case.machine_state() == BOOT_FAILURE, 20, "the machine's failure")
        assert not case.landed()
    migration = case.migration
    found = reconcile(migration.source, migration.target, migration.vm.name)
    assert found and all(one.repaired for one in found)
    if death.goes_forward:
        case.check_forward(case.machine())
    else:
        case.check_back()
