"""Chains of deltas read as what was written to them, whatever the order of their tables and grains."""

import random
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from snapferry.errors import Stopped
from snapferry.lab.host import HostService
from snapferry.lab.kinds import KindName
from snapferry.readers import DatastoreReader
from snapferry.transfer import BadExtents, Extents
from snapferry.vmdk import ZEROS, Chain, LocalFolder, open_chain

from ..odd import new_disk
from .builders import SECTOR, SESPARSE_GRAIN, ChainBuilder
from .conftest import read

MIB = 1 << 20
ODD_SIZES = (512, 18 * MIB, 16 * MIB + 512, 33 * MIB + 3 * 512, 2 * MIB + 4096, 64 << 10)


def chain_of(built: ChainBuilder) -> Chain:
    return open_chain(LocalFolder(built.folder), built.leaf)


@pytest.fixture(params=range(6))
def built(request: pytest.FixtureRequest, tmp_path: Path) -> ChainBuilder:
    """A chain of one to three deltas on a disk whose size fills neither a table nor, most often, a grain."""
    rng = random.Random(request.param)
    made = ChainBuilder(tmp_path, ODD_SIZES[request.param], rng)
    for _ in range(rng.randint(1, 3)):
        if request.param % 2:
            made.add_sesparse(rng.choice([3, 200]))
        else:
            made.add_cowd(rng.choice([3, 400]))
    return made


def test_every_byte_comes_once_and_is_the_topmost_layers(built: ChainBuilder) -> None:
    assert read(chain_of(built)) == built.bytes


def test_qemu_img_reads_the_same(
    built: ChainBuilder, same_as_qemu: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(read(chain_of(built)))
    same_as_qemu(raw, built.folder / built.leaf)


def test_a_reader_that_looks_up_one_grain_at_a_time_finds_the_same(built: ChainBuilder) -> None:
    fast = read(chain_of(built))
    places = [*range(0, built.capacity, SECTOR), *(built.rng.randrange(built.capacity) for _ in range(500))]
    assert [fast[at] for at in places] == [built.slowly(at) for at in places]


def test_a_part_of_the_disk_is_read_without_the_rest(built: ChainBuilder) -> None:
    pairs = []
    for _ in range(40):
        start = built.rng.randrange(built.capacity)
        pairs.append((start, min(built.capacity - start, built.rng.choice([1, 511, 512, 5000, 100_000]))))
    extents = Extents.from_pairs(pairs)
    expected = bytearray(b"?" * built.capacity)
    for start, length in extents:
        expected[start : start + length] = built.bytes[start : start + length]
    assert read(chain_of(built), extents, request_bytes=4096) == expected


def test_a_delta_names_its_data_zeros_and_unmapped_grains(built: ChainBuilder) -> None:
    chain = chain_of(built)
    for number, grains in enumerate(built.named, 1):
        size = SESPARSE_GRAIN if built.extents[number][0] == "SESPARSE" else SECTOR
        runs = [(grain * size, min(size, built.capacity - grain * size)) for grain in grains]
        assert chain.layer_extents(number) == Extents.from_pairs(runs)
    assert chain.layer_extents(0) == Extents.whole(built.capacity)


def test_reserved1_of_0x200_is_read_like_0(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 17 * MIB + 512, random.Random(1))
    built.add_sesparse(300, reserved1=0x200)
    assert read(chain_of(built)) == built.bytes


def test_files_are_read_from_front_to_back(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 40 * MIB, random.Random(2))
    built.add_sesparse(2000)
    (plan,) = chain_of(built).plans(Extents.whole(built.capacity))
    places = list(zip(plan.files.tolist(), plan.positions.tolist(), strict=True))
    assert places == sorted(places)


def test_grains_that_follow_each_other_in_the_file_only_are_read_at_once(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 40 * MIB, random.Random(3))
    built.add_sesparse(2000)
    chain = chain_of(built)
    (plan,) = chain.plans(chain.layer_extents(1))
    pieces, edges = plan.in_requests(MIB)
    data = int((pieces.files != ZEROS).sum())
    requests = int((pieces.files[edges[:-1]] != ZEROS).sum())
    assert data > 500
    assert requests == -(-data * SESPARSE_GRAIN // MIB)


def test_what_no_layer_holds_isnt_allocated(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 20 * MIB, random.Random(4), base=bytes(20 * MIB))
    flat = tmp_path / "web01-flat.vmdk"
    flat.unlink()
    with flat.open("wb") as file:
        file.truncate(20 * MIB)
        file.seek(4 * MIB)
        file.write(b"x" * MIB)
    built.add_sesparse(100)
    allocated = chain_of(built).allocated()
    data = [at for at in range(0, 20 * MIB, SESPARSE_GRAIN) if any(built.bytes[at : at + SESPARSE_GRAIN])]
    assert len(data) > 10
    named = {start for start, _ in Extents.from_pairs([(at, SESPARSE_GRAIN) for at in data]).subtract(allocated)}
    assert not named
    assert allocated.total_bytes <= MIB + len(data) * SESPARSE_GRAIN


def test_a_read_that_is_told_to_stop_stops_before_the_next_block(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 8 * MIB, random.Random(5))
    stop = Event()
    blocks = DatastoreReader(chain_of(built), request_bytes=MIB).read(Extents.whole(8 * MIB), stop)
    assert next(blocks).length == MIB
    stop.set()
    with pytest.raises(Stopped):
        next(blocks)


def test_extents_past_the_disks_end_are_refused(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 8 * MIB, random.Random(6))
    with pytest.raises(BadExtents):
        list(chain_of(built).plans(Extents.whole(8 * MIB + 1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vmfs6", "vmfs5", "nfs"])
@pytest.mark.parametrize("seed", range(3))
def test_chains_that_the_labs_host_wrote_read_as_its_guest_left_them(
    seed: int, kind: KindName, tmp_path: Path, same_as_qemu: Callable[[Path, Path], None]
) -> None:
    rng = random.Random(seed)
    host = HostService(tmp_path / "lab", seed=seed, leaf_busy_seconds=0)
    capacity = 33 * MIB + 512 * seed
    host.create_vm("vm-1", "san1", "web01", "web01", [new_disk(capacity, 5 * MIB, 9, kind)], {}, seed)
    host.power_on("vm-1")
    vm = host._vms["vm-1"]
    for name in ("one", "two", "three"):
        host.create_snapshot("vm-1", name)
        for _ in range(80):
            offset = rng.randrange(capacity // SECTOR) * SECTOR
            length = min(rng.choice([512, 4096, 65536, 300 << 10]), capacity - offset)
            act = rng.choice([vm.disks[2000].zero, vm.disks[2000].unmap, None])
            if act:
                act(offset, length)
            else:
                vm.disks[2000].write(offset, memoryview(rng.randbytes(length)))
    host.power_off("vm-1")
    view = vm.leaf_view(2000)
    expected = bytearray(capacity)
    view.read(0, memoryview(expected))
    for layer in range(len(view.layers)):
        leaf = view.layers[layer].path
        chain = open_chain(LocalFolder(leaf.parent), leaf.name)
        raw = tmp_path / "disk.raw"
        raw.write_bytes(read(chain))
        same_as_qemu(raw, leaf)
    assert raw.read_bytes() == expected
    host.stop()
