"""Whatever goes wrong once: equal bytes, or a named refusal with the source in service; and the next run ends equal."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from snapferry.errors import RolledBack, SnapferryError
from snapferry.lab import Lab, up
from snapferry.lab.config import (
    LabConfig,
    LabDisk,
    LabNetwork,
    LabNic,
    LabOneDatastore,
    LabOpenNebula,
    LabVCenter,
    LabVm,
    Workload,
)
from snapferry.migration import Migration
from snapferry.opennebula import ImageFailed
from snapferry.prepare import prepare
from snapferry.record import BaseState
from snapferry.rounds import run_round
from snapferry.watch import Watch
from snapferry.writers.errors import FlushFailed, NoSpace

from ..conftest import wait_for
from ..engine.conftest import Ends
from ..engine.support import assert_equal
from ..odd import guest_writes
from .conftest import Summary
from .scenes import (
    ALL_SCENES,
    ANY_TIME,
    CALL_SCENES,
    MOST_STEPS,
    SCENES,
    TARGET_CALLS,
    VCENTER_CALLS,
    Scene,
    arm,
    arming,
    assert_in_service,
    assert_named,
    assert_nothing_left,
    assert_source_untouched,
    backed_up,
    go_on,
    has_room,
    move,
)
from .storage import failing_storage, small_storage

RUNS = int(os.environ.get("RUNS", "100"))
"""Pairs in `make torture`."""
FEW = 5
"""Pairs in `make test`."""
SEED = int(os.environ.get("SEED", "1"))
PLAN = {"shutdown": {"timeout": "3s", "on_timeout": "abort"}}
DISKS = (
    LabDisk(capacity_bytes=6 << 20, data_bytes=1 << 20, data_runs=5),
    LabDisk(capacity_bytes=(1 << 20) + 512, data_bytes=256 << 10, data_runs=3),
)


VMS_PER_LAB = 20
"""Beyond so many a lab takes more memory than a new one takes time."""


class Sites:
    """A lab with VMs that are off, one for each test, and a new lab when all have had their turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._lab: Lab | None = None
        self._names: list[str] = []
        self.usual_calls: Counter[str] = Counter()

    def lab(self) -> Lab:
        """The lab that has the next VM."""
        if self._lab is None or not self._names:
            self.close()
            self._number += 1
            self._names = [f"vm{self._number}-{number}x" for number in range(VMS_PER_LAB)]
            self._lab = up(site_of(self._names), self._folder / f"lab{self._number}")
        return self._lab

    def next_vm(self) -> str:
        return self._names.pop()

    def close(self) -> None:
        if self._lab:
            self._lab.close()
            self._lab = None


def site_of(names: list[str]) -> LabConfig:
    """One lab with these VMs, and datastores that are small or copy back."""
    workload = Workload(rate_bytes=1_000_000, hot_bytes=1 << 20, write_bytes=16 << 10)
    vms = [
        LabVm(
            name=name, disks=DISKS, nics=(LabNic(network="VM Network"),), workload=workload, power="off",
            shutdown_seconds=0.1,
        )
        for name in names
    ]  # fmt: skip
    lan = LabNetwork(name="lan", match="VM Network", first_ip="10.0.0.10", size=2 * len(names))
    datastores = (LabOneDatastore(), LabOneDatastore(name="small"), LabOneDatastore(name="copied", tm="local"))
    target = LabOpenNebula(datastores=datastores, networks=(lan,), image_delay=(0.01, 0.05), step_delay=(0.01, 0.05))
    return LabConfig(seed=SEED, vcenter=LabVCenter(vms=tuple(vms)), opennebula=target)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    made = Sites(tmp_path_factory.mktemp("torture"))
    yield made
    made.close()


@pytest.fixture
def site(sites: Sites) -> Lab:
    """The lab of this test's VM."""
    return sites.lab()


@pytest.fixture
def vm(site: Lab, sites: Sites) -> Iterator[str]:
    """A running VM that no other test uses, without faults."""
    name = sites.next_vm()
    site.control.power_on(name)
    yield name
    site.control.clear_faults()


def calls_of(site: Lab) -> Counter[str]:
    """What was asked of both ends so far, by method."""
    counters = site.control.counters()
    return Counter(counters.calls) + Counter(counters.one_calls)


@pytest.fixture
def usual_calls(sites: Sites, ends: Ends) -> Counter[str]:
    """How often each method is called by a move that nothing disturbs; there is one for all tests."""
    if not sites.usual_calls:
        site, name = sites.lab(), sites.next_vm()
        site.control.power_on(name)
        before = calls_of(site)
        move(ends.migration(site, name, **PLAN))
        sites.usual_calls = calls_of(site) - before
    return sites.usual_calls


@pytest.fixture
def small_datastore(site: Lab) -> Path:
    """The folder of the image datastore `small`, to mount a file system of its own there."""
    if os.geteuid():
        pytest.skip("only root can mount")
    return site.folder / "opennebula" / "datastores" / "100"


