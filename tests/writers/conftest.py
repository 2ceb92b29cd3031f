"""Files for writers, and places where writing fails."""

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MakeImage = Callable[..., Path]


@pytest.fixture
def image(tmp_path: Path) -> MakeImage:
    """Makes an image file full of 0xaa."""

    def make(length: int) -> Path:
        path = tmp_path / "disk.0"
        path.write_bytes(b"\xaa" * length)
        return path

    return make


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets how large a file this process may write, as a full disk would: a real failure of the kernel's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda length: resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)
