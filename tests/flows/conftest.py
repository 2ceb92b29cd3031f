"""A lab, described in the environment as a worker's is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDisk, LabVCenter, LabVm, Workload


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    disks = (
        LabDisk(capacity="32 MiB", data="8 MiB", data_runs=8),
        LabDisk(capacity="8 MiB", data="1 MiB", data_runs=2),
    )
    vm = LabVm(name="web01", disks=disks, workload=Workload(rate="500 kB/s", hot="1 MiB"))
    with up(LabConfig(vcenter=LabVCenter(vms=(vm,))), tmp_path / "lab") as running:
        values = running.endpoints.environment() | {"SNAPFERRY_STATE": str(tmp_path / "state")}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        yield running
