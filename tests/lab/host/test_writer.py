"""The guest's workload: seeded, steady, and on the record at power-off."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from snapferry.lab.config import Workload
from snapferry.lab.host import HostService
from snapferry.lab.host.writer import Contents, Kind, Write, rate_at, writes

MIB = 1 << 20
BUSY = Workload(rate_bytes=10 * MIB, hot_bytes=2 * MIB, zeros=0.1, unmaps=0.1)


def first(number: int, workload: Workload = BUSY, seed: int = 1, *capacities: int) -> list[Write]:
    return list(itertools.islice(writes(workload, capacities or (64 * MIB, 32 * MIB + 512), seed, 1), number))


def test_the_same_seed_writes_the_same_bytes_in_the_same_order() -> None:
    assert first(500) == first(500)
    assert first(500) != first(500, BUSY, 2)
    one, other = Contents(1), Contents(1)
    assert all(one.of(write) == other.of(write) for write in first(50))


def test_every_write_is_another_one() -> None:
    contents = Contents(1)
    blocks = [bytes(contents.of(write)[at : at + 4096]) for write in first(300) for at in range(0, write.length, 4096)]
    assert len(set(blocks)) == len(blocks)


def test_a_workload_has_its_hot_set_its_log_its_zeros_and_its_unmaps() -> None:
    many = first(4000, BUSY, 1, 256 * MIB + 512)
    kinds = [write.kind for write in many]
    assert 0.07 < kinds.count(Kind.ZEROS) / 4000 < 0.13
    assert 0.07 < kinds.count(Kind.UNMAP) / 4000 < 0.13
    ends = {write.offset + write.length for write in many}
    assert max(ends) == 256 * MIB + 512
    starts = {write.offset for write in many}
    followers = sum(write.offset + write.length in starts for write in many)
    assert followers > 1000
    blocks = [write.offset // (64 << 10) for write in many]
    assert len(set(blocks)) < 2000


def test_late_disks_change_late_and_the_rate_falls_in_a_straight_line() -> None:
    workload = Workload(rate_bytes=2 * MIB, start_rate_bytes=10 * MIB, settle_seconds=4, late_disks_after_seconds=3)
    many = first(1000, workload)
    assert all(write.disk == 0 for write in many if write.due_seconds < 3)
    assert {write.disk for write in many if write.due_seconds > 3} == {0, 1}
    assert rate_at(workload, 2) == 6 * MIB
    written = sum(write.length for write in many if write.due_seconds < 4)
    assert 22 * MIB < written < 26 * MIB


def test_a_quiet_guest_writes_nothing() -> None:
    assert first(5, Workload()) == []
    dying = first(10000, Workload(rate_bytes=0, start_rate_bytes=MIB, settle_seconds=2))
    assert 0 < sum(write.length for write in dying) <= 1.2 * MIB


def test_the_last_write_is_on_the_record_and_the_next_guest_goes_on_from_there(
    service: HostService, new_vm: Callable[..., None]
) -> None:
    new_vm(32 * MIB, rate_bytes=8 * MIB)
    last = 0
    for _ in range(2):
        service.power_on("vm-1")
        writer = service._vms["vm-1"]._writer
        assert writer is not None
        deadline = time.monotonic() + 10
        while writer.last_sequence < last + 20:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        sequence = service.power_off("vm-1")["sequence"]
        assert sequence >= last + 20
        last = sequence
        assert f"last write of the guest: {last}" in (service._vms["vm-1"].folder / "vmware.log").read_text()


@pytest.mark.slow
def test_the_guest_keeps_its_rate_and_leaves_the_processor_to_others(
    service: HostService, new_vm: Callable[..., None]
) -> None:
    new_vm(256 * MIB, 128 * MIB, rate_bytes=30 * MIB, hot_bytes=16 * MIB)
    service.power_on("vm-1")
    service.create_snapshot("vm-1", "one")
    writer = service._vms["vm-1"]._writer
    assert writer is not None
    begin, cpu, number = time.monotonic(), time.process_time(), writer.last_sequence
    threading.Event().wait(3)
    seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
    assert (writer.last_sequence - number) * 65536 / seconds > 20 * MIB
    assert cpu / seconds < 0.4
