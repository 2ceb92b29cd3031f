"""Files that lie end in an error that names what is wrong, before anything is made of them."""

import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.transfer import Extents
from snapferry.vmdk import (
    ChainError,
    Descriptor,
    DescriptorError,
    LocalFolder,
    StreamOptimized,
    VmdkCorrupt,
    VmdkError,
    VmdkInUse,
    VmdkTruncated,
    VmdkUnsupported,
    open_chain,
)
from snapferry.vmdk.cowd import open_cowd
from snapferry.vmdk.files import RangeFile
from snapferry.vmdk.sesparse import open_sesparse
from snapferry.vmdk.tables import GrainTables

from .builders import SECTOR, ChainBuilder, cowd, descriptor, marker, padded, sesparse, stream
from .conftest import read
from .fuzzing import MemoryFile

MIB = 1 << 20
CAPACITY = 5 * MIB + 512
Damage = Callable[[bytearray], object]
SESPARSE_DIRECTORY = 8 * SECTOR
SESPARSE_TABLE = SESPARSE_DIRECTORY + 4096
COWD_DIRECTORY = 4 * SECTOR
COWD_TABLE = 5 * SECTOR


def a_sesparse() -> bytearray:
    rng = random.Random(1)
    return sesparse(CAPACITY, {0: rng.randbytes(4096), 1: "zero", 2: rng.randbytes(4096)}, rng, directory=8)


def a_cowd() -> bytearray:
    rng = random.Random(1)
    return cowd(CAPACITY, {0: rng.randbytes(512), 1: rng.randbytes(512), 9000: rng.randbytes(512)}, rng)


def number(at: int, value: int, form: str = "<Q") -> Damage:
    """Writes a number there."""
    return lambda data: struct.pack_into(form, data, at, value)


def same_as(at: int, other: int, length: int) -> Damage:
    """Makes the bytes there those of another place."""
    return lambda data: data.__setitem__(slice(at, at + length), data[other : other + length])


def short(by: int) -> Damage:
    """Cuts the end off."""
    return lambda data: data.__delitem__(slice(len(data) - by, None))


DAMAGED_SESPARSES = {
    "no magic": (number(0, 1), VmdkCorrupt),
    "another version": (number(8, 0x300000001), VmdkUnsupported),
    "larger grains": (number(24, 16), VmdkUnsupported),
    "flags": (number(40, 1), VmdkUnsupported),
    "reserved1": (number(48, 0x400), VmdkUnsupported),
    "no capacity": (number(16, 0), VmdkCorrupt),
    "absurd capacity": (number(16, 1 << 60), VmdkCorrupt),
    "capacity past the directory": (number(16, 1 << 36), VmdkCorrupt),
    "directory outside": (number(128, 1 << 50), VmdkTruncated),
    "tables outside": (number(144, 1 << 50), VmdkTruncated),
    "grains outside": (number(192, 1 << 50), VmdkTruncated),
    "no volatile header": (number(SECTOR, 0), VmdkCorrupt),
    "a journal to replay": (number(SECTOR + 24, 1), VmdkInUse),
    "an odd directory entry": (number(SESPARSE_DIRECTORY, 0x20000000 << 32), VmdkCorrupt),
    "a table that isn't there": (number(SESPARSE_DIRECTORY, 0x10000000 << 32 | 7), VmdkCorrupt),
    "an entry of type 4": (number(SESPARSE_TABLE, 4 << 60), VmdkCorrupt),
    "a parent's entry with a grain": (number(SESPARSE_TABLE, 5), VmdkCorrupt),
    "a grain outside": (number(SESPARSE_TABLE, 3 << 60 | 2 << 48), VmdkTruncated),
    "a grain far outside": (number(SESPARSE_TABLE, 3 << 60 | (1 << 48) - 1), VmdkTruncated),
    "a grain twice": (same_as(SESPARSE_TABLE, SESPARSE_TABLE + 16, 8), VmdkCorrupt),
    "cut in a grain": (short(1), VmdkTruncated),
    "cut in the tables": (short(8192 + 1), VmdkTruncated),
    "cut in the header": (lambda data: data.__delitem__(slice(300, None)), VmdkTruncated),
    "empty": (bytearray.clear, VmdkTruncated),
}
DAMAGED_COWDS = {
    "no magic": (number(0, 1), VmdkCorrupt),
    "another version": (number(4, 2, "<I"), VmdkUnsupported),
    "no capacity": (number(12, 0, "<I"), VmdkCorrupt),
    "capacity past the directory": (number(12, 0xFFFFFFFF, "<I"), VmdkCorrupt),
    "grains of 3 sectors": (number(16, 3, "<I"), VmdkCorrupt),
    "grains of no sector": (number(16, 0, "<I"), VmdkCorrupt),
    "directory outside": (number(20, 0xFFFFFF, "<I"), VmdkTruncated),
    "not closed": (number(1648, 1, "<I"), VmdkInUse),
    "a table outside": (number(COWD_DIRECTORY, 0xFFFFFF, "<I"), VmdkTruncated),
    "a table twice": (same_as(COWD_DIRECTORY + 4, COWD_DIRECTORY, 4), VmdkCorrupt),
    "tables that overlap": (number(COWD_DIRECTORY, 5 + 16, "<I"), VmdkCorrupt),
    "an entry of 1": (number(COWD_TABLE + 400, 1, "<I"), VmdkCorrupt),
    "a grain outside": (number(COWD_TABLE + 400, 0xFFFFFFFF, "<I"), VmdkTruncated),
    "cut in a grain": (short(1), VmdkTruncated),
    "empty": (bytearray.clear, VmdkTruncated),
}


