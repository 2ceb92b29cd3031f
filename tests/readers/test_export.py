"""The export reader against the lab's host: a running writer, cuts, hostile streams."""

import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snapferry.errors import Stopped
from snapferry.lab.digest import extents_digest
from snapferry.lab.host import HostService
from snapferry.lab.host import export as lab_export
from snapferry.lab.host.folder import FolderServer
from snapferry.readers import ExportCut, ExportMismatch, ExportReader, ExportRefused, ThumbprintMismatch
from snapferry.seams import Block
from snapferry.transfer import Extents
from snapferry.vmdk import VmdkCorrupt
from snapferry.vsphere.models import ExportSource

from ..odd import new_disk

MIB = 1 << 20
CAPACITY = 40 * MIB + 512
"""More than one grain table names; the last grain is a sector."""

Open = Callable[..., ExportReader]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[HostService]:
    host = HostService(tmp_path / "lab", seed=3, leaf_busy_seconds=0)
    yield host
    host.stop()


@pytest.fixture
def new_vm(service: HostService) -> Callable[..., None]:
    def make(capacity: int = CAPACITY, data_bytes: int = 6 * MIB, data_runs: int = 9) -> None:
        disk, workload = new_disk(capacity, data_bytes, data_runs), {"rate_bytes": 4 * MIB, "hot_bytes": MIB}
        service.create_vm("vm-1", "san1", "web01", "web01", [disk], workload, 5)
        service.create_snapshot("vm-1", "one")
        service.open_export("lease", "vm-1", "one", {"disk-0.vmdk": 2000})

    return make


@pytest.fixture
def open_disk(service: HostService, certificates: tuple[Any, Any]) -> Iterator[Open]:
    """Makes readers of the lease's disk."""
    certificate = certificates[0]
    server = FolderServer(service, certificate.path, certificate.path)

    def make(capacity: int = CAPACITY, confirm: Callable[[], None] = lambda: None, **options: Any) -> ExportReader:
        thumbprint = options.pop("thumbprint", certificate.thumbprint("sha1"))
        source = ExportSource(
            2000, capacity, "127.0.0.1", server.port, "/nfc/lease/disk-0.vmdk", thumbprint, options.pop("ca_pem", None)
        )
        return ExportReader(source, confirm, **{"backoff_seconds": (0.05, 0.05)} | options)

    yield make
    server.close()


def taken(reader: ExportReader, extents: Extents, disk: bytearray | None = None) -> bytearray:
    """The disk with the blocks of `extents`, and 0xAA elsewhere; each byte came once, in order, none unasked."""
    disk = bytearray(b"\xaa") * reader.capacity_bytes if disk is None else disk
    end, got = 0, []
    for block in reader.read(extents, threading.Event()):
        assert block.offset >= end and block.length > 0
        end = block.offset + block.length
        disk[block.offset : end] = bytes(block.length) if block.data is None else block.data
        got.append((block.offset, block.length))
    assert Extents.from_pairs(got) == extents
    return disk


def test_a_snapshots_disk_is_read_whole_while_the_vm_writes(
    service: HostService, new_vm: Callable[..., None], open_disk: Open
) -> None:
    new_vm()
    service.power_on("vm-1")
    disk = taken(open_disk(), Extents.whole(CAPACITY))
    assert service.last_write("vm-1") > 0
    assert hashlib.sha256(disk).hexdigest() == service.digest("vm-1", 2000, "one")["sha256"]


def test_a_part_of_the_disk_is_cut_out_of_the_stream(seed: int, new_vm: Callable[..., None], open_disk: Open) -> None:
    new_vm()
    whole = taken(open_disk(), Extents.whole(CAPACITY))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, CAPACITY // 512, 200) * 512
    drawn = Extents.of(starts, np.minimum(rng.integers(1, 300, 200) * 512, CAPACITY - starts))
    for extents in (drawn, Extents.from_pairs([(512, 512), (CAPACITY - 512, 512)]), Extents.empty()):
        part = taken(open_disk(), extents)
        expected = bytearray(b"\xaa") * CAPACITY
        for start, length in extents:
            expected[start : start + length] = whole[start : start + length]
        assert part == expected


def test_a_huge_sparse_disk_costs_what_its_data_does(
    service: HostService, new_vm: Callable[..., None], open_disk: Open
) -> None:
    capacity = 3 << 40
    new_vm(capacity, 2 * MIB, 4)
    begun = time.process_time()
    blocks = 0

    def data() -> Iterator[tuple[int, memoryview]]:
        nonlocal blocks
        covered = 0
        for block in open_disk(capacity).read(Extents.whole(capacity), threading.Event()):
            blocks += 1
            assert block.offset == covered
            covered += block.length
            if block.data is not None:
                yield block.offset, block.data
        assert covered == capacity

    assert extents_digest(data(), capacity) == service.extents_digest("vm-1", 2000, "one")["sha256"]
    assert blocks < 30
    assert time.process_time() - begun < 5


