"""Change queries: no changed block may be missing, whatever pages they come in."""

import hashlib
import random
from collections.abc import Callable

import pytest

from snapferry.lab.host import HostError, HostService
from snapferry.lab.host.chain import View

MIB = 1 << 20
KIB = 1 << 10
NewVm = Callable[..., None]


def query(service: HostService, snapshot: str | None, change_id: str, extents: int = 2000) -> list[tuple[int, int]]:
    """All areas, page by page as a client asks; checks what each page promises."""
    capacity = service._vms["vm-1"].disks[2000].capacity_bytes
    areas: list[tuple[int, int]] = []
    start = 0
    while start < capacity:
        page = service.changed_areas("vm-1", 2000, snapshot, change_id, start, extents)
        assert page["start"] == start
        assert page["length"] > 0
        assert len(page["areas"]) <= extents
        end = start + page["length"]
        assert all(start <= low and low + length <= end for low, length in page["areas"])
        areas += [(low, length) for low, length in page["areas"]]
        start = end
    assert start == capacity
    return areas


def covered(areas: list[tuple[int, int]]) -> set[int]:
    return {
        block for start, length in areas for block in range(start // (64 * KIB), -(-(start + length) // (64 * KIB)))
    }


def tracked(service: HostService, new_vm: NewVm, capacity: int, **options: int) -> None:
    new_vm(capacity, **options)
    service.set_change_tracking("vm-1", enabled=True, immediate=True)


def changed_blocks(before: View, after: View) -> set[int]:
    """The 64 KiB blocks that differ, found by comparing all bytes."""
    found = set()
    one, two = bytearray(64 * KIB), bytearray(64 * KIB)
    for block in range(-(-before.capacity_bytes // (64 * KIB))):
        size = min(64 * KIB, before.capacity_bytes - block * 64 * KIB)
        before.read(block * 64 * KIB, memoryview(one)[:size])
        after.read(block * 64 * KIB, memoryview(two)[:size])
        if one[:size] != two[:size]:
            found.add(block)
    return found


def test_a_query_names_every_block_that_differs_between_two_snapshots(service: HostService, new_vm: NewVm) -> None:
    tracked(service, new_vm, 30 * MIB + 512)
    vm = service._vms["vm-1"]
    disk, rng = vm.disks[2000], random.Random(4)
    ids = [service.create_snapshot("vm-1", "0")["disks"][0]["change_id"]]
    for name in ("1", "2"):
        for _ in range(40):
            offset = rng.randrange(disk.capacity_bytes // 512) * 512
            length = min(rng.choice([512, 4096, 70000 // 512 * 512]), disk.capacity_bytes - offset)
            match rng.randrange(3):
                case 0:
                    disk.zero(offset, length)
                case 1:
                    disk.unmap(offset, length)
                case _:
                    disk.write(offset, memoryview(rng.randbytes(length)))
        disk.write(disk.capacity_bytes - 512, memoryview(rng.randbytes(512)))
        ids.append(service.create_snapshot("vm-1", name)["disks"][0]["change_id"])
    for base, until in ((0, 1), (1, 2), (0, 2)):
        areas = query(service, str(until), str(ids[base]), extents=3)
        really = changed_blocks(vm.snapshot_view(2000, str(base)), vm.snapshot_view(2000, str(until)))
        assert really <= covered(areas)
        assert areas[-1][0] + areas[-1][1] == disk.capacity_bytes
    assert query(service, "1", str(ids[1])) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rounds_that_copy_only_what_queries_name_end_equal(service: HostService, new_vm: NewVm, seed: int) -> None:
    options = {"rate_bytes": 30 * MIB, "hot_bytes": 0, "zeros": 0.2, "unmaps": 0.2, "write_bytes": 24 * KIB}
    new_vm(48 * MIB + 512, data_bytes=9 * MIB, seed=seed, **options)
    service.set_change_tracking("vm-1", enabled=True, immediate=True)
    vm = service._vms["vm-1"]
    copy, base = bytearray(48 * MIB + 512), "*"
    service.power_on("vm-1")
    for number in range(4):
        name = str(number)
        made = service.create_snapshot("vm-1", name)["disks"][0]
        view = vm.snapshot_view(2000, name)
        for start, length in query(service, name, base, extents=20):
            view.read(start, memoryview(copy)[start : start + length])
        assert service.digest("vm-1", 2000, name)["sha256"] == hashlib.sha256(copy).hexdigest()
        base = str(made["change_id"])
        service.remove_snapshot("vm-1", name)
    service.power_off("vm-1")
    for start, length in query(service, None, base):
        vm.leaf_view(2000).read(start, memoryview(copy)[start : start + length])
    assert service.digest("vm-1", 2000, None)["sha256"] == hashlib.sha256(copy).hexdigest()


def test_pages_are_empty_now_and_then_before_the_last(service: HostService, new_vm: NewVm) -> None:
    tracked(service, new_vm, 64 * MIB, data_bytes=0)
    disk = service._vms["vm-1"].disks[2000]
    base = service.create_snapshot("vm-1", "0")["disks"][0]["change_id"]
    for block in range(0, 64 * MIB, 128 * KIB):
        disk.write(block, memoryview(b"x" * 512))
    service.create_snapshot("vm-1", "1")
    empty, start, areas = 0, 0, 0
    while start < 64 * MIB:
        page = service.changed_areas("vm-1", 2000, "1", str(base), start, 10)
        start += page["length"]
        areas += len(page["areas"])
        empty += not page["areas"] and start < 64 * MIB
    assert areas == 512
    assert empty > 3


def test_unmaps_inflate_the_answer(service: HostService, new_vm: NewVm) -> None:
    tracked(service, new_vm, 8 * MIB)
    base = service.create_snapshot("vm-1", "0")["disks"][0]["change_id"]
    service._vms["vm-1"].disks[2000].unmap(4 * MIB, 64 * KIB)
    service.create_snapshot("vm-1", "1")
    assert query(service, "1", str(base)) == [(4 * MIB - 64 * KIB, 192 * KIB)]


def test_a_consolidation_is_no_change_of_the_guest(service: HostService, new_vm: NewVm) -> None:
    tracked(service, new_vm, 8 * MIB)
    service.create_snapshot("vm-1", "0")
    service._vms["vm-1"].disks[2000].write(0, memoryview(b"x" * 4096))
    base = service.create_snapshot("vm-1", "1")["disks"][0]["change_id"]
    service.remove_snapshot("vm-1", "0")
    service.remove_snapshot("vm-1", "1")
    service.create_snapshot("vm-1", "2")
    assert query(service, "2", str(base)) == []


def test_an_id_outlives_its_snapshot(service: HostService, new_vm: NewVm) -> None:
    tracked(service, new_vm, 8 * MIB)
    base = service.create_snapshot("vm-1", "0")["disks"][0]["change_id"]
    service.remove_snapshot("vm-1", "0")
    service._vms["vm-1"].disks[2000].write(MIB, memoryview(b"x" * 4096))
    assert query(service, None, str(base)) == [(MIB, 64 * KIB)]
    service.create_snapshot("vm-1", "1")
    assert query(service, "1", str(base)) == [(MIB, 64 * KIB)]


def test_the_star_names_everything_that_isnt_zero(service: HostService, new_vm: NewVm) -> None:
    tracked(service, new_vm, 30 * MIB + 512, data_bytes=3 * MIB, data_runs=6)
    disk = service._vms["vm-1"].disks[2000]
    service.create_snapshot("vm-1", "0")
    first = covered(query(service, "0", "*"))
    fresh = next(block for block in range(480) if block not in first)
    disk.write(fresh * 64 * KIB, memoryview(b"x" * 4096))
    service.create_snapshot("vm-1", "1")
    areas = query(service, "1", "*", extents=4)
    allocated = covered(areas)
    view = service._vms["vm-1"].snapshot_view(2000, "1")
    for offset, data in view.blocks(64 * KIB):
        assert not any(data) or offset // (64 * KIB) in allocated
    assert sum(length for _, length in areas) < 6 * MIB
    assert allocated == first | {fresh}
    assert covered(query(service, "0", "*")) == first


@pytest.mark.parametrize(
    ("change_id", "kind"),
    [("{uuid}/99", "file_fault"), ("00 00/1", "file_fault"), ("nonsense", "file_fault"), ("{uuid}/3", "file_fault")],
)
def test_an_id_that_cant_be_is_refused(service: HostService, new_vm: NewVm, change_id: str, kind: str) -> None:
    tracked(service, new_vm, 8 * MIB)
    uuid = str(service.create_snapshot("vm-1", "0")["disks"][0]["change_id"]).split("/")[0]
    service.create_snapshot("vm-1", "1")
    with pytest.raises(HostError) as refused:
        service.changed_areas("vm-1", 2000, "0", change_id.format(uuid=uuid), 0, 10)
    assert refused.value.kind == kind


def test_queries_outside_the_disk_or_without_tracking_are_refused(service: HostService, new_vm: NewVm) -> None:
    new_vm(8 * MIB)
    service.create_snapshot("vm-1", "0")
    for key, start, kind in (
        (2000, 8 * MIB, "invalid_start"),
        (2009, 0, "invalid_device_key"),
        (2000, 0, "file_fault"),
    ):
        with pytest.raises(HostError) as refused:
            service.changed_areas("vm-1", key, "0", "*", start, 10)
        assert refused.value.kind == kind


def test_tracking_of_a_running_vm_begins_with_the_next_stun_and_a_new_uuid(service: HostService, new_vm: NewVm) -> None:
    new_vm(8 * MIB)
    service.power_on("vm-1")
    service.set_change_tracking("vm-1", enabled=True, immediate=False)
    before = service.change_tracking("vm-1")
    assert (before["enabled"], before["pending"], before["disks"][0]["change_id"]) == (False, True, None)
    first = service.create_snapshot("vm-1", "0")["disks"][0]["change_id"]
    assert first is not None
    assert first.startswith("52 ")
    service.remove_snapshot("vm-1", "0")
    assert service.change_tracking("vm-1")["disks"][0]["change_id"] == first
    second = service.create_snapshot("vm-1", "1")["disks"][0]["change_id"]
    assert second is not None
    assert (second.split("/")[0], int(second.split("/")[1])) == (first.split("/")[0], int(first.split("/")[1]) + 1)
    service.power_off("vm-1")
    service.set_change_tracking("vm-1", enabled=False, immediate=True)
    service.set_change_tracking("vm-1", enabled=True, immediate=True)
    assert str(service.change_tracking("vm-1")["disks"][0]["change_id"]).split("/")[0] != first.split("/")[0]


def test_tracking_that_began_beside_a_snapshot_cant_tell_what_is_allocated(service: HostService, new_vm: NewVm) -> None:
    new_vm(8 * MIB)
    service.create_snapshot("vm-1", "0")
    service.set_change_tracking("vm-1", enabled=True, immediate=True)
    service.create_snapshot("vm-1", "1")
    with pytest.raises(HostError) as refused:
        service.changed_areas("vm-1", 2000, "1", "*", 0, 10)
    assert refused.value.kind == "file_fault"
