"""Disks as files: what qemu-img, the guest and a digest see must be the same."""

import hashlib
import json
import random
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from snapferry.lab import digest
from snapferry.lab.host import HostError, HostService
from snapferry.lab.host.chain import View
from snapferry.lab.host.disk import Disk
from snapferry.lab.host.vm import Vm
from snapferry.lab.kinds import KINDS, KindName
from snapferry.transfer import Extents
from snapferry.vmdk import Descriptor, LocalFolder, VmdkInUse, open_chain
from snapferry.vmdk.cowd import TABLE_COVERS

from ...odd import new_disk

MIB = 1 << 20
FILE_KINDS = [name for name, kind in KINDS.items() if kind.has_files]


@pytest.fixture(params=KINDS)
def store_kind(request: pytest.FixtureRequest) -> KindName:
    return cast(KindName, request.param)


class Guest:
    """Writes to a disk, and keeps what it must read as in plain bytes."""

    def __init__(self, disk: Disk, vm: Vm, seed: int) -> None:
        self.disk, self.vm, self.rng = disk, vm, random.Random(seed)
        self.bytes = bytearray(disk.capacity_bytes)
        whole = disk.view(disk.leaf)
        whole.read(0, memoryview(self.bytes))

    def work(self, times: int) -> None:
        for _ in range(times):
            length = self.rng.choice([512, 4096, 8192, 65536, 300 * 1024])
            offset = self.rng.randrange(self.disk.capacity_bytes // 512) * 512
            length = min(length, self.disk.capacity_bytes - offset)
            end = offset + length
            with self.vm.io:
                match self.rng.randrange(4):
                    case 0:
                        self.disk.zero(offset, length)
                        self.bytes[offset:end] = bytes(length)
                    case 1:
                        self.disk.unmap(offset, length)
                        self.bytes[offset:end] = bytes(length)
                    case _:
                        data = self.rng.randbytes(length)
                        self.disk.write(offset, memoryview(data))
                        self.bytes[offset:end] = data


@pytest.fixture
def guest(service: HostService, new_vm: Callable[..., None]) -> Guest:
    """A guest on a disk whose end is aligned to nothing but sectors, and that has more than one grain table."""
    new_vm(18 * MIB + 512)
    vm = service._vms["vm-1"]
    service.power_on("vm-1")
    return Guest(vm.disks[2000], vm, seed=3)


def contents(view: View) -> bytes:
    out = bytearray(view.capacity_bytes)
    view.read(0, memoryview(out))
    return bytes(out)


@pytest.mark.slow
def test_every_frozen_file_reads_as_the_guest_left_it_by_qemu_too(
    service: HostService, guest: Guest, qemu_agrees: Callable[[View], None]
) -> None:
    expected = {}
    for name in ("one", "two", "three"):
        guest.work(60)
        service.create_snapshot("vm-1", name)
        expected[name] = bytes(guest.bytes)
    guest.work(60)
    for name, was in expected.items():
        view = guest.vm.snapshot_view(2000, name)
        assert contents(view) == was
        qemu_agrees(view)
    service.power_off("vm-1")
    view = guest.vm.leaf_view(2000)
    assert contents(view) == guest.bytes
    qemu_agrees(view)


@pytest.mark.parametrize("order", [("one", "two", "three"), ("three", "two", "one"), ("two", "one", "three")])
def test_removing_snapshots_in_any_order_loses_nothing(
    service: HostService, guest: Guest, qemu_agrees: Callable[[View], None], order: tuple[str, ...]
) -> None:
    expected = {}
    for name in ("one", "two", "three"):
        service.create_snapshot("vm-1", name)
        expected[name] = bytes(guest.bytes)
        guest.work(40)
    for name in order:
        service.remove_snapshot("vm-1", name)
        del expected[name]
        guest.work(20)
        for kept, was in expected.items():
            view = guest.vm.snapshot_view(2000, kept)
            assert contents(view) == was
            qemu_agrees(view)
    service.power_off("vm-1")
    assert contents(guest.vm.leaf_view(2000)) == guest.bytes
    qemu_agrees(guest.vm.leaf_view(2000))
    assert {path.name for path in guest.vm.folder.glob("*.vmdk")} - {"web01-flat.vmdk"} == {"web01.vmdk"}
    assert len(list((service._objects / "san1").iterdir())) == (0 if guest.disk.kind.has_files else 1)


def test_a_guest_that_writes_during_a_consolidation_finds_its_writes(
    service: HostService, guest: Guest, qemu_agrees: Callable[[View], None]
) -> None:
    service.create_snapshot("vm-1", "below")
    below = bytes(guest.bytes)
    guest.work(150)
    service.create_snapshot("vm-1", "one")
    guest.work(150)
    removal = threading.Thread(target=service.remove_snapshot, args=("vm-1", "one"))
    removal.start()
    while removal.is_alive():
        guest.work(5)
    removal.join(timeout=10)
    guest.work(5)
    service.power_off("vm-1")
    assert contents(guest.vm.leaf_view(2000)) == guest.bytes
    qemu_agrees(guest.vm.leaf_view(2000))
    assert contents(guest.vm.snapshot_view(2000, "below")) == below


def test_a_reader_of_a_snapshot_keeps_its_view_while_other_snapshots_go(service: HostService, guest: Guest) -> None:
    service.create_snapshot("vm-1", "one")
    guest.work(40)
    service.create_snapshot("vm-1", "two")
    expected = bytes(guest.bytes)
    view = guest.vm.snapshot_view(2000, "two")
    guest.work(40)
    service.remove_snapshot("vm-1", "one")
    guest.work(40)
    view.check()
    assert contents(view) == expected
    service.remove_snapshot("vm-1", "two")
    with pytest.raises(HostError, match="may have changed"):
        view.check()


def test_a_new_delta_has_its_parents_cid_until_it_was_written_and_closed(service: HostService, guest: Guest) -> None:
    service.create_snapshot("vm-1", "one")

    def descriptor(name: str) -> Descriptor:
        return Descriptor.parse((guest.vm.folder / name).read_text())

    base, leaf = descriptor("web01.vmdk"), descriptor("web01-000001.vmdk")
    assert leaf.cid == leaf.parent_cid == base.cid
    assert leaf.parent_file_name_hint == "web01.vmdk"
    guest.work(5)
    assert descriptor("web01-000001.vmdk").cid == base.cid
    service.create_snapshot("vm-1", "two")
    assert descriptor("web01-000001.vmdk").cid not in (base.cid, 0)
    assert descriptor("web01-000002.vmdk").parent_cid == descriptor("web01-000001.vmdk").cid


@pytest.mark.parametrize("store_kind", FILE_KINDS)
def test_the_tables_of_a_leaf_in_use_say_that_they_cant_be_trusted(service: HostService, guest: Guest) -> None:
    service.create_snapshot("vm-1", "one")
    guest.work(20)

    def open_leaf() -> int:
        with closing(open_chain(LocalFolder(guest.vm.folder), "web01-000001.vmdk")) as chain:
            return chain.capacity_bytes

    for _ in range(2):
        with pytest.raises(VmdkInUse):
            open_leaf()
        service.power_off("vm-1")
        assert open_leaf() == guest.disk.capacity_bytes
        service.power_on("vm-1")


@pytest.mark.parametrize("store_kind", ["vmfs6"])
def test_qemu_refuses_a_leaf_of_sesparse_in_use(service: HostService, guest: Guest) -> None:
    service.create_snapshot("vm-1", "one")
    leaf = guest.vm.folder / "web01-000001.vmdk"
    refused = subprocess.run(["qemu-img", "info", leaf], capture_output=True, text=True, timeout=20)
    assert refused.returncode != 0


@pytest.mark.parametrize("store_kind", ["vmfs6"])
def test_tables_and_grains_lie_in_allocation_order(service: HostService, new_vm: Callable[..., None]) -> None:
    new_vm(64 * MIB, data_bytes=0)
    service.create_snapshot("vm-1", "one")
    disk = service._vms["vm-1"].disks[2000]
    for offset in (48 * MIB, 0, 20 * MIB):
        disk.write(offset, memoryview(bytes([offset >> 20]) * 4096))
    disk.close_leaf()
    raw = disk.leaf.extent.path.read_bytes()
    directory = [int.from_bytes(raw[(4096 * 512) + 8 * slot :][:8], "little") for slot in range(4)]
    assert [entry & 0xFFFFFFFF for entry in directory] == [1, 2, 0, 0]
    assert [entry >> 32 for entry in directory] == [0x10000000, 0x10000000, 0, 0x10000000]
    grains = raw[-3 * 4096 :]
    assert [grains[at] for at in (0, 4096, 8192)] == [48, 0, 20]


@pytest.mark.parametrize("store_kind", ["vmfs5", "nfs"])
def test_a_cowd_delta_is_laid_out_as_hosts_do_it(service: HostService, new_vm: Callable[..., None]) -> None:
    new_vm(64 * MIB + 512, data_bytes=0)
    service.create_snapshot("vm-1", "one")
    disk = service._vms["vm-1"].disks[2000]
    for offset in (48 * MIB, 512, 64 * MIB):
        disk.write(offset, memoryview(bytes([1 + (offset >> 20)]) * 512))
    disk.close_leaf()
    assert disk.leaf.extent.path.name == "web01-000001-delta.vmdk"
    raw = disk.leaf.extent.path.read_bytes()
    assert raw[:4] == b"COWD"
    words = [int.from_bytes(raw[at : at + 4], "little") for at in range(4, 32, 4)]
    assert words == [1, 3, (64 * MIB + 512) // 512, 1, 4, 33, len(raw) // 512]
    directory = [int.from_bytes(raw[2048 + 4 * slot :][:4], "little") for slot in range(33)]
    assert [slot for slot, sector in enumerate(directory) if sector] == [0, 24, 32]
    assert directory[24] < directory[0] < directory[32]
    for offset in (48 * MIB, 512, 64 * MIB):
        slot, entry = offset // TABLE_COVERS, offset % TABLE_COVERS // 512
        sector = int.from_bytes(raw[directory[slot] * 512 + 4 * entry :][:4], "little")
        assert raw[sector * 512 : (sector + 1) * 512] == bytes([1 + (offset >> 20)]) * 512


@pytest.mark.parametrize("store_kind", FILE_KINDS)
def test_a_disk_of_2_tib_has_sesparse_deltas(service: HostService, new_vm: Callable[..., None]) -> None:
    new_vm(2 << 40, data_bytes=MIB, data_runs=2)
    service.create_snapshot("vm-1", "one")
    vm = service._vms["vm-1"]
    disk = vm.disks[2000]
    disk.write((2 << 40) - 4096, memoryview(b"end!" * 1024))
    disk.close_leaf()
    assert disk.leaf.extent.path.name == "web01-000001-sesparse.vmdk"
    with closing(open_chain(LocalFolder(vm.folder), "web01-000001.vmdk")) as chain:
        (plan,) = chain.plans(Extents.of([(2 << 40) - 4096], [4096]))
        assert bytes(chain.files[plan.files[0]].read(int(plan.positions[0]), 4096)) == b"end!" * 1024


@pytest.mark.parametrize("store_kind", ["vsan"])
def test_a_disk_on_vsan_has_descriptors_and_no_other_files(service: HostService, guest: Guest) -> None:
    service.create_snapshot("vm-1", "one")
    names = {path.name for path in guest.vm.folder.iterdir()}
    assert names == {"web01.vmdk", "web01-000001.vmdk", "web01.vmx", "vmware.log"}
    base, leaf = (
        Descriptor.parse((guest.vm.folder / name).read_text()) for name in ("web01.vmdk", "web01-000001.vmdk")
    )
    assert (base.create_type, leaf.create_type) == ("vmfs", "vsanSparse")
    assert [line.kind for line in (*base.extents, *leaf.extents)] == ["VMFS", "VSANSPARSE"]
    assert all((line.file or "").startswith("vsan://") for line in (*base.extents, *leaf.extents))
    assert service.used_bytes("san1") > 4 * MIB


def test_no_file_can_be_read_by_others(service: HostService, guest: Guest) -> None:
    service.set_change_tracking("vm-1", enabled=True, immediate=False)
    service.create_snapshot("vm-1", "one")
    guest.work(5)
    files = [*guest.vm.folder.iterdir(), *(service._objects / "san1").iterdir()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert len(modes) >= 8
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("store_kind", ["vmfs6"])
def test_the_same_seed_fills_a_disk_with_the_same_bytes_and_ends_it_with_data(
    tmp_path: Path, new_vm: Callable[..., None], service: HostService
) -> None:
    def host(name: str, seed: int) -> bytes:
        other = HostService(tmp_path / name, seed=1)
        disk = new_disk(30 * MIB + 512, 9 * MIB, 5)
        made = other.create_vm("vm-1", "san1", "web01", "web01", [disk], {}, seed)
        assert abs(made["disks"][0]["allocated_bytes"] - 9 * MIB) < MIB
        return (tmp_path / name / "datastores/san1/web01/web01-flat.vmdk").read_bytes()

    one, again, other = host("x", 5), host("y", 5), host("z", 6)
    assert one == again != other
    assert any(one[:4096])
    assert any(one[-512:])
    assert one.count(bytes(1 * MIB)) > 3


def test_a_3_tib_disk_costs_little(service: HostService, new_vm: Callable[..., None]) -> None:
    new_vm(3 << 40, data_bytes=2 * MIB, data_runs=8)
    disk = service._vms["vm-1"].disks[2000]
    service.create_snapshot("vm-1", "one")
    disk.write((3 << 40) - 4096, memoryview(b"end!" * 1024))
    disk.write(1 << 40, memoryview(b"deep" * 1024))
    service.create_snapshot("vm-1", "two")
    assert service.used_bytes("san1") < 8 * MIB
    runs = disk.view(disk.layers[1]).data_runs()
    assert 1 << 40 in runs[:, 0]
    answer = service.extents_digest("vm-1", 2000, "two")
    assert answer != service.extents_digest("vm-1", 2000, "one")
    page = bytearray(4096)
    disk.view(disk.layers[1]).read((3 << 40) - 4096, memoryview(page))
    assert page == b"end!" * 1024


def test_digests_are_those_of_the_raw_disk(service: HostService, guest: Guest, tmp_path: Path) -> None:
    service.create_snapshot("vm-1", "below")
    guest.work(40)
    service.create_snapshot("vm-1", "one")
    raw = tmp_path / "disk.raw"
    raw.write_bytes(guest.bytes)
    assert service.digest("vm-1", 2000, "one")["sha256"] == hashlib.sha256(guest.bytes).hexdigest()
    assert service.extents_digest("vm-1", 2000, "one")["sha256"] == digest.file_extents_digest(raw)
    with pytest.raises(HostError) as refused:
        service.digest("vm-1", 2000, None)
    assert refused.value.kind == "invalid_power_state"


def test_an_extents_digest_doesnt_depend_on_holes_but_on_every_byte_and_place(tmp_path: Path) -> None:
    def of(name: str, *pieces: tuple[int, bytes], size: int = 20 * MIB + 512) -> str:
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(size)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
        return digest.file_extents_digest(path)

    data = random.Random(1).randbytes(3 * 4096)
    tail = (20 * MIB, b"x" * 512)
    sparse = of("sparse", (8 * MIB, data), tail)
    assert sparse == of("zeros", (0, bytes(9 * MIB)), (8 * MIB, data), (12 * MIB, bytes(MIB)), tail)
    others = [
        of("moved", (8 * MIB + 4096, data), tail),
        of("changed", (8 * MIB, data[:-1] + b"\0" if data[-1] else data[:-1] + b"\1"), tail),
        of("no tail", (8 * MIB, data)),
        of("longer", (8 * MIB, data), tail, size=20 * MIB + 1024),
        of("split", (8 * MIB, data[:4096]), (9 * MIB, data[4096:]), tail),
    ]
    assert len({sparse, *others}) == 6


def test_json_goes_through_every_answer(service: HostService, guest: Guest) -> None:
    service.set_change_tracking("vm-1", enabled=True, immediate=False)
    made = service.create_snapshot("vm-1", "one")
    answers = [made, service.change_tracking("vm-1"), service.files("vm-1"), service.counters()]
    answers.append(service.changed_areas("vm-1", 2000, "one", "*", 0, 10))
    answers.append(service.remove_snapshot("vm-1", "one"))
    assert json.loads(json.dumps(answers)) == answers
