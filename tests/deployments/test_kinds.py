"""A VM on each kind of datastore goes through the deployments, by a route that suits it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDatastore, LabVCenter
from snapferry.lab.kinds import KINDS
from snapferry.record import Phase

from ..engine.support import assert_equal
from .conftest import FAST, Site, quick_vm, save_blocks
from .support import begin, open_migration, plan, watch

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect, long")]  # side by side with the others
ROUTES = {"vmfs6": "nfc", "vmfs5": "datastore", "nfs": "mount", "vsan": "export"}


@pytest.fixture
def kinds_lab(tmp_path: Path) -> Iterator[Lab]:
    """A datastore of each kind, with a running VM of its name."""
    stores = tuple(LabDatastore(name=kind, kind=kind) for kind in KINDS)
    vms = tuple(quick_vm(kind).model_copy(update={"datastore": kind}) for kind in KINDS)
    with up(LabConfig(vcenter=LabVCenter(datastores=stores, vms=vms), opennebula=FAST), tmp_path / "lab") as lab:
        yield lab


def test_a_vm_on_each_kind_of_datastore_arrives_equal(site: Site, kinds_lab: Lab) -> None:
    save_blocks("kinds", kinds_lab)
    mounts = {"nfs": str(kinds_lab.folder / "datastores" / "nfs")}
    plans = {kind: plan(kind, site="kinds", gate=False, route=ROUTES[kind], mounts=mounts) for kind in KINDS}
    runs = {kind: begin("migrate-vm/migrate", one) for kind, one in plans.items()}
    assert {kind: watch(run).outcome for kind, run in runs.items()} == dict.fromkeys(KINDS, "completed")
    for kind, one in plans.items():
        with open_migration(one) as migration:
            assert migration.planned.phase == Phase.MIGRATED
            assert {disk.route for disk in migration.planned.rounds[0].disks} == {ROUTES[kind]}
            assert_equal(kinds_lab, migration)
    assert {one["name"] for one in kinds_lab.control.inventory().machines} == set(KINDS)
