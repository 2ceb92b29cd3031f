"""A frontend of its own for each test, a certificate authority for all, and a server that answers what a test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from snapferry.lab.ca import Certificate, CertificateAuthority
from snapferry.lab.config import LabNetwork, LabOneDatastore, LabOpenNebula
from snapferry.lab.opennebula import Frontend
from snapferry.opennebula import Client, OpenNebulaLogin
from snapferry.opennebula.models import Datastore
from snapferry.vsphere.models import PowerState, SourceDisk, SourceNic, SourceVm

PASSWORD = "canary-4711"  # a canary: it may stand in no message
MakeClient = Callable[..., Client]
Answer = Callable[[BaseHTTPRequestHandler, bytes], None]
Serve = Callable[..., str]


class World:
    """A running frontend and a client of its administrator."""

    def __init__(self, frontend: Frontend, client: Client, login: OpenNebulaLogin) -> None:
        self.frontend = frontend
        self.client = client
        self.login = login

    def plain_user(self, name: str = "migrator") -> Client:
        """A client of a user without rights of their own."""
        self.client.call("user.allocate", name, "secret", "core")
        return Client(self.login.model_copy(update={"user": name, "secret": SecretStr("secret")}))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def certificate(authority: CertificateAuthority) -> Certificate:
    return authority.issue("one.lab.test")


@pytest.fixture
def world(tmp_path: Path, authority: CertificateAuthority, certificate: Certificate) -> Iterator[World]:
    config = LabOpenNebula(
        datastores=(LabOneDatastore(name="default"), LabOneDatastore(name="local", tm="local")),
        networks=(LabNetwork(name="lan", match="VM Network"), LabNetwork(name="dmz", first_ip="10.0.9.10")),
        image_delay=(0.02, 0.05),
        step_delay=(0.01, 0.03),
    )
    frontend = Frontend(config, tmp_path / "one", seed=1, user="oneadmin", password=PASSWORD)
    login = OpenNebulaLogin(
        endpoint=frontend.start(certificate.server_context()),
        user="oneadmin",
        secret=SecretStr(PASSWORD),
        ca_pem=authority.file.read_text(),
        timeout_seconds=10,
    )
    with Client(login) as client:
        yield World(frontend, client, login)
    frontend.stop()


@pytest.fixture
def serve(certificate: Certificate) -> Iterator[Serve]:
    """Starts servers that answer as told; gives their endpoints."""
    with ExitStack() as stack:

        def start(answer: Answer, *, host: str = "127.0.0.1") -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    answer(self, self.rfile.read(int(self.headers["Content-Length"])))

                def log_message(self, format: str, *args: Any) -> None:
                    """Tests don't need a log of requests."""

            server = ThreadingHTTPServer((host, 0), Handler)
            server.daemon_threads = True
            server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"https://{'localhost' if host == '127.0.0.1' else host}:{server.server_address[1]}/RPC2"

        yield start


@pytest.fixture
def client_of(authority: CertificateAuthority) -> MakeClient:
    def make(endpoint: str, **fields: Any) -> Client:
        values = {
            "endpoint": endpoint, "user": "oneadmin", "secret": SecretStr(PASSWORD),
            "ca_pem": authority.file.read_text(), "timeout_seconds": 5,
        }  # fmt: skip
        return Client(OpenNebulaLogin(**(values | fields)))

    return make


def make_disk(key: int = 2000, capacity_bytes: int = 64 << 20) -> SourceDisk:
    return SourceDisk(
        key=key, label=f"Hard disk {key - 1999}", capacity_bytes=capacity_bytes, backing_uuid=f"6000C29a-{key}",
        file_name="[san1] web01/web01.vmdk", datastore="san1", datastore_kind="vmfs6", controller="pvscsi",
        controller_bus=0, unit=key - 2000, change_id=None, mode="persistent",
    )  # fmt: skip


def make_nic(mac: str = "00:50:56:AA:BB:CC", *ips: str, network: str = "VM Network") -> SourceNic:
    return SourceNic(
        key=4000, mac=mac, network=network, adapter="vmxnet3", connected=True, start_connected=True, ips=ips
    )


def make_vm(**fields: Any) -> SourceVm:
    values: dict[str, Any] = {
        "moref": "vm-42", "name": "web01", "instance_uuid": "5029-i", "bios_uuid": "4229-b", "path": "/Vienna/vm/web01",
        "vcenter_uuid": "vc-1", "power": PowerState.ON, "host": "esx1", "cpus": 4, "cores_per_socket": 2,
        "memory_mib": 2048, "firmware": "bios", "secure_boot": False, "guest_id": "debian12_64Guest",
        "guest_full_name": "Debian GNU/Linux 12 (64-bit)", "host_name": "web01.example.org", "tools": "running",
        "hardware_version": 19, "change_tracking": True, "change_tracking_supported": True,
        "consolidation_needed": False, "is_template": False, "annotation": "", "boot_time": datetime.now(UTC),
        "disks": (make_disk(2000), make_disk(2001)), "nics": (make_nic(),),
    }  # fmt: skip
    return SourceVm(**(values | fields))


def make_datastore(free_mib: int = 100, base: Path | str = "/var/lib/one//datastores/1", **fields: object) -> Datastore:
    values = {
        "id": 1, "name": "default", "kind": 0, "ds_mad": "fs", "tm_mad": "shared", "base_path": str(base),
        "free_mib": free_mib, "total_mib": 1000, "attributes": {},
    }  # fmt: skip
    return Datastore.model_validate(values | fields)