def endure(site: Lab, ends: Ends, vm: str, scenes: list[Scene], rng: Random, steps: int = MOST_STEPS) -> str:
    """Moves the VM while each scene is armed at a step that the seed chooses, and again if that was refused.

    Args:
        steps: of which one is chosen; 0: all scenes are armed before anything begins.

    Returns:
        The error's name, or `equal`.
    """

    def reopen() -> Migration:
        return ends.migration(site, vm, **PLAN)

    on_steps = [
        arming(lambda scene=scene: arm(site, scene, vm, rng), rng.randrange(steps)) for scene in scenes if steps
    ]  # fmt: skip

    def on_step(name: str, detail: str) -> None:
        for look in on_steps:
            look(name, detail)

    refused: SnapferryError | None = None
    try:
        if not steps:
            for scene in scenes:
                arm(site, scene, vm, rng)
        migration = reopen()
        move(migration, on_step)
    except SnapferryError as error:
        print(f"refused: {type(error).__name__}: {error}")
        refused = error
    site.control.clear_faults()
    wait_for(lambda: not backed_up(site, vm), 20, "the backup's end")
    if any(scene.fault == "datastore_full" for scene in scenes):
        wait_for(lambda: has_room(reopen()), 20, "vCenter's notice that there is room again")
    if refused:
        assert_named(refused)
        if not any(scene.fault == "power_off" for scene in scenes):
            assert_in_service(site, vm)
        try:
            migration = go_on(reopen)
        except SnapferryError as again:
            if not any(scene.for_good for scene in scenes):
                raise
            assert_named(again)
            assert_in_service(site, vm)
            return f"{type(refused).__name__}, and again {type(again).__name__}"
    elif site.control.inventory().locks:  # a lease not given back ends with its term or the next run
        go_on(reopen)
    assert_equal(site, migration)
    assert_nothing_left(site, vm, len(DISKS))
    return type(refused).__name__ if refused else "equal at once"


