"""A worker that is killed with its run, as a power cut would: the next run goes on, and the VM arrives equal."""

import random
from contextlib import suppress
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest

from snapferry.deployments import Update, follow
from snapferry.errors import Stopped
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabVCenter
from snapferry.plan import MigrationPlan

from ..torture.kills import check_moved
from .conftest import FAST, Site, quick_vm, save_blocks
from .support import PATIENCE_SECONDS, begin, open_migration, plan, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect, long")]  # side by side with the others
STEPS = ("copying", "shutdown", "disconnect NICs", "last changes", "hand over", "start", "release", "mark the source")
RUNS = 4


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.torture)])
def test_a_worker_killed_at_any_step_is_followed_by_one_that_ends_equal(
    kills: int, site: Site, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    names = [f"killed{kills}-{number}" for number in range(kills)]
    vms = tuple(quick_vm(name) for name in names)
    vcenter = LabVCenter(hosts=("kills.lab.test",), vms=vms)  # whose limit the dead runs' slots may fill
    with up(LabConfig(vcenter=vcenter, opennebula=FAST), tmp_path / "lab") as lab:
        save_blocks("kills", lab)
        plans = {name: plan(name, site="kills", gate=False, copies_per_host=50) for name in names}
        for name, planned in plans.items():
            step = chance.choice(STEPS)
            print(f"{name}: the worker is killed as {step!r} is told")
            site.ensure_worker()
            wait_for_step(begin("migrate-vm/migrate", planned), step)
            site.replace_worker()
            go_on(lab, planned)


def wait_for_step(run: UUID, step: str) -> None:
    """Follows a run until it tells the step, or ends."""
    told = Event()

    def look(update: Update) -> None:
        if any(line.text.startswith(step) for line in update.lines):
            told.set()

    with suppress(Stopped):
        follow(run, look, timeout_seconds=PATIENCE_SECONDS, stop=told)
    assert told.is_set()


def go_on(lab: Lab, planned: MigrationPlan) -> None:
    """Runs the deployment again, as an operator would, until the VM has moved; then looks at both ends.

    The plan's own deployment would wait for the dead run, until Prefect has noticed that it is dead.
    """
    ends = []
    for _ in range(RUNS):
        ended = run("migrate-vm/migrate", planned)
        ends.append(f"{ended.outcome} {ended.error}: {ended.message}")
        if ended.outcome == "completed":
            break
    assert ends[-1].startswith("completed"), ends
    with open_migration(planned) as migration:
        check_moved(lab, migration, planned.vm)
