"""One small lab for all tests of its control process; every test that changes a VM has a VM of its own."""

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyVim.connect import Disconnect, SmartConnect

from snapferry.lab import Lab, LabConfig, up
from snapferry.lab.config import LabDatastore, LabDisk, LabNic, LabUser, LabVCenter, LabVm, Workload
from snapferry.lab.kinds import KINDS

MIB = 1 << 20
CHANGE_PAGE_EXTENTS = 4

ConnectAs = Callable[..., Any]


def _vm(name: str, **fields: Any) -> LabVm:
    disks = fields.pop("disks", (LabDisk(capacity_bytes=4 * MIB, data_bytes=MIB, data_runs=4),))
    return LabVm(name=name, disks=disks, shutdown_seconds=0.05, **fields)


def _vms() -> tuple[LabVm, ...]:
    nics = (
        LabNic(network="VM Network", ip="10.0.5.77"),
        LabNic(network="dmz", adapter="e1000e", connected=False, mac="00:50:56:01:02:03"),
    )
    disks = (
        LabDisk(capacity_bytes=4 * MIB + 512, data_bytes=MIB, data_runs=24),
        LabDisk(capacity_bytes=2 * MIB, controller="sata"),
        LabDisk(capacity_bytes=2 * MIB),
    )
    kinds = tuple(LabDisk(capacity_bytes=2 * MIB, data_bytes=MIB // 2, datastore=name) for name in KINDS)
    writer = Workload(rate_bytes=MIB // 8, write_bytes=16 << 10)
    return (
        _vm("web01", nics=nics, disks=disks, firmware="efi", secure_boot=True, change_tracking=True),
        _vm("still", power="off"),
        _vm("kinds", disks=kinds),
        _vm("mute", tools="not-running"),
        _vm("bare", tools="not-installed"),
        _vm("10% a/b\\c", folder="prod/deep", power="off"),
        *(_vm(f"own-{number:02}", nics=nics[:1], workload=writer) for number in range(40)),
    )


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    vcenter = LabVCenter(
        hosts=("esx1.lab.test", "esx2.lab.test"),
        datastores=(
            LabDatastore(),
            LabDatastore(name="san2", capacity_bytes=1 << 40),
            *(LabDatastore(name=name, kind=name) for name in KINDS),
        ),
        networks=("VM Network", "dmz"),
        users=(LabUser(name="looker"), LabUser(name="snapper", privileges=("VirtualMachine.State.CreateSnapshot",))),
        change_page_extents=CHANGE_PAGE_EXTENTS,
        vms=_vms(),
    )
    with up(LabConfig(seed=7, vcenter=vcenter), tmp_path_factory.mktemp("site") / "lab") as running:
        yield running


@pytest.fixture
def connect(lab: Lab) -> Iterator[ConnectAs]:
    """Logs in with the stock client over verified TLS: `connect()`, `connect("looker")`."""
    opened = []

    def login(user: str | None = None, password: str | None = None) -> Any:
        ends = lab.endpoints
        known = {ends.vcenter_user: ends.vcenter_password, **ends.users}
        user = user or ends.vcenter_user
        instance = SmartConnect(
            host=ends.vcenter_host,
            port=ends.vcenter_port,
            user=user,
            pwd=known[user] if password is None else password,
            sslContext=ssl.create_default_context(cafile=ends.ca_file),
            httpConnectionTimeout=30,
        )
        opened.append(instance)
        return instance

    yield login
    lab.control.clear_faults()
    for instance in opened:
        try:
            Disconnect(instance)
        except Exception as error:  # noqa: BLE001 (a session that a test ended can't be logged out)
            assert "not authenticated" in str(error)


@pytest.fixture
def si(connect: ConnectAs) -> Any:
    """The administrator's connection."""
    return connect()


@pytest.fixture(scope="session")
def _names(lab: Lab) -> Iterator[str]:
    return iter([vm.name for vm in _vms() if vm.name.startswith("own-")])


@pytest.fixture
def vm(si: Any, _names: Iterator[str]) -> Any:
    """A running VM that no other test uses."""
    return si.content.searchIndex.FindByInventoryPath(f"Vienna/dc1/vm/prod/{next(_names)}")


@pytest.fixture
def web01(si: Any) -> Any:
    """A VM with disks on two controllers and two NICs; to be looked at only."""
    return si.content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/web01")
