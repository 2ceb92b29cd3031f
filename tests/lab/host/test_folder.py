"""`/folder` over HTTPS: small files at any time, extents only while the VM is off."""

import base64
import http.client
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.lab.host import HostService
from snapferry.lab.host.folder import FolderServer

MIB = 1 << 20
Get = Callable[..., tuple[int, bytes]]


@pytest.fixture
def get(
    service: HostService, folder_server: FolderServer, certificate: tuple[Path, Path], new_vm: Callable[..., None]
) -> Get:
    service.set_credentials("root", "secret")
    new_vm(4 * MIB + 512)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(certificate[0])

    def request(path: str, user: str = "root:secret", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("127.0.0.1", folder_server.port, timeout=10, context=tls)
        token = base64.b64encode(user.encode()).decode()
        url = f"/folder/{path}?dcPath=Vienna/dc1&dsName=san1"
        connection.request("GET", url, headers={"Authorization": f"Basic {token}", **headers})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    return request


def test_descriptors_are_readable_live_and_extents_arent(get: Get, service: HostService) -> None:
    service.power_on("vm-1")
    service.create_snapshot("vm-1", "one")
    assert get("web01/web01-000001.vmdk")[1].startswith(b"# Disk DescriptorFile")
    assert b'scsi0:0.fileName = "web01-000001.vmdk"' in get("web01/web01.vmx")[1]
    for name in ("web01-flat.vmdk", "web01-000001-sesparse.vmdk"):
        assert get(f"web01/{name}")[0] == 500
    service.power_off("vm-1")
    assert get("web01/web01-flat.vmdk")[0] == 200


@pytest.mark.parametrize(
    ("store_kind", "base", "frozen", "leaf"),
    [("vmfs6", 500, 500, 500), ("vmfs5", 200, 200, 500), ("nfs", 200, 200, 200), ("vsan", 404, 404, 404)],
)
def test_what_a_running_vm_locks_depends_on_its_datastore(
    get: Get, service: HostService, base: int, frozen: int, leaf: int
) -> None:
    service.power_on("vm-1")
    service.create_snapshot("vm-1", "one")
    service.create_snapshot("vm-1", "two")
    disk = service._vms["vm-1"].disks[2000]
    assert [get(f"web01/{layer.path.name}")[0] for layer in disk.layers] == [200] * 3
    names = [f"web01/{layer.extent.path.name}" for layer in disk.layers]
    assert [get(name)[0] for name in names] == [base, frozen, leaf]
    service.power_off("vm-1")
    assert {get(name)[0] for name in names} == {404 if base == 404 else 200}


def test_ranges_are_exact(get: Get, service: HostService) -> None:
    status, whole = get("web01/web01-flat.vmdk")
    assert (status, len(whole)) == (200, 4 * MIB + 512)
    assert get("web01/web01-flat.vmdk", Range="bytes=1000-1999") == (206, whole[1000:2000])
    assert get("web01/web01-flat.vmdk", Range=f"bytes={4 * MIB}-") == (206, whole[4 * MIB :])
    assert get("web01/web01-flat.vmdk", Range=f"bytes={5 * MIB}-")[0] == 416


def test_strangers_and_wanderers_get_nothing(get: Get, tmp_path: Path) -> None:
    assert get("web01/web01.vmdk", user="root:wrong")[0] == 401
    assert get("web01/none.vmdk")[0] == 404
    (tmp_path / "lab" / "secret").write_text("x")
    assert get("../../secret")[0] == 404
    assert get("%2e%2e/%2e%2e/secret")[0] == 404
