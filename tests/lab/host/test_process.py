"""A host as a process of its own, controlled over its socket."""

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from snapferry.lab.host import HostClient, HostError
from snapferry.lab.host.process import HostOptions, run_host

from ...odd import new_disk

MIB = 1 << 20


@pytest.fixture
def process(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[tuple[BaseProcess, Connection]]:
    """Not forked, as the lab does it: here may be threads."""
    options = HostOptions(tmp_path, tmp_path / "run/esx1", *certificate, seed=1)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    host = spawn.Process(target=run_host, args=(theirs, options))
    host.start()
    theirs.close()
    with ours:
        yield host, ours
    host.kill()
    host.join()


def test_a_host_serves_its_parent_and_ends_with_it(process: tuple[BaseProcess, Connection], tmp_path: Path) -> None:
    host, connection = process
    assert connection.poll(20)
    ports = connection.recv()
    assert ports.nfc > 0
    assert ports.https > 0
    client = HostClient(tmp_path / "run/esx1", timeout_seconds=20)
    client.create_vm("vm-1", "san1", "web01", "web01", [new_disk(4 * MIB, MIB, 2)], {"rate_bytes": MIB}, 1)
    client.set_change_tracking("vm-1", enabled=True, immediate=True)
    client.power_on("vm-1")
    made = client.create_snapshot("vm-1", "one")["disks"][0]
    assert made["frozen"] == "[san1] web01/web01.vmdk"
    calls = [threading.Thread(target=client.digest, args=("vm-1", 2000, "one")) for _ in range(4)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(timeout=20)
    with pytest.raises(HostError) as refused:
        client.create_snapshot("vm-1", "one")
    assert refused.value.kind == "exists"
    with pytest.raises(HostError) as wrong:
        client.set_fault("no such", {})
    assert wrong.value.kind == "bad_request"
    assert {file["name"] for file in client.files("vm-1")} >= {"web01.vmx", "vmware.log", "web01-flat.vmdk"}
    assert (tmp_path / "run/esx1").stat().st_mode & 0o777 == 0o600
    connection.close()
    host.join(20)
    assert host.exitcode == 0
    with pytest.raises(HostError) as gone:
        client.counters()
    assert gone.value.kind == "unreachable"
    assert "last write of the guest" in (tmp_path / "datastores/san1/web01/vmware.log").read_text()
