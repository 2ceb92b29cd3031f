"""A writer that reads before it writes: the image ends as the source is, and what was equal stays untouched."""

import os
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.errors import Stopped
from snapferry.writers import ComparingWriter, RawFileWriter, WriteFailed
from snapferry.writers.comparing import differing_runs

KIB, MIB = 1 << 10, 1 << 20
CAPACITY = 3 * MIB + 512


@pytest.fixture
def held() -> bytes:
    """What the image holds: data, zeros that were written, and a hole at its end."""
    return os.urandom(MIB) + bytes(MIB) + bytes(MIB + 512)


@pytest.fixture
def path(tmp_path: Path, held: bytes) -> Path:
    path = tmp_path / "disk.0"
    with path.open("wb") as file:
        file.write(held[: 2 * MIB])
        file.truncate(CAPACITY)
    return path


def bring_up_to_date(path: Path, source: bytes) -> int:
    """Writes the whole source; how much of it differed."""
    writer = ComparingWriter(RawFileWriter(path, CAPACITY), Event())
    writer.write(0, memoryview(source))
    writer.flush()
    writer.close()
    assert path.read_bytes() == source
    return writer.differing_bytes


def test_an_equal_image_isnt_written_to(path: Path, held: bytes) -> None:
    before = path.stat()
    assert bring_up_to_date(path, held) == 0
    assert (path.stat().st_mtime_ns, path.stat().st_blocks) == (before.st_mtime_ns, before.st_blocks)


def test_one_byte_costs_64_kib(path: Path, held: bytes) -> None:
    source = bytearray(held)
    source[300 * KIB] ^= 1
    assert bring_up_to_date(path, bytes(source)) == 64 * KIB
    source[-1] ^= 1  # behind the last whole unit, and the last whole word
    assert bring_up_to_date(path, bytes(source)) == 512


def test_zeros_make_holes_only_where_something_else_is(path: Path, held: bytes) -> None:
    writer = ComparingWriter(RawFileWriter(path, CAPACITY), Event())
    writer.zero(MIB, CAPACITY - MIB)
    assert writer.differing_bytes == 0
    writer.zero(0, CAPACITY)
    writer.close()
    assert writer.differing_bytes >= MIB
    assert path.read_bytes() == bytes(CAPACITY)


def test_a_hole_as_long_as_the_disk_stops_before_its_next_piece(path: Path, held: bytes) -> None:
    stop = Event()
    writer = ComparingWriter(RawFileWriter(path, CAPACITY), stop)
    stop.set()
    with pytest.raises(Stopped):
        writer.zero(0, CAPACITY)
    with pytest.raises(Stopped):
        writer.write(0, memoryview(held))
    writer.close()
    assert path.read_bytes() == held


def test_an_image_that_somebody_makes_shorter_is_named(path: Path, held: bytes) -> None:
    writer = ComparingWriter(RawFileWriter(path, CAPACITY), Event())
    os.truncate(path, MIB)
    with pytest.raises(WriteFailed, match="made it shorter"):
        writer.write(0, memoryview(held))
    writer.close()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400_000),
    st.lists(st.tuples(st.integers(0, 399_999), st.integers(1, 255)), max_size=6),
    st.booleans(),
)
def test_every_differing_byte_is_in_a_run(length: int, flips: list[tuple[int, int]], zeros: bool) -> None:
    one = bytearray(length) if zeros else bytearray(os.urandom(length))
    other = bytearray(one)
    for place, value in flips:
        if place < length:
            other[place] ^= value
    runs = differing_runs(memoryview(one), memoryview(other))
    for start, end in runs:
        assert 0 <= start < end <= length
        other[start:end] = one[start:end]
    assert one == other
    units = {place // (64 * KIB) for place, _ in flips if place < length}
    assert sum(end - start for start, end in runs) <= len(units) * 64 * KIB
