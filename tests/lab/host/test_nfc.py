"""The NFC server against the protocol's pages, by a client of the tests' own."""

import hashlib
import itertools
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapferry.lab.host import HostError, HostService

from ...odd import new_disk

MIB = 1 << 20
KIB = 1 << 10
NewVm = Callable[..., None]
Connect = Callable[..., Any]
BASE = "[san1] web01/web01.vmdk"


@pytest.fixture
def running(service: HostService, new_vm: NewVm) -> bytes:
    """A running VM with snapshot `one`, whose leaf is in use; the disk's bytes as of the snapshot."""
    new_vm(20 * MIB + 512, 4 * MIB, data_bytes=3 * MIB)
    service.power_on("vm-1")
    disk = service._vms["vm-1"].disks[2000]
    service.create_snapshot("vm-1", "zero")
    disk.write(5 * MIB + 512, memoryview(b"new!" * 50000)[: 100 * KIB])
    disk.unmap(0, 256 * KIB)
    service.create_snapshot("vm-1", "one")
    out = bytearray(disk.capacity_bytes)
    service._vms["vm-1"].snapshot_view(2000, "one").read(0, memoryview(out))
    return bytes(out)


def refusal(act: Callable[[], object]) -> Any:
    with pytest.raises(Exception) as refused:
        act()
    return refused.value


@pytest.mark.parametrize("proxy", ["vpxa-nfcssl", "ha-nfcssl", "vpxa-nfc"])
def test_a_frozen_disk_of_a_running_vm_reads_as_of_its_snapshot(connect: Connect, running: bytes, proxy: str) -> None:
    client = connect(proxy=proxy)
    client.open_session()
    handle, capacity = client.open_file("[san1] web01/web01-000001.vmdk")
    assert capacity == len(running)
    got = b"".join(client.read(handle, at, min(MIB, capacity - at)) for at in range(0, capacity, MIB))
    assert got == running
    assert client.ddb(handle, "adapterType") == "lsilogic"
    assert client.ddb(handle, "isDigest") == ""
    client.close(handle)


def test_the_thumbprint_is_the_certificates(connect: Connect, running: bytes, certificate: tuple[Path, Path]) -> None:
    der = ssl.PEM_cert_to_DER_cert(certificate[0].read_text())
    assert connect().thumbprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()


def test_fragments_come_out_of_order_and_mixed_between_requests(connect: Connect, running: bytes) -> None:
    client = connect()
    client.open_session()
    handle, _ = client.open_file(BASE)
    asked = {client.request(handle, at * MIB, MIB): at * MIB for at in range(4)}
    fragments = [client.fragment() for _ in range(4 * 16)]
    assert all(len(piece.data) == 64 * KIB for piece in fragments)
    operations = [piece.operation for piece in fragments]
    assert sum(one != other for one, other in itertools.pairwise(operations)) > 8
    order = [piece.offset for piece in fragments if piece.operation == operations[0]]
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert {(piece.operation, piece.offset) for piece in fragments} == {
        (operation, at) for operation in asked for at in range(0, MIB, 64 * KIB)
    }


def test_a_session_gets_the_buffers_it_asks_for_up_to_2_mib(connect: Connect, running: bytes) -> None:
    client = connect()
    client.open_session(2 * MIB, 1)
    handle, _ = client.open_file(BASE)
    client.request(handle, 0, 2 * MIB)
    assert len(client.fragment().data) == 2 * MIB
    assert refusal(lambda: connect().open_session(16 * MIB, 1)).code == 5


def test_the_hosts_buffer_memory_ends(connect: Connect, running: bytes) -> None:
    first, second, third = connect(), connect(), connect()
    first.open_session(2 * MIB, 4)
    second.open_session(2 * MIB, 4)
    error = refusal(lambda: third.open_session(2 * MIB, 4))
    assert error.code == 5
    assert "Failed to allocate the requested 8388608 bytes" in str(error)
    third.open_session(512 * KIB, 4)