def test_a_cut_download_is_begun_again_and_nothing_comes_twice(
    service: HostService, new_vm: Callable[..., None], open_disk: Open
) -> None:
    new_vm()
    service.set_fault("export_cut", {"after_bytes": 3 * MIB, "times": 2})
    confirmed: list[bool] = []
    disk = taken(open_disk(confirm=lambda: confirmed.append(True)), Extents.whole(CAPACITY))
    assert len(confirmed) == 2
    assert hashlib.sha256(disk).hexdigest() == service.digest("vm-1", 2000, "one")["sha256"]


@pytest.mark.parametrize(
    ("fault", "arguments", "named"),
    [
        ("export_cut", {"after_bytes": MIB, "times": 9}, ExportCut),
        ("export_denied", {"times": 9}, ExportRefused),
        ("export_stall", {"after_bytes": MIB, "seconds": 2, "times": 9}, ExportCut),
        ("export_corrupt", {}, VmdkCorrupt),
    ],
)
def test_a_stream_that_stays_bad_has_a_name_and_a_next_step(
    service: HostService,
    new_vm: Callable[..., None],
    open_disk: Open,
    fault: str,
    arguments: dict[str, Any],
    named: type[Exception],
) -> None:
    new_vm()
    service.set_fault(fault, arguments)
    with pytest.raises(named) as raised:
        taken(open_disk(silence_seconds=0.3), Extents.whole(CAPACITY))
    assert "route" in str(raised.value)
    assert "/nfc/" not in str(raised.value)


def _grain_again(pieces: list[bytes]) -> list[bytes]:
    return [*pieces[:2], pieces[1], *pieces[2:]]


def _order(pieces: list[bytes]) -> list[bytes]:
    return [pieces[0], pieces[2], pieces[1], *pieces[3:]]


def _endless(pieces: list[bytes]) -> list[bytes]:
    return [pieces[0], *[struct.pack("<QII", 4, 0, 1).ljust(512 * 5, b"\0")] * 1000]


def _no_end(pieces: list[bytes]) -> list[bytes]:
    return [*pieces[:-1], pieces[-1][:-512]]


def _grain_lost(pieces: list[bytes]) -> list[bytes]:
    return [*pieces[:3], *pieces[4:]]


def _no_vmdk(_pieces: list[bytes]) -> list[bytes]:
    return [b"<html>" * 1000]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_grain_again, VmdkCorrupt),
        (_order, ExportMismatch),
        (_endless, VmdkCorrupt),
        (_no_end, ExportCut),
        (_grain_lost, ExportCut),
        (_no_vmdk, VmdkCorrupt),
    ],
)
def test_a_hostile_stream_is_refused(
    new_vm: Callable[..., None],
    open_disk: Open,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[list[bytes]], list[bytes]],
    named: type[Exception],
) -> None:
    new_vm()
    real = lab_export.stream
    monkeypatch.setattr(lab_export, "stream", lambda view, _spoil: iter(spoil(list(real(view)))))
    with pytest.raises(named):
        taken(open_disk(), Extents.whole(CAPACITY))


def test_another_disks_stream_isnt_used(new_vm: Callable[..., None], open_disk: Open) -> None:
    new_vm()
    with pytest.raises(ExportMismatch, match="not of"):
        taken(open_disk(CAPACITY + 512), Extents.whole(CAPACITY))


def test_a_host_that_vcenter_didnt_name_is_asked_for_nothing(new_vm: Callable[..., None], open_disk: Open) -> None:
    new_vm()
    with pytest.raises(ThumbprintMismatch):
        taken(open_disk(thumbprint="AA:" * 19 + "AA"), Extents.whole(CAPACITY))
    with pytest.raises(ExportRefused, match="isn't trusted"):
        taken(open_disk(thumbprint="", backoff_seconds=()), Extents.whole(CAPACITY))


def test_told_to_stop_it_stops_within_a_second(
    service: HostService, new_vm: Callable[..., None], open_disk: Open
) -> None:
    new_vm()
    service.set_fault("export_stall", {"after_bytes": MIB, "seconds": 3})
    stop = threading.Event()
    blocks: list[Block] = []
    begun = 0.0
    with pytest.raises(Stopped):
        for block in open_disk().read(Extents.whole(CAPACITY), stop):
            blocks.append(block)
            if not begun:
                begun = time.monotonic()
                stop.set()
    assert blocks and time.monotonic() - begun < 1
    assert not [one for one in threading.enumerate() if one.name == "export"]
