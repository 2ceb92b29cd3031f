"""One simulated vCenter for all tests of this room; every test that changes a VM has one of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDatastore, LabDisk, LabNic, LabUser, LabVCenter, LabVm, Workload
from snapferry.vsphere import REQUIRED_PRIVILEGES, Session, SourceVm, VCenterLogin, find_vm

MIB = 1 << 20
DISK = LabDisk(capacity_bytes=4 * MIB, data_bytes=MIB, data_runs=4)
MANY = 120
"""More VMs than one page of an answer holds."""
PAGE_EXTENTS = 20
RUNS = 150
"""Runs of data on the scattered disk: several pages of changed areas."""

SHOWCASE = LabVm(
    name="showcase",
    folder="prod/web",
    cpus=4,
    cores_per_socket=2,
    memory_mib=3072,
    firmware="efi",
    secure_boot=True,
    host_name="showcase.lab.test",
    disks=(DISK, LabDisk(capacity_bytes=2 * MIB + 512, controller="sata")),
    nics=(
        LabNic(network="VM Network", mac="00:50:56:0a:00:01", ip="10.0.5.7"),
        LabNic(network="storage", adapter="e1000e", connected=False),
    ),
)
SCATTERED = LabVm(
    name="scattered",
    change_tracking=True,
    disks=(LabDisk(capacity_bytes=64 * MIB + 512, data_bytes=24 * MIB, data_runs=RUNS),),
    workload=Workload(rate_bytes=2 * MIB, hot_bytes=MIB),
)


def plain(name: str, **more: object) -> LabVm:
    return LabVm.model_validate({"name": name, "disks": (DISK,), **more})


VMS = (
    SHOWCASE,
    SCATTERED,
    plain("twin", folder="prod"),
    plain("twin", folder="test"),
    plain("with/slash", power="off"),
    *(plain(f"many-{number:03}", power="off", folder="many") for number in range(MANY)),
    *(
        plain(name)
        for name in ("snap", "snap-lost", "snap-foreign", "snap-busy", "snap-stays", "snap-expired", "unprivileged")
    ),
    *(plain(name) for name in ("track", "track-crashed", "track-foreign", "track-again")),
    plain("track-off", power="off"),
    plain("track-old", hardware_version=4),
    plain("changes-off", power="off", change_tracking=True),
    *(
        plain(name, shutdown=0.2)
        for name in ("shut", "shut-hangs-abort", "shut-hangs-off", "shut-stopped", "shut-busy")
    ),
    *(plain(name, tools="not-running") for name in ("shut-no-tools-abort", "shut-no-tools-off")),
    *(plain(name) for name in ("power", "events", "power-race")),
    plain("nics", nics=(LabNic(network="VM Network"), LabNic(network="storage"))),
    *(plain(name) for name in ("marked", "marked-clash")),
    plain("ticket"),
    *(
        plain(name, disks=(DISK, LabDisk(capacity_bytes=2 * MIB + 512, data_bytes=MIB, controller="sata"), DISK))
        for name in ("export", "export-fails", "export-lost", "export-merge")
    ),
    plain("export-off", power="off"),
)

CONFIG = LabConfig(
    seed=7,
    vcenter=LabVCenter(
        vms=VMS,
        networks=("VM Network", "storage"),
        datastores=(LabDatastore(name="san1", capacity_bytes=10 << 30),),
        change_page_extents=PAGE_EXTENTS,
        lease_timeout_seconds=1,
        users=(
            LabUser(name="reader@vsphere.local"),
            LabUser(
                name="nearly@vsphere.local",
                privileges=tuple(set(REQUIRED_PRIVILEGES) - {"VirtualMachine.State.CreateSnapshot"}),
            ),
        ),
    ),
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with up(CONFIG, tmp_path_factory.mktemp("vsphere") / "lab") as running:
        yield running


@pytest.fixture(autouse=True)
def no_fault_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test lets go wrong ends with it."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").control.clear_faults()


OpenSession = Callable[..., Session]


@pytest.fixture(scope="session")
def login(lab: Lab) -> VCenterLogin:
    """The administrator's."""
    ends = lab.endpoints
    return VCenterLogin(
        host=ends.vcenter_host,
        port=ends.vcenter_port,
        user=ends.vcenter_user,
        password=SecretStr(ends.vcenter_password),
        ca_pem=Path(ends.ca_file).read_text(),
        timeout_seconds=20,
    )


@pytest.fixture(scope="session")
def session(login: VCenterLogin) -> Iterator[Session]:
    with Session(login) as one:
        yield one


@pytest.fixture
def open_session(lab: Lab, login: VCenterLogin) -> Iterator[OpenSession]:
    """Opens a session of a user with fields of the login changed; closed with the test."""
    with ExitStack() as stack:

        def open_one(user: str | None = None, **changes: object) -> Session:
            if user is not None:
                changes = {"user": user, "password": SecretStr(lab.endpoints.users[user]), **changes}
            return stack.enter_context(Session(login.model_copy(update=changes)))

        yield open_one


@pytest.fixture
def find(session: Session) -> Callable[[str], SourceVm]:
    """Finds a VM by its name."""
    return lambda name: find_vm(session, name)
