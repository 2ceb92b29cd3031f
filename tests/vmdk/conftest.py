"""A chain's bytes, and qemu-img's opinion of them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from snapferry.readers import DatastoreReader
from snapferry.transfer import Extents
from snapferry.vmdk import Chain


@pytest.fixture
def qemu_img() -> Callable[..., str]:
    """Runs qemu-img, which has to succeed."""
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img isn't installed")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def same_as_qemu(qemu_img: Callable[..., str]) -> Callable[[Path, Path], None]:
    """Compares a raw file with what qemu-img makes of a VMDK, sizes included."""

    def compare(raw: Path, vmdk: Path) -> None:
        assert qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, vmdk) == "Images are identical.\n"

    return compare


def read(chain: Chain, extents: Extents | None = None, request_bytes: int = 64 << 10) -> bytearray:
    """The disk as the chain's reader has it, `?` where it wasn't asked for; each byte has to come just once."""
    wanted = Extents.whole(chain.capacity_bytes) if extents is None else extents
    out = bytearray(b"?" * chain.capacity_bytes)
    pieces: list[tuple[int, int]] = []
    for block in DatastoreReader(chain, request_bytes=request_bytes).read(wanted, Event()):
        pieces.append((block.offset, block.length))
        data = bytes(block.length) if block.data is None else block.data
        assert len(data) == block.length
        out[block.offset : block.offset + block.length] = data
    assert Extents.from_pairs(pieces) == wanted
    assert sum(length for _, length in pieces) == wanted.total_bytes
    return out
