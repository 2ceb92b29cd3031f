"""The NFC reader against the lab's host: real VMDK chains, a running writer, both TLS layers."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snapferry.lab.host import HostService
from snapferry.lab.host.nfc import NfcServer
from snapferry.readers import DiskInUse, NfcReader
from snapferry.transfer import Extents
from snapferry.vsphere.models import NfcTicket

from ..odd import new_disk

MIB = 1 << 20
CAPACITY = 8 * MIB + 512


@pytest.fixture
def service(tmp_path: Path) -> Iterator[HostService]:
    host = HostService(tmp_path / "lab", seed=3, leaf_busy_seconds=0.2)
    disk = new_disk(CAPACITY, 3 * MIB, 9)
    host.create_vm("vm-1", "san1", "web01", "web01", [disk], {"rate_bytes": 2 * MIB, "hot_bytes": MIB}, 5)
    yield host
    host.stop()


@pytest.fixture
def open_disk(service: HostService, certificates: tuple[Any, Any]) -> Iterator[Callable[..., NfcReader]]:
    """Makes readers for files of the VM."""
    certificate = certificates[0]
    server = NfcServer(service, certificate.path, certificate.path, memory_bytes=20_000_000, fastlz=True)
    numbers = itertools.count()

    def ticket() -> NfcTicket:
        name = f"ticket-{next(numbers)}"
        service.open_ticket(name, "vm-1", 2000)
        return NfcTicket("127.0.0.1", server.port, certificate.thumbprint("sha1"), "vpxa-nfc", name)

    def make(path: str, tickets: Callable[[], NfcTicket] = ticket, **options: Any) -> NfcReader:
        chosen: dict[str, Any] = {"request_bytes": 512 << 10, "backoff_seconds": (0.1, 0.2, 0.4)} | options
        return NfcReader(tickets, path, CAPACITY, **chosen)

    yield make
    server.close()


def sha256(reader: NfcReader) -> str:
    disk = bytearray(CAPACITY)
    for block in reader.read(Extents.whole(CAPACITY), threading.Event()):
        assert block.data is not None
        disk[block.offset : block.offset + block.length] = block.data
    return hashlib.sha256(disk).hexdigest()


def frozen_disk(service: HostService, snapshot: str) -> str:
    return str(service.create_snapshot("vm-1", snapshot)["disks"][0]["frozen"])


def test_a_snapshots_disk_is_read_whole_while_the_vm_writes(
    service: HostService, open_disk: Callable[..., NfcReader]
) -> None:
    service.power_on("vm-1")
    first = frozen_disk(service, "snapshot-1")
    service.power_off("vm-1")
    service.power_on("vm-1")
    second = frozen_disk(service, "snapshot-2")
    for path, snapshot in ((first, "snapshot-1"), (second, "snapshot-2")):
        assert sha256(open_disk(path)) == service.digest("vm-1", 2000, snapshot)["sha256"]


def test_a_lab_host_that_cuts_and_has_no_memory_is_read_whole(
    service: HostService, open_disk: Callable[..., NfcReader]
) -> None:
    path = frozen_disk(service, "snapshot-1")
    service.set_fault("nfc_cut", {"after_bytes": MIB, "times": 4})
    service.set_fault("nfc_allocation", {"times": 2})
    assert sha256(open_disk(path)) == service.digest("vm-1", 2000, "snapshot-1")["sha256"]


def test_a_lab_host_that_compresses_is_read_whole_and_sends_less(
    service: HostService, open_disk: Callable[..., NfcReader]
) -> None:
    path = frozen_disk(service, "snapshot-1")
    assert sha256(open_disk(path, compress=True)) == service.digest("vm-1", 2000, "snapshot-1")["sha256"]
    (sent,) = service.counters()["nfc_bytes"].values()
    assert 3 * MIB < sent < 3.5 * MIB, "the disk's data is noise, and the rest zeros"


def test_the_leaf_of_a_running_vm_is_refused_and_that_of_a_stopped_one_opens(
    service: HostService, open_disk: Callable[..., NfcReader]
) -> None:
    frozen_disk(service, "snapshot-1")
    leaf = "[san1] web01/web01-000001.vmdk"
    service.power_on("vm-1")
    with pytest.raises(DiskInUse):
        sha256(open_disk(leaf))
    service.power_off("vm-1")
    assert sha256(open_disk(leaf)) == service.digest("vm-1", 2000, None)["sha256"]
