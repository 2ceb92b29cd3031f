"""A lab of its own for a test, and both ends opened as a worker opens them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from snapferry import opennebula, vsphere
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan

MakeLab = Callable[[LabConfig], Lab]
OpenMigration = Callable[..., Migration]


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[MakeLab]:
    """Starts labs that end with the test."""
    with ExitStack() as stack:
        yield lambda config: stack.enter_context(up(config, tmp_path / "lab"))


@pytest.fixture
def open_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenMigration]:
    """Opens a migration in a lab; `vm` and further fields make its plan."""
    monkeypatch.setenv("SNAPFERRY_STATE", str(tmp_path / "state"))
    with ExitStack() as stack:

        def open_one(lab: Lab, vm: str = "web01", **fields: object) -> Migration:
            plan = MigrationPlan.model_validate({"vm": vm, "image_datastore": "default", **fields})
            return stack.enter_context(Migration.open(plan, source_of(lab), target_of(lab)))

        yield open_one


def source_of(lab: Lab, user: str | None = None) -> vsphere.Session:
    ends = lab.endpoints
    return vsphere.Session(
        vsphere.VCenterLogin(
            host=ends.vcenter_host,
            port=ends.vcenter_port,
            user=user or ends.vcenter_user,
            password=SecretStr(ends.users[user] if user else ends.vcenter_password),
            ca_pem=Path(ends.ca_file).read_text(),
        )
    )


def target_of(lab: Lab) -> opennebula.Client:
    ends = lab.endpoints
    return opennebula.Client(
        opennebula.OpenNebulaLogin(
            endpoint=ends.opennebula_endpoint,
            user=ends.opennebula_user,
            secret=SecretStr(ends.opennebula_password),
            ca_pem=Path(ends.ca_file).read_text(),
        )
    )
