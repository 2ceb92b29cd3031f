"""A pre-sync that finds nothing, as its flow runs in a worker's process against a Prefect server."""

import os

from prefect.testing.utilities import prefect_test_harness

from benchmarks.frame import Bench, Result, measured, seconds
from snapferry.flows import presync_vm
from snapferry.lab import up
from snapferry.lab.config import LabConfig, LabDisk, LabVCenter, LabVm, Workload
from snapferry.plan import MigrationPlan


def measure(bench: Bench) -> Result:
    """Seconds of a whole run of the flow: reconcile, checks, snapshot, changes, commit, artifacts."""
    disks = (LabDisk(capacity_bytes=64 << 20, data_bytes=8 << 20), LabDisk(capacity_bytes=8 << 20))
    vm = LabVm(name="quiet", disks=disks, workload=Workload())
    plan = MigrationPlan(vm="quiet", image_datastore="default")
    with up(LabConfig(vcenter=LabVCenter(vms=(vm,))), bench.folder / "lab") as lab, prefect_test_harness():
        os.environ |= lab.endpoints.environment() | {"SNAPFERRY_STATE": str(bench.folder / "state")}
        presync_vm(plan)  # the base copy

        def nothing() -> None:
            result = presync_vm(plan)
            assert result and not sum(disk.changed_bytes for disk in result.disks)

        what = "pre-sync that finds nothing, two disks"
        return measured(bench, "empty-round", what, 3.0, lambda: seconds(nothing), "s")
