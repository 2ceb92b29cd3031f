"""A frontend on loopback with short delays, and the stock client."""

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree
from xmlrpc.client import ServerProxy

import pyone
import pytest

from snapferry.lab.ca import CertificateAuthority
from snapferry.lab.config import LabNetwork, LabOneDatastore, LabOpenNebula
from snapferry.lab.opennebula import Frontend

CONFIG = LabOpenNebula(
    datastores=(LabOneDatastore(name="default", tm="local"), LabOneDatastore(name="san", tm="shared")),
    networks=(LabNetwork(name="lan", match="VM Network", first_ip="10.0.5.10", size=20),),
    hosts=("kvm1", "kvm2"),
    image_delay=(0.01, 0.04),
    step_delay=(0.01, 0.04),
)


@dataclass(frozen=True)
class Site:
    """A running frontend, and what tests do with it over and over."""

    LOCAL: ClassVar[int] = 1
    SHARED: ClassVar[int] = 100
    SYSTEM: ClassVar[int] = 0
    SYSTEM_SHARED: ClassVar[int] = 101

    frontend: Frontend
    endpoint: str
    ca_file: Path
    folder: Path

    def client(self, session: str = "oneadmin:opennebula") -> Any:
        """The stock client; a path as `https_verify` is how it takes a CA."""
        return pyone.OneServer(self.endpoint, session=session, https_verify=str(self.ca_file))

    def plain_user(self) -> Any:
        """The client of a user who is no administrator (ID 1)."""
        self.client().user.allocate("migrator", "pass", "core", [])
        return self.client("migrator:pass")

    def image(self, one: Any, name: str = "disk", datastore: int = LOCAL, size: int = 4, more: str = "") -> int:
        """A persistent empty image, READY."""
        text = f"NAME={name}\nTYPE=OS\nFORMAT=raw\nSIZE={size}\nPERSISTENT=YES\n{more}"
        number = int(one.image.allocate(text, datastore))
        self.until(lambda: one.image.info(number).STATE == 1)
        return number

    def machine(self, one: Any, images: tuple[int, ...] = (), more: str = "", hold: bool = True) -> int:
        disks = "".join(f"DISK=[IMAGE_ID={number}]\n" for number in images)
        return int(one.vm.allocate(f"NAME=vm\nCPU=1\nMEMORY=64\n{disks}{more}", hold))

    def running(self, one: Any, images: tuple[int, ...] = (), more: str = "", datastore: int = -1) -> int:
        number = self.machine(one, images, more)
        one.vm.deploy(number, 0, False, datastore)
        self.wait_vm(one, number, 3, 3)
        return number

    def wait_vm(self, one: Any, number: int, state: int, lcm: int = 0) -> Any:
        """The VM once it is in that state."""

        def look() -> Any:
            vm = one.vm.info(number)
            return vm if (state, lcm) == (vm.STATE, vm.LCM_STATE) else None

        return self.until(look)

    def elements(self, method: str, *parameters: Any) -> list[str]:
        """The children of an answer's root, in their order; the client itself would hide it."""
        raw = ServerProxy(self.endpoint, context=ssl.create_default_context(cafile=str(self.ca_file)))
        answer: Any = getattr(raw, f"one.{method}")("oneadmin:opennebula", *parameters)
        return [child.tag for child in ElementTree.fromstring(answer[1])]  # noqa: S314

    @staticmethod
    def until(look: Callable[[], Any], seconds: float = 10) -> Any:
        """What `look` gives once it gives something; fails the test after `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(f"it didn't come to that within {seconds} s")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("one-ca"))


@pytest.fixture
def open_site(authority: CertificateAuthority, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts frontends and stops them all; a failure inside one fails the test."""
    opened: list[Frontend] = []

    def start(config: LabOpenNebula = CONFIG, seed: int = 1, folder: Path | None = None) -> Site:
        where = folder or tmp_path / f"one-{len(opened)}"
        frontend = Frontend(config, where, seed=seed, user="oneadmin", password="opennebula")
        opened.append(frontend)
        endpoint = frontend.start(authority.issue("localhost").server_context())
        return Site(frontend, endpoint, authority.file, where)

    yield start
    for frontend in opened:
        frontend.stop()


@pytest.fixture
def slow_site(open_site: Callable[..., Site]) -> Site:
    """A frontend whose steps take long enough to be seen on a busy machine."""
    return open_site(CONFIG.model_copy(update={"image_delay": (1, 1), "step_delay": (1, 1)}))


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()


@pytest.fixture
def one(site: Site) -> Any:
    """The stock client, as the administrator."""
    return site.client()