def assert_refused(
    data: bytearray, opener: Callable[[RangeFile], GrainTables], error: type[VmdkError], folder: Path, kind: str
) -> None:
    """Opening the extent, or reading the disk as part of a chain, ends in that error with what to do next."""
    built = ChainBuilder(folder, CAPACITY, random.Random(2), base=bytes(CAPACITY))
    (folder / "delta.vmdk").write_bytes(data)
    leaf = descriptor(CAPACITY, kind, kind, "delta.vmdk", cid=2, parent=(1, built.leaf))
    (folder / "leaf.vmdk").write_text(leaf.text())
    with pytest.raises(error) as refused:
        opener(MemoryFile(bytes(data))).runs(Extents.whole(CAPACITY), 0)
        read(open_chain(LocalFolder(folder), "leaf.vmdk"))
    assert refused.value.cause.endswith(".")
    assert refused.value.next_step.endswith(".")


@pytest.mark.parametrize("name", DAMAGED_SESPARSES)
def test_a_damaged_sesparse_extent_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    data = a_sesparse()
    open_sesparse(MemoryFile(bytes(data))).runs(Extents.whole(CAPACITY), 0)
    damage, error = DAMAGED_SESPARSES[name]
    damage(data)
    assert_refused(data, open_sesparse, error, tmp_path, "SESPARSE")


@pytest.mark.parametrize("name", DAMAGED_COWDS)
def test_a_damaged_cowd_extent_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    data = a_cowd()
    open_cowd(MemoryFile(bytes(data))).runs(Extents.whole(CAPACITY), 0)
    damage, error = DAMAGED_COWDS[name]
    damage(data)
    assert_refused(data, open_cowd, error, tmp_path, "VMFSSPARSE")


GRAIN = bytes(range(256)) * 256
HEADER = 64 << 10


def a_stream(*parts: bytes, end: bytes = marker(0, 0)) -> bytes:
    """A stream of these markers, behind a sound beginning."""
    return bytes(stream(MIB + 512, {}))[:HEADER] + b"".join(parts) + end


def grain(sector: int, packed: bytes = zlib.compress(GRAIN), size: int | None = None) -> bytes:
    return padded(struct.pack("<QI", sector, len(packed) if size is None else size) + packed)


LYING_STREAMS = {
    "cut behind a grain": (a_stream(grain(0), end=b""), VmdkTruncated),
    "cut in a grain": (a_stream(grain(0))[: HEADER + 100], VmdkTruncated),
    "cut in the header": (a_stream()[:1000], VmdkTruncated),
    "a grain twice": (a_stream(grain(128), grain(128)), VmdkCorrupt),
    "a grain outside": (a_stream(grain(1 << 40)), VmdkCorrupt),
    "a grain in between": (a_stream(grain(5)), VmdkCorrupt),
    "a bomb": (a_stream(grain(0, zlib.compress(bytes(256 * MIB)))), VmdkCorrupt),
    "a small bomb": (a_stream(grain(0, zlib.compress(bytes(MIB)))), VmdkCorrupt),
    "too little": (a_stream(grain(0, zlib.compress(GRAIN[:-1]))), VmdkCorrupt),
    "half of it": (a_stream(grain(0, zlib.compress(GRAIN)[:-20])), VmdkCorrupt),
    "no checksum": (a_stream(grain(0, zlib.compress(GRAIN)[:-4])), VmdkCorrupt),
    "no deflate": (a_stream(grain(0, b"x" * 300)), VmdkCorrupt),
    "an absurd size": (a_stream(grain(0, size=0xFFFFFFFF)), VmdkCorrupt),
    "an unknown marker": (a_stream(marker(0, 9)), VmdkCorrupt),
    "a table of an absurd size": (a_stream(marker(1 << 60, 1)), VmdkCorrupt),
    "a directory of another size": (a_stream(marker(5, 2)), VmdkCorrupt),
    "a footer that isn't one": (a_stream(marker(1, 3), bytes(SECTOR)), VmdkCorrupt),
    "another disk's footer": (a_stream(marker(1, 3), bytes(stream(2 * MIB, {}))[:SECTOR]), VmdkCorrupt),
    "nothing": (b"", VmdkTruncated),
}


