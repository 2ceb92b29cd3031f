"""What a lease's download is: a streamOptimized VMDK that qemu-img reads."""

import http.client
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.lab.host import HostService
from snapferry.lab.host.folder import FolderServer

MIB = 1 << 20


@pytest.fixture
def download(folder_server: FolderServer, certificate: tuple[Path, Path]) -> Callable[..., tuple[int, bytes]]:
    """Status and body of a download."""

    def get(path: str) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        connection = http.client.HTTPSConnection("127.0.0.1", folder_server.port, context=context, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        try:
            return response.status, response.read()
        finally:
            connection.close()

    return get


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img isn't installed")
@pytest.mark.parametrize("capacity", [8 * MIB, 40 * MIB + 512])
def test_qemu_reads_a_download_as_the_disk(
    service: HostService, new_vm: Callable[..., None], download: Callable[..., tuple[int, bytes]], tmp_path: Path,
    capacity: int,
) -> None:  # fmt: skip
    new_vm(capacity, data_bytes=3 * MIB + 512, data_runs=5)
    service.create_snapshot("vm-1", "one")
    service.open_export("lease", "vm-1", "one", {"disk-0.vmdk": 2000})
    status, body = download("/nfc/lease/disk-0.vmdk")
    assert status == 200 and len(body) < 5 * MIB
    (tmp_path / "disk.vmdk").write_bytes(body)
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(capacity)
        view = service._vms["vm-1"].snapshot_view(2000, "one")
        for offset, data in view.blocks():
            file.seek(offset)
            file.write(data)
    command = ["qemu-img", "compare", "-f", "raw", "-F", "vmdk", str(raw), str(tmp_path / "disk.vmdk")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_lease_that_has_ended_gives_nothing(
    service: HostService, new_vm: Callable[..., None], download: Callable[..., tuple[int, bytes]]
) -> None:
    new_vm(MIB)
    service.open_export("lease", "vm-1", None, {"disk-0.vmdk": 2000})
    assert download("/nfc/lease/disk-1.vmdk")[0] == 403
    service.close_export("lease")
    assert download("/nfc/lease/disk-0.vmdk")[0] == 404