def shares(names: list[str], every: int) -> list[object]:
    """All names: some for every day, the others for `make torture`."""
    return [
        pytest.param(name, marks=pytest.mark.torture if number % every else pytest.mark.slow)
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize("name", shares(sorted(CALL_SCENES, key=lambda one: one.partition("-")[::-1]), 10))
def test_one_failing_call_ends_in_equal_bytes_or_a_named_refusal(
    name: str, usual_calls: Counter[str], site: Lab, ends: Ends, vm: str, summary: Summary
) -> None:
    rng, method = Random(f"{SEED} {name}"), str(CALL_SCENES[name].arguments["method"])
    usual = usual_calls[method]
    number = rng.randrange(max(1, min(usual * 4 // 5, usual - 2)))  # some are made less often now and then
    before = calls_of(site)[method]
    scene = CALL_SCENES[name]
    scenes = [scene._replace(skips=0, arguments={**scene.arguments, "skip": number})]
    if not usual:  # it takes a roll-back
        scenes.append(SCENES["boot"])
    ended = endure(site, ends, vm, scenes, rng, steps=0)
    assert calls_of(site)[method] - before > number, "it never struck"
    summary("failing calls", ended, f"{name}, the {number + 1}. of {usual}")


@pytest.mark.parametrize("name", shares(list(SCENES), 3))
def test_one_fault_ends_in_equal_bytes_or_a_named_refusal(
    name: str, usual_calls: Counter[str], site: Lab, ends: Ends, vm: str, summary: Summary
) -> None:
    scene, rng = SCENES[name], Random(f"{SEED} {name}")
    if method := scene.arguments.get("method"):
        scene = scene._replace(skips=max(0, min(scene.skips, usual_calls[str(method)] * 4 // 5 - 1)))
    steps = MOST_STEPS if scene.fault in ANY_TIME and "method" not in scene.arguments else 0
    before = site.control.counters().faults.get(scene.fault, 0)
    summary("faults", endure(site, ends, vm, [scene], rng, steps), name)
    assert steps or site.control.counters().faults.get(scene.fault, 0) > before, "it never struck"


def pairs() -> list[object]:
    """Seeded pairs of scenes: the first few for every day, the others for `make torture`."""
    made = []
    for number in range(FEW + RUNS):
        one, other = Random(f"{SEED} pair {number}").sample(sorted(ALL_SCENES), 2)
        mark = pytest.mark.slow if number < FEW else pytest.mark.torture
        made.append(pytest.param(one, other, number, marks=mark, id=f"seed{SEED}-{number}-{one}-{other}"))
    return made


@pytest.mark.parametrize(("one", "other", "number"), pairs())
def test_two_faults_end_in_equal_bytes_or_a_named_refusal(
    one: str, other: str, number: int, site: Lab, ends: Ends, vm: str, summary: Summary
) -> None:
    ended = endure(site, ends, vm, [ALL_SCENES[one], ALL_SCENES[other]], Random(f"{SEED} {number}"))
    summary("pairs of faults", ended, f"{number}: {one}, {other}")


@pytest.mark.slow
def test_every_call_of_a_move_is_in_the_list(usual_calls: Counter[str]) -> None:
    assert usual_calls.keys() <= {*VCENTER_CALLS.split(), *TARGET_CALLS.split()}


@pytest.mark.torture
def test_an_image_that_stays_locked_is_named_and_the_next_run_makes_another(site: Lab, ends: Ends, vm: str) -> None:
    site.control.set_fault("one_image_stuck")
    with pytest.raises(ImageFailed, match="LOCKED without a file") as caught:
        prepare(ends.migration(site, vm, **PLAN), Watch())
    assert_named(caught.value)
    assert_source_untouched(site, vm)
    now = site.control.inventory()
    assert not [one for one in (*now.images, *now.templates) if one["name"].startswith(vm)]
    again = ends.migration(site, vm, **PLAN)
    move(again)
    assert_equal(site, again)


@pytest.mark.slow
def test_a_target_that_runs_full_ends_the_round_and_goes_on_once_there_is_room(
    site: Lab, ends: Ends, vm: str, small_datastore: Path
) -> None:
    with small_storage(small_datastore, 24 << 20) as storage:
        migration = ends.migration(site, vm, image_datastore="small", **PLAN)
        prepare(migration, Watch())
        storage.fill(free_bytes=300_000)
        with pytest.raises(NoSpace, match="Make room") as caught:
            run_round(migration, Watch())
        assert_named(caught.value)
        assert_source_untouched(site, vm)
        storage.make_room()
        run_round(migration, Watch())
        move(migration)
        assert_equal(site, migration)


@pytest.mark.slow
def test_what_a_failed_flush_may_have_lost_is_written_again(
    site: Lab, ends: Ends, vm: str, small_datastore: Path, tmp_path: Path
) -> None:
    with failing_storage(small_datastore, tmp_path / "device", 64 << 20) as storage:
        migration = ends.migration(site, vm, image_datastore="small", **PLAN)
        prepare(migration, Watch())
        storage.fail_beyond(6 << 20)
        with pytest.raises(FlushFailed, match="stable storage") as caught:
            run_round(migration, Watch())
        assert_named(caught.value)
        assert_source_untouched(site, vm)
        assert {disk.state for disk in ends.migration(site, vm).planned.disks} != {BaseState.WARM}
        storage.fail_beyond(0)
        move(migration)
        assert_equal(site, migration)


@pytest.mark.slow
def test_a_target_that_wrote_to_its_disks_and_failed_to_start_is_copied_anew(site: Lab, ends: Ends, vm: str) -> None:
    migration = ends.migration(site, vm, **PLAN)
    site.control.set_fault("one_guest_writes", bytes=500_000)
    site.control.set_fault("one_boot")
    with pytest.raises(RolledBack) as caught:
        move(migration)
    assert_named(caught.value)
    assert_source_untouched(site, vm)
    move(migration)
    assert_equal(site, migration)


@pytest.mark.slow
def test_an_image_that_a_terminate_copied_back_is_copied_anew(site: Lab, ends: Ends, vm: str) -> None:
    migration = ends.migration(site, vm, image_datastore="copied", **PLAN)
    site.control.set_fault("one_guest_writes", bytes=500_000)
    site.control.set_fault("one_boot")
    with pytest.raises(RolledBack):
        move(migration)
    assert_source_untouched(site, vm)
    move(migration)
    assert_equal(site, migration)


@pytest.mark.slow
def test_a_base_that_ended_without_its_id_leaves_nothing_where_the_guest_has_unmapped_since(
    site: Lab, ends: Ends, vm: str
) -> None:
    migration = ends.migration(site, vm, **PLAN)
    prepare(migration, Watch())
    # what the base wrote is there, and no disk's id is committed
    site.control.set_fault("one_refuse", method="image.update", message="Not now.", skip=len(DISKS), times=9)
    with pytest.raises(SnapferryError, match="Not now") as caught:
        run_round(migration, Watch())
    assert_named(caught.value)
    site.control.clear_faults()
    site.control.set_fault("guest_unmaps", vm=vm, share=0.8)
    move(migration)
    assert_equal(site, migration)


@pytest.mark.slow
def test_after_a_revert_no_change_id_counts_even_where_its_sequence_has_caught_up(
    site: Lab, ends: Ends, vm: str
) -> None:
    migration = ends.migration(site, vm, **PLAN)
    prepare(migration, Watch())
    # a backup's snapshot slips in right before ours, and somebody goes back to it: ours and the next share a sequence
    site.control.set_fault("backup_snapshot", vm=vm, seconds=600, method="CreateSnapshot_Task")
    run_round(migration, Watch())
    guest_writes(site, 20, vm)
    site.control.set_fault("revert", vm=vm)
    again = ends.migration(site, vm, **PLAN)
    move(again)
    assert_equal(site, again)