@pytest.mark.parametrize("name", LYING_STREAMS)
def test_a_stream_that_lies_is_refused_with_the_reason(name: str) -> None:
    data, error = LYING_STREAMS[name]
    with pytest.raises(error) as refused:
        list(StreamOptimized(io.BytesIO(data).read, "disk.vmdk").grains())
    assert refused.value.next_step.endswith(".")


@pytest.mark.parametrize("sized", [True, False])
def test_an_export_reads_the_same_whether_or_not_its_markers_say_how_long_the_tables_are(sized: bool) -> None:
    capacity = 40 * MIB + 512
    grains = {0: GRAIN, 5: GRAIN[::-1], 511: bytes(65536), 600: GRAIN, capacity // 65536: GRAIN}
    out = StreamOptimized(io.BytesIO(bytes(stream(capacity, grains, sized=sized))).read, "disk.vmdk")
    blocks = {block.offset: bytes(block.data or b"") for block in out.grains()}
    assert blocks == {at * 65536: data[: capacity - at * 65536] for at, data in grains.items()}
    assert out.capacity_bytes == capacity


@pytest.fixture
def built(tmp_path: Path) -> ChainBuilder:
    made = ChainBuilder(tmp_path, MIB, random.Random(3))
    made.add_cowd(9)
    made.add_cowd(9)
    return made


def changed(built: ChainBuilder, file: str, **fields: object) -> LocalFolder:
    """The chain with other fields in one of its descriptors."""
    path = built.folder / file
    path.write_text(Descriptor.parse(path.read_text()).model_copy(update=fields).text())
    return LocalFolder(built.folder)


def test_parents_that_go_round_in_a_circle_are_found_out(built: ChainBuilder) -> None:
    hint = "/vmfs/volumes/anything/./" + built.leaf
    folder = changed(built, "web01.vmdk", parent_cid=3, parent_file_name_hint=hint)
    with pytest.raises(ChainError, match="circle"):
        open_chain(folder, built.leaf)


def test_a_parent_that_is_missing_is_named(built: ChainBuilder) -> None:
    (built.folder / "web01.vmdk").unlink()
    with pytest.raises(ChainError, match=r"web01\.vmdk"):
        open_chain(LocalFolder(built.folder), built.leaf)


def test_a_parent_that_was_changed_after_its_child_was_made_is_refused(built: ChainBuilder) -> None:
    with pytest.raises(ChainError, match="was changed after"):
        open_chain(changed(built, "web01.vmdk", cid=77), built.leaf)


def test_a_new_delta_that_still_has_its_parents_cid_is_read(built: ChainBuilder) -> None:
    chain = open_chain(changed(built, built.leaf, cid=2), built.leaf)
    assert read(chain) == built.bytes


def test_a_parent_of_another_size_is_refused(built: ChainBuilder) -> None:
    line = descriptor(MIB // 2, "vmfs", "VMFS", "web01-flat.vmdk").extents
    with pytest.raises(ChainError, match="different size"):
        open_chain(changed(built, "web01.vmdk", extents=line), built.leaf)


def test_a_flat_file_that_is_too_short_is_refused(built: ChainBuilder) -> None:
    with (built.folder / "web01-flat.vmdk").open("r+b") as file:
        file.truncate(MIB - 1)
    with pytest.raises(VmdkTruncated, match=str(MIB)):
        open_chain(LocalFolder(built.folder), built.leaf)


@pytest.mark.parametrize("hint", ["../../secret.vmdk", "/etc/secret.vmdk", "link/secret.vmdk", "a\0b"])
def test_no_file_outside_of_the_datastore_is_opened(built: ChainBuilder, hint: str) -> None:
    inside = built.folder / "datastore"
    inside.mkdir()
    for path in [*built.folder.glob("*.vmdk")]:
        path.rename(inside / path.name)
    base = (inside / "web01.vmdk").read_text()
    (built.folder / "secret.vmdk").write_text(base)
    (inside / "link").symlink_to(built.folder)
    built.folder = inside
    with pytest.raises(ChainError):
        open_chain(changed(built, "web01-000001.vmdk", parent_file_name_hint=hint), built.leaf)


@pytest.mark.parametrize("name", ["../web01-flat.vmdk", "/etc/passwd", ""])
def test_an_extents_file_lies_beside_its_descriptor(built: ChainBuilder, name: str) -> None:
    line = (Descriptor.parse((built.folder / "web01.vmdk").read_text()).extents[0])._replace(file=name)
    with pytest.raises(DescriptorError):
        open_chain(changed(built, "web01.vmdk", extents=(line,)), built.leaf)


def test_one_file_isnt_the_extent_of_two_layers(built: ChainBuilder) -> None:
    line = Descriptor.parse((built.folder / "web01-000001.vmdk").read_text()).extents
    with pytest.raises(ChainError, match="twice"):
        open_chain(changed(built, built.leaf, extents=line), built.leaf)


@pytest.mark.parametrize("kind", ["VSANSPARSE", "VMFSRDM", "SOMETHING"])
def test_disks_without_a_file_of_their_own_are_refused(built: ChainBuilder, kind: str) -> None:
    line = descriptor(MIB, "vmfs", kind, "web01-flat.vmdk").extents
    with pytest.raises(VmdkUnsupported, match=kind):
        open_chain(changed(built, "web01.vmdk", extents=line), built.leaf)


BAD_TEXTS = {
    "no CID": 'createType="vmfs"\nRW 1 VMFS "x"',
    "no type": 'CID=1\nRW 1 VMFS "x"',
    "a CID that is none": 'CID=-1\ncreateType="vmfs"\nRW 1 VMFS "x"',
    "a number of 5000 digits": f'CID=1\ncreateType="vmfs"\nRW {"9" * 5000} VMFS "x"',
    "no extent": 'CID=1\ncreateType="vmfs"\n',
    "an extent of nothing": 'CID=1\ncreateType="vmfs"\nRW 0 VMFS "x"',
    "an absurd disk": f'CID=1\ncreateType="vmfs"\nRW {1 << 40} VMFS "x"',
    "another encoding": 'encoding="zip"\nCID=1\ncreateType="vmfs"\nRW 1 VMFS "x"',
    "no text": "\udcff\udcfe",
    "far too long": "#" * (2 << 20),
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_descriptor_that_says_too_little_or_too_much_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "web01.vmdk").write_bytes(BAD_TEXTS[name].encode(errors="surrogateescape"))
    with pytest.raises(DescriptorError, match=r"web01\.vmdk") as refused:
        open_chain(LocalFolder(tmp_path), "web01.vmdk")
    assert refused.value.next_step


_HUGE = """
import re, sys
from pathlib import Path
from snapferry.transfer import Extents
from snapferry.vmdk import LocalFolder, VmdkError, open_chain

try:
    chain = open_chain(LocalFolder(Path(sys.argv[1])), "web01.vmdk")
    total = chain.layer_extents(0).total_bytes
    for plan in chain.plans(Extents.whole(chain.capacity_bytes)):
        total += len(plan)
except VmdkError as error:
    print(error)
status = Path("/proc/self/status").read_text()  # not getrusage, which counts the process that started this one
print(int(re.search("VmHWM:\\s*(\\d+)", status)[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("tables", ["none", "all the same", "scattered"])
def test_a_file_that_claims_64_tib_costs_no_more_than_200_mb(tables: str, tmp_path: Path) -> None:
    capacity, count, filled = 64 << 40, 4 << 20, 1000
    scattered = b"".join(struct.pack("<Q", 0x10000000 << 32 | slot) for slot in range(filled))
    directory = {
        "none": bytes(8 * count),
        "all the same": struct.pack("<Q", 0x10000000 << 32) * count,
        "scattered": scattered.ljust(8 * count, b"\0"),
    }[tables]
    start = 8 + len(directory) // SECTOR
    fields = [0xCAFEBABE, 0x200000001, capacity // SECTOR, 8, 64, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2048, 2048]
    fields += [8, start - 8, start, count * 64, start, 0, start, 0, start, 8]
    with (tmp_path / "a.vmdk").open("wb") as file:
        file.write(padded(struct.pack("<26Q", *fields)) + padded(struct.pack("<4Q", 0xCAFECAFE, 0, 2, 0)))
        file.seek(8 * SECTOR)
        file.write(directory)
        file.write(struct.pack("<QQ", 2 << 60, 0) * 2048 * filled)  # every other grain
        file.truncate(start * SECTOR + count * 32768)
    (tmp_path / "web01.vmdk").write_text(descriptor(capacity, "seSparse", "SESPARSE", "a.vmdk").text())
    command = [sys.executable, "-c", _HUGE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 200
    assert ("overlap" in done.stdout) == (tables == "all the same")