def test_the_leaf_of_a_running_vm_is_refused_and_opens_when_it_is_off(
    connect: Connect, service: HostService, running: bytes
) -> None:
    leaf = "[san1] web01/web01-000002.vmdk"
    client = connect()
    client.open_session()
    error = refusal(lambda: client.open_file(leaf))
    assert error.code == 13
    assert "Failed to lock the file" in str(error)
    client.open_file("[san1] web01/web01-000001.vmdk")
    service.power_off("vm-1")
    handle, _ = client.open_file(leaf)
    assert len(client.read(handle, 0, 4096)) == 4096
    service.power_on("vm-1")
    assert refusal(lambda: client.read(handle, 0, 4096)).code == 7


def test_a_leaf_is_busy_for_a_moment_after_power_off(tmp_path: Path) -> None:
    host = HostService(tmp_path, seed=1, leaf_busy_seconds=0.2)
    host.create_vm("vm-1", "san1", "web01", "web01", [new_disk(MIB, MIB, 1)], {}, 1)
    host.power_on("vm-1")
    host.power_off("vm-1")
    assert "still busy" in str(refusal(lambda: host.open_disk("vm-1", None, BASE)))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            host.open_disk("vm-1", None, BASE).check()
        except HostError:
            threading.Event().wait(0.02)
        else:
            return
    pytest.fail("the leaf stayed busy")


def test_a_read_of_a_snapshot_that_is_gone_fails_instead_of_lying(
    connect: Connect, service: HostService, running: bytes
) -> None:
    client = connect()
    client.open_session()
    handle, _ = client.open_file("[san1] web01/web01-000001.vmdk")
    service.remove_snapshot("vm-1", "one")
    assert refusal(lambda: client.read(handle, 0, 4096)).code == 7


def test_a_ticket_is_good_for_one_connection_and_one_disk(
    connect: Connect, service: HostService, running: bytes
) -> None:
    service.open_ticket("once", "vm-1", 2001)
    client = connect(ticket="once")
    assert refusal(lambda: connect(ticket="once")).code == 530
    assert refusal(lambda: connect(ticket="never")).code == 530
    client.open_session()
    client.open_file("[san1] web01/web01_1.vmdk")
    assert refusal(lambda: client.open_file(BASE)).code == 13


def test_a_read_outside_the_disk_or_of_half_a_sector_is_refused(connect: Connect, running: bytes) -> None:
    client = connect()
    client.open_session()
    handle, capacity = client.open_file(BASE)
    for offset, length in ((capacity, 512), (capacity - 512, 1024), (100, 512), (0, 100), (0, 0)):
        client.request(handle, offset, length)
        assert refusal(client.fragment).code == 7
    assert client.read(handle, capacity - 512, 512) == running[-512:]


def test_bytes_served_are_counted_by_disk(connect: Connect, service: HostService, running: bytes) -> None:
    client = connect()
    client.open_session()
    handle, _ = client.open_file(BASE)
    client.read(handle, 0, MIB)
    client.read(handle, 0, 512)
    client.close(handle)
    assert service.counters()["nfc_bytes"] == {"vm-1/2000": MIB + 512}
    assert (service.counters()["connections"], service.counters()["requests"]) == (1, 2)


def test_faults_happen_as_often_as_they_are_asked_for(connect: Connect, service: HostService, running: bytes) -> None:
    service.set_fault("nfc_allocation", {"times": 1})
    client = connect()
    assert refusal(client.open_session).code == 5
    client.open_session()
    service.set_fault("nfc_cut", {"after_bytes": 128 * KIB, "times": 1})
    cut, whole = connect(), connect()
    for one in (cut, whole):
        one.open_session()
    handles = [one.open_file(BASE)[0] for one in (cut, whole)]
    assert isinstance(refusal(lambda: cut.read(handles[0], 0, MIB)), OSError)
    assert len(whole.read(handles[1], 0, MIB)) == MIB


def test_memory_of_a_closed_session_is_free_again(connect: Connect, running: bytes) -> None:
    for _ in range(4):
        client = connect()
        client.open_session(2 * MIB, 4)
        handle, _ = client.open_file(BASE)
        client.close(handle)
