"""A lab of its own for a test, and both ends opened as a worker opens them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from snapferry import opennebula, vsphere
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabVCenter, LabVm, Workload
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan


class Ends:
    """Opens both ends of labs for one test, as any user, and closes all behind it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def source(self, lab: Lab, **changes: Any) -> vsphere.Session:
        """A session with vCenter; `changes` replace fields of the login."""
        ends = lab.endpoints
        fields: dict[str, Any] = {
            "host": ends.vcenter_host,
            "port": ends.vcenter_port,
            "user": ends.vcenter_user,
            "password": SecretStr(ends.users.get(changes.get("user", ""), ends.vcenter_password)),
            "ca_pem": Path(ends.ca_file).read_text(),
        }
        session = vsphere.Session(vsphere.VCenterLogin(**fields | changes))
        self._stack.callback(session.close)
        return session

    def target(self, lab: Lab, **changes: Any) -> opennebula.Client:
        """A client of OpenNebula; `changes` replace fields of the login."""
        ends = lab.endpoints
        fields: dict[str, Any] = {
            "endpoint": ends.opennebula_endpoint,
            "user": ends.opennebula_user,
            "secret": SecretStr(ends.opennebula_password),
            "ca_pem": Path(ends.ca_file).read_text(),
        }
        client = opennebula.Client(opennebula.OpenNebulaLogin(**fields | changes))
        self._stack.callback(client.close)
        return client

    def migration(self, lab: Lab, vm: str = "web01", **fields: Any) -> Migration:
        """A migration with sessions of its own, as another worker would have; `fields` go into its plan."""
        plan = MigrationPlan.model_validate({"vm": vm, "image_datastore": "default", **fields})
        return Migration.open(plan, self.source(lab), self.target(lab))


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setenv("SNAPFERRY_STATE", str(tmp_path / "state"))
    with ExitStack() as stack:
        yield Ends(stack)


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[[LabConfig], Lab]]:
    """Starts labs that end with the test."""
    with ExitStack() as stack:
        yield lambda config: stack.enter_context(up(config, tmp_path / "lab"))


def small_vm(name: str = "web01", **changes: Any) -> LabVm:
    """A quick VM: two small disks, one of an odd size, and a guest that writes a little."""
    fields: dict[str, Any] = {
        "disks": (
            LabDisk(capacity_bytes=48 << 20, data_bytes=12 << 20, data_runs=9),
            LabDisk(capacity_bytes=(9 << 20) + 512, data_bytes=3 << 20, data_runs=5),
        ),
        "nics": (LabNic(network="VM Network", ip="10.0.5.20"),),
        "workload": Workload(rate_bytes=2_000_000, hot_bytes=4 << 20),
        "shutdown_seconds": 0.2,
    }
    return LabVm(name=name, **fields | changes)


TOO_OLD = 4
"""A hardware version that can't track changes."""


@pytest.fixture
def untracked_lab(make_lab: Callable[[LabConfig], Lab]) -> Lab:
    """A lab with one small VM, web01, that runs and can't track changes."""
    return make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(hardware_version=TOO_OLD),))))


@pytest.fixture
def lab(make_lab: Callable[[LabConfig], Lab]) -> Lab:
    """A lab with one small VM, web01, that runs."""
    return make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),))))
