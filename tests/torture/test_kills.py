"""A run may be killed at any instant: whoever goes on ends with equal bytes, and the VM in service at one end."""

import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from snapferry import opennebula, vsphere
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDatastore, LabDisk, LabNic, LabOpenNebula, LabVCenter, LabVm, Workload
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan

from .conftest import Summary
from .kills import GROUPS, Kill, Open, Outcome, die_and_go_on, fly

pytestmark = pytest.mark.slow
RUNS = int(os.environ.get("RUNS", "200"))
"""In `make torture`."""
BATCH = 20
"""So many VMs share a lab; one batch is a tenth of the runs, and enough for every day."""
LANES = 3
FAST = LabOpenNebula(image_delay=(0.02, 0.1), step_delay=(0.01, 0.05))


def small_vm(name: str, number: int, **changes: Any) -> LabVm:
    """Two small disks, one of an odd size, and a guest that writes; off until its turn comes."""
    disks = (
        LabDisk(capacity_bytes=12 << 20, data_bytes=6 << 20, data_runs=12),
        LabDisk(capacity_bytes=(1 << 20) + 512, data_bytes=1 << 19, data_runs=3),
    )
    nics = (LabNic(network="VM Network", ip=f"10.7.0.{number + 10}"),)  # outside the target's range: one is added
    guest = Workload(rate_bytes=400_000, hot_bytes=1 << 20)
    fields: dict[str, Any] = {"disks": disks, "nics": nics, "workload": guest, "power": "off", "shutdown_seconds": 0.1}
    return LabVm(name=name, **fields | changes)


def untracked_vm(name: str, number: int) -> LabVm:
    """One that can't track changes: its disks' files tell them always, when it is off, or never."""
    kind = ("nfs", "vmfs6", "vsan")[number % 3]
    return small_vm(name, number, hardware_version=4, datastore=kind)


def opener(lab: Lab) -> Open:
    """Opens both ends of a VM's move, as each process does for itself."""
    ends, ca = lab.endpoints, Path(lab.endpoints.ca_file).read_text()

    def open_vm(vm: str) -> Migration:
        source = vsphere.VCenterLogin(
            host=ends.vcenter_host, port=ends.vcenter_port, user=ends.vcenter_user,
            password=SecretStr(ends.vcenter_password), ca_pem=ca,
        )  # fmt: skip
        target = opennebula.OpenNebulaLogin(
            endpoint=ends.opennebula_endpoint, user=ends.opennebula_user,
            secret=SecretStr(ends.opennebula_password), ca_pem=ca,
        )  # fmt: skip
        fields: dict[str, Any] = {"image_datastore": "default", "floor": "256 KiB", "max_rounds": 3}
        plan = MigrationPlan.model_validate({"vm": vm, "shutdown": {"timeout": "3s"}, **fields})
        return Migration.open(plan, vsphere.Session(source), opennebula.Client(target))

    return open_vm


class Lane:
    """One process that runs cases: it gets the lab by being forked, since a running lab can't be sent."""

    lab: Lab

    @classmethod
    def enter(cls, lab: Lab) -> None:
        cls.lab = lab

    @classmethod
    def case(cls, folder: Path, vm: str, kill: Kill) -> Outcome:
        return die_and_go_on(cls.lab, opener(cls.lab), vm, kill, folder)


MAKES = {"tracked": small_vm, "untracked": untracked_vm}
STORES = tuple(LabDatastore(name=kind, kind=kind) for kind in ("vmfs6", "nfs", "vsan"))


def batches() -> list[object]:
    """The first one for every day; the others, and a third as many of VMs that can't be tracked, in `make torture`."""
    more = -(-RUNS // BATCH)
    cases = [("tracked", one) for one in range(1, 1 + more)] + [("untracked", one) for one in range(-(-more // 3))]
    return [("tracked", 0), *(pytest.param(*one, marks=pytest.mark.torture) for one in cases)]


@pytest.mark.parametrize(("make", "batch"), batches())
def test_a_run_killed_anywhere_is_continued_to_equal_bytes_and_nothing_of_ours_is_left(
    make: str, batch: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summary: Summary
) -> None:
    monkeypatch.setenv("SNAPFERRY_STATE", str(tmp_path / "state"))
    chance = random.Random(f"{seed} {batch}")
    groups = cycle(chance.sample(GROUPS, len(GROUPS)))
    outcomes: list[Outcome] = []
    while (left := BATCH - sum(bool(one.point) for one in outcomes)) > 0:
        begin = len(outcomes)
        names = [f"vm{begin + number}" for number in range(left)]
        vms = tuple(MAKES[make](name, number) for number, name in enumerate((*names, "pilot")))
        config = LabConfig(
            seed=100 * seed + batch + begin, vcenter=LabVCenter(vms=vms, datastores=STORES), opennebula=FAST
        )
        with up(config, tmp_path / f"lab{begin}") as lab:
            pilot = fly(lab, opener(lab), "pilot", tmp_path)
            outcomes += list(run_all(tmp_path, lab, {name: pilot.draw(next(groups), chance) for name in names}))
    for one in outcomes:
        summary("kills", one.group or "none: it was done before", one.point)
    assert not [str(one) for one in outcomes if one.failure]
    hit = Counter(one.group for one in outcomes if one.point)
    assert hit["copy"] + hit["off-copy"] >= BATCH / 5, hit  # so of all of them, too
    assert hit["off-copy"] + hit["off-call"] >= BATCH / 5, hit


def run_all(folder: Path, lab: Lab, kills: dict[str, Kill]) -> Iterator[Outcome]:
    """All VMs of a lab, some at a time, each lane a process that has no threads and so may fork."""
    with ProcessPoolExecutor(LANES, multiprocessing.get_context("fork"), Lane.enter, (lab,)) as lanes:
        futures = [lanes.submit(Lane.case, folder, vm, kill) for vm, kill in kills.items()]
        yield from (future.result() for future in futures)
