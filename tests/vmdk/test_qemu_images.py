"""Images that qemu-img makes read as what it made them from."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.transfer import Extents
from snapferry.vmdk import Chain, LocalFolder, StreamOptimized, VmdkTruncated, VmdkUnsupported, open_chain

from .builders import SECTOR
from .conftest import read

MIB = 1 << 20
FORMATS = ("monolithicFlat", "monolithicSparse", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse")


@pytest.fixture(params=[3 * MIB + 512, 70 * MIB, 33 * MIB + 7 * 512])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A raw disk with data here and there, at its beginning and at its end."""
    rng, path = random.Random(request.param), tmp_path / "disk.raw"
    with path.open("wb") as file:
        for start in (0, 1 * MIB + 512, request.param // 2, request.param - 700):
            file.seek(start)
            file.write(rng.randbytes(min(300_000, request.param - start)))
    return path


@pytest.mark.parametrize("subformat", FORMATS)
def test_an_image_reads_as_its_raw_disk(raw: Path, subformat: str, qemu_img: Callable[..., str]) -> None:
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, raw.with_name("disk.vmdk"))
    chain = open_chain(LocalFolder(raw.parent), "disk.vmdk")
    assert read(chain) == raw.read_bytes()
    assert 900_000 < chain.allocated().total_bytes < 2 * MIB


def test_a_disk_in_parts_of_2_gb_is_put_together(tmp_path: Path, qemu_img: Callable[..., str]) -> None:
    disk = tmp_path / "disk.raw"
    places = (0, 2047 * MIB, 2047 * MIB - 4096, 2 << 30, 4095 * MIB)
    with disk.open("wb") as file:
        file.truncate(5 << 30)
        for number, start in enumerate(places):
            file.seek(start)
            file.write(bytes([number + 1]) * 8192)
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", disk, tmp_path / "disk.vmdk")
    chain = open_chain(LocalFolder(tmp_path), "disk.vmdk")
    assert len(chain.files) == 3
    assert chain.capacity_bytes == 5 << 30
    around = Extents.from_pairs([(max(0, start - 512), 8192 + 1024) for start in places])
    assert pieces(chain, around) == [pread(disk, start, length) for start, length in around]


def pieces(chain: Chain, extents: Extents) -> list[bytes]:
    """The bytes of each extent, without a picture of the whole disk."""
    out = []
    for start, length in extents:
        piece = bytearray(length)
        for plan in chain.plans(Extents.of([start], [length])):
            for file, position, offset, size in zip(
                plan.files.tolist(), plan.positions.tolist(), plan.offsets.tolist(), plan.lengths.tolist(), strict=True
            ):
                if file >= 0:
                    piece[offset - start : offset - start + size] = chain.files[file].read(position, size)
        out.append(bytes(piece))
    return out


def pread(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def test_a_stream_is_read_as_it_comes(raw: Path, qemu_img: Callable[..., str]) -> None:
    packed = raw.with_name("disk.vmdk")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed)
    with packed.open("rb") as file:
        stream = StreamOptimized(lambda most: file.read(min(most, 1000)), "disk.vmdk")
        out = bytearray(stream.capacity_bytes)
        for grain in stream.grains():
            assert grain.data is not None
            out[grain.offset : grain.offset + grain.length] = grain.data
    assert out == raw.read_bytes()
    assert stream.descriptor is not None
    assert stream.descriptor.create_type == "streamOptimized"


def test_a_stream_of_qemus_that_lost_its_last_grain_is_found_out_though_it_ends_with_a_sector(
    raw: Path, qemu_img: Callable[..., str]
) -> None:
    packed = raw.with_name("disk.vmdk")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed)
    data = packed.read_bytes()
    (overhead,) = struct.unpack_from("<Q", data, 64)
    cut = at = overhead * SECTOR
    while at < len(data):
        size = struct.unpack_from("<QI", data, at)[1]
        cut = at if size else cut
        at += -(-(12 + size) // SECTOR) * SECTOR
    stream = StreamOptimized(io.BytesIO(data[:cut]).read, "disk.vmdk")
    with pytest.raises(VmdkTruncated, match="tables name"):
        list(stream.grains())


def test_a_compressed_disk_in_a_chain_is_refused(raw: Path, qemu_img: Callable[..., str]) -> None:
    packed = raw.with_name("disk.vmdk")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed)
    with pytest.raises(VmdkUnsupported, match="compressed"):
        open_chain(LocalFolder(raw.parent), "disk.vmdk")
