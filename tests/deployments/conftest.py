"""A site as an operator runs one: a Prefect server, blocks, labs behind them, and one worker."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from snapferry.blocks import OpenNebula, VCenter
from snapferry.cli.demo.processes import MARK, find_all
from snapferry.deployments import WORK_POOL, deploy
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabOpenNebula, LabVCenter, LabVm, Workload

DISKS = (
    LabDisk(capacity="96 MiB", data="24 MiB", data_runs=16),
    LabDisk(capacity=(32 << 20) + 512, data="4 MiB", data_runs=8),
)
NICS = (LabNic(network="VM Network"),)
QUIET = Workload(rate="200 kB/s", hot="1 MiB")
FAST = LabOpenNebula(image_delay=(0.05, 0.2), step_delay=(0.02, 0.1))
"""A frontend that keeps nobody waiting."""
VMS = (
    "terminal", "browser", "retry", "alone", "later", "cancelled", "abandoned", "canary", "dead", "waits", "untracked",
)  # fmt: skip
"""One VM for each test that changes one."""


def quick_vm(name: str) -> LabVm:
    """Two small disks, one of an odd size, and a guest that writes a little and goes down at once."""
    return LabVm(name=name, disks=DISKS, nics=NICS, workload=QUIET, shutdown_seconds=0.1)


def save_blocks(name: str, lab: Lab, password: str | None = None) -> None:
    """Makes a lab's ends known to Prefect, as an operator does in the UI: both blocks have that name.

    Args:
        password: another one than the lab's.
    """
    ends = lab.endpoints
    ca = Path(ends.ca_file).read_text(encoding="utf-8")
    vcenter = VCenter(
        host=ends.vcenter_host,
        port=ends.vcenter_port,
        user=ends.vcenter_user,
        password=SecretStr(password or ends.vcenter_password),
        ca=ca,
    )
    opennebula = OpenNebula(
        endpoint=ends.opennebula_endpoint,
        user=ends.opennebula_user,
        password=SecretStr(password or ends.opennebula_password),
        ca=ca,
    )
    vcenter.save(name, overwrite=True)
    opennebula.save(name, overwrite=True)


def kill_all(folder: Path) -> None:
    """Kills the worker of a folder and its runs, which lead sessions of their own."""
    while handles := find_all(folder).values():
        for handle in handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            select.select([handle], [], [], 10)
            os.close(handle)


class Site:
    """A Prefect server and one worker at a time; what plans need to know of both ends is in blocks.

    Attributes:
        api: the server's address.
        lab: the lab behind the blocks named `lab`, with a VM for each test.
        folder: the worker's home and log.
    """

    def __init__(self, api: str, lab: Lab, folder: Path) -> None:
        self.api = api
        self.lab = lab
        self.folder = folder
        self._worker: subprocess.Popen[bytes] | None = None

    def environment(self, home: Path) -> dict[str, str]:
        """Of a client of the server with that home; nothing else of Prefect or Snapferry is set."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SNAPFERRY_"))}
        return clean | {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(home)}

    def command(self, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs `snapferry` as an operator does, from another place than the worker's."""
        return subprocess.run(
            [Path(sys.executable).with_name("snapferry"), *arguments], env=self.environment(home), cwd=home,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    def ensure_worker(self) -> None:
        """Starts a worker where none runs."""
        if self._worker is None or self._worker.poll() is not None:
            self._worker = self.start_worker(self.folder)

    def kill_worker(self) -> None:
        """Ends the worker and its runs as a power cut would."""
        kill_all(self.folder)
        if self._worker:
            self._worker.wait(timeout=30)
            self._worker = None

    def replace_worker(self) -> None:
        """Kills the worker and starts another one."""
        self.kill_worker()
        self.ensure_worker()

    def start_worker(self, folder: Path, user: str | None = None) -> "subprocess.Popen[bytes]":
        """A worker process whose home, log and state lie in the folder; `kill_all` ends it.

        Args:
            user: as whom it runs; by default as whoever runs the tests.
        """
        (folder / "tmp").mkdir(exist_ok=True)
        if user:
            shutil.chown(folder / "tmp", user)
        settings = {
            MARK: str(folder),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "DEBUG",  # what is said at all may be searched for what mustn't be said
            "SNAPFERRY_STATE": str(folder / "state"),
        }
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"]
        with (folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment(folder / "home") | settings, cwd=folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
                user=user, group=user, extra_groups=[] if user else None,
            )  # fmt: skip


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    config = LabConfig(vcenter=LabVCenter(vms=tuple(map(quick_vm, VMS))), opennebula=FAST)
    with up(config, tmp_path_factory.mktemp("lab") / "lab") as running:
        yield running


@pytest.fixture(scope="session")
def idle_site(prefect_api: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site before a worker runs."""
    deploy([])
    save_blocks("lab", lab)
    site = Site(prefect_api, lab, tmp_path_factory.mktemp("worker"))
    try:
        yield site
    finally:
        site.kill_worker()


@pytest.fixture
def site(idle_site: Site) -> Site:
    """The site with a worker, which most tests share."""
    idle_site.ensure_worker()
    return idle_site


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends the worker where the next test doesn't need it: it keeps the server busy, a seventh of a core."""
    used = getattr(item, "funcargs", {}).get("idle_site")
    if isinstance(used, Site) and not (nextitem and "idle_site" in getattr(nextitem, "fixturenames", ())):
        used.kill_worker()
