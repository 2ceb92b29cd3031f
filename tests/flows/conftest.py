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
        ends = running.endpoints
        values = {
            "SNAPFERRY_STATE": str(tmp_path / "state"),
            "SNAPFERRY_VCENTER_HOST": ends.vcenter_host,
            "SNAPFERRY_VCENTER_PORT": str(ends.vcenter_port),
            "SNAPFERRY_VCENTER_USER": ends.vcenter_user,
            "SNAPFERRY_VCENTER_PASSWORD": ends.vcenter_password,
            "SNAPFERRY_VCENTER_CA": ends.ca_file,
            "SNAPFERRY_OPENNEBULA_ENDPOINT": ends.opennebula_endpoint,
            "SNAPFERRY_OPENNEBULA_USER": ends.opennebula_user,
            "SNAPFERRY_OPENNEBULA_PASSWORD": ends.opennebula_password,
            "SNAPFERRY_OPENNEBULA_CA": ends.ca_file,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        yield running
