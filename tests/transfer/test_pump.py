"""The pump between fakes of the seams' protocols, and into a real file."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.errors import Stopped, TransferError
from snapferry.seams import Block
from snapferry.transfer import Extents, FileJournal, RateLimiter, ReaderFault, pump
from snapferry.transfer.pump import zero_runs
from snapferry.writers import RawFileWriter

KIB, MIB = 1 << 10, 1 << 20
Make = Callable[..., Any]


def sparse_disk(length: int, seed: int = 1) -> bytes:
    """Data and zeros in runs of many sizes."""
    chance, disk = random.Random(seed), bytearray()
    while len(disk) < length:
        size = chance.choice((512, 4 * KIB, 20 * KIB, 64 * KIB, 200 * KIB))
        disk += chance.choice((bytes(size), chance.randbytes(size), bytes(size - 1) + b"\1"))
    return bytes(disk[:length])


runs = st.lists(st.tuples(st.integers(0, 599), st.integers(1, 200)), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=runs, already=runs, seed=st.integers(0, 99), block=st.integers(1, 400), knows_zeros=st.booleans())
def test_what_was_asked_for_equals_the_source_and_the_rest_is_untouched(
    memory_reader: Make,
    memory_writer: Make,
    checked_journal: Make,
    runs: list[tuple[int, int]],
    already: list[tuple[int, int]],
    seed: int,
    block: int,
    knows_zeros: bool,
) -> None:
    disk, before = sparse_disk(600 * 512, seed), random.Random(seed).randbytes(600 * 512)
    wanted, done = (
        Extents.from_pairs((start * 512, min(length, 600 - start) * 512) for start, length in some)
        for some in (runs, already)
    )
    image = bytearray(before)
    for start, length in done:
        image[start : start + length] = disk[start : start + length]
    writer = memory_writer(bytes(image))
    journal = checked_journal(disk, writer)
    journal.add(done)
    reader = memory_reader(disk, block * 512, knows_zeros=knows_zeros, seed=seed)
    copied = pump(reader, writer, wanted, stop=threading.Event(), journal=journal, interval_bytes=64 * KIB)
    expected = bytearray(image)
    for start, length in wanted:
        expected[start : start + length] = disk[start : start + length]
    assert writer.stable == expected
    left = wanted.subtract(done)
    assert reader.asked == left, "what the journal has was read again"
    assert copied.read_bytes == copied.zero_bytes + copied.written_bytes == left.total_bytes
    assert copied.skipped_bytes == wanted.total_bytes - left.total_bytes
    assert (copied.written_bytes, copied.zero_bytes) == (writer.written, writer.zeroed)
    assert journal.done() == wanted.union(done)


def test_zeros_over_old_data_are_written(memory_reader: Make, memory_writer: Make) -> None:
    writer = memory_writer(b"\xff" * MIB)
    pump(memory_reader(bytes(MIB)), writer, Extents.whole(MIB), stop=threading.Event())
    assert writer.stable == bytes(MIB) and writer.written == 0


def test_a_disk_that_ends_off_every_grain_is_copied_to_its_last_byte(memory_reader: Make, memory_writer: Make) -> None:
    disk = sparse_disk(MIB - 512) + b"the last sector!" * 32
    writer = memory_writer(bytes(len(disk)))
    pump(memory_reader(disk, 128 * KIB), writer, Extents.whole(len(disk)), stop=threading.Event())
    assert writer.stable == disk


def test_what_nobody_read_can_be_made_zero_first(memory_reader: Make, memory_writer: Make) -> None:
    writer = memory_writer(b"\xff" * MIB)
    wanted = Extents.from_pairs([(0, 64 * KIB)])
    disk = b"\1" * MIB
    pump(memory_reader(disk), writer, wanted, stop=threading.Event(), zeros=wanted.complement(MIB))
    assert writer.stable == disk[: 64 * KIB] + bytes(MIB - 64 * KIB)


def test_a_failed_flush_takes_nothing_into_the_journal_and_the_next_run_writes_it_again(
    memory_reader: Make, memory_writer: Make, checked_journal: Make
) -> None:
    disk, writer = random.Random(2).randbytes(MIB), memory_writer(bytes(MIB))
    journal = checked_journal(disk, writer)
    writer.fails_at_flush = 3
    options = {"stop": threading.Event(), "journal": journal, "interval_bytes": 256 * KIB}
    with pytest.raises(TransferError, match="storage"):
        pump(memory_reader(disk), writer, Extents.whole(MIB), **options)
    assert journal.done().total_bytes == 512 * KIB
    again = pump(memory_reader(disk), writer, Extents.whole(MIB), **options)
    assert again.skipped_bytes == again.read_bytes == 512 * KIB
    assert writer.stable == disk


def test_a_failed_read_keeps_what_was_flushed_and_ends_the_reader(
    memory_reader: Make, memory_writer: Make, checked_journal: Make
) -> None:
    disk, writer = random.Random(2).randbytes(MIB), memory_writer(bytes(MIB))
    journal, reader = checked_journal(disk, writer), memory_reader(disk)
    reader.fails_after = 10
    with pytest.raises(TransferError, match="gone"):
        pump(reader, writer, Extents.whole(MIB), stop=threading.Event(), journal=journal, interval_bytes=256 * KIB)
    assert journal.done().total_bytes == 512 * KIB


def test_a_killed_round_resumes_without_copying_twice(memory_reader: Make, memory_writer: Make, tmp_path: Path) -> None:
    disk, writer = random.Random(3).randbytes(MIB), memory_writer(bytes(MIB))
    reader, identity = memory_reader(disk), {"disk": "a"}
    reader.fails_after = 9
    for expected in (pytest.raises(TransferError), None):
        journal = FileJournal(tmp_path / "journal", identity)
        if expected:
            with expected:
                pump(
                    reader, writer, Extents.whole(MIB), stop=threading.Event(), journal=journal,
                    interval_bytes=128 * KIB,
                )  # fmt: skip
            writer.close()  # what wasn't flushed is gone
            reader = memory_reader(disk)
        else:
            copied = pump(reader, writer, Extents.whole(MIB), stop=threading.Event(), journal=journal)
            assert copied.skipped_bytes == 512 * KIB
    assert writer.stable == disk


def test_the_last_flush_comes_even_if_nothing_was_copied(memory_reader: Make, memory_writer: Make) -> None:
    writer = memory_writer(bytes(MIB))
    pump(memory_reader(bytes(MIB)), writer, Extents.empty(), stop=threading.Event())
    assert writer.flushes == 1


def test_progress_adds_up_to_what_was_read(memory_reader: Make, memory_writer: Make) -> None:
    told: list[int] = []
    disk = sparse_disk(MIB)
    pump(
        memory_reader(disk), memory_writer(bytes(MIB)), Extents.whole(MIB), stop=threading.Event(), progress=told.append
    )
    assert sum(told) == MIB and len(told) > 4


class Answers:
    """A reader that hands over what it is told to, whatever was asked for."""

    def __init__(self, *blocks: Block) -> None:
        self.blocks = blocks
        self.capacity_bytes = MIB

    def read(self, extents: Extents, stop: threading.Event) -> Iterator[Block]:
        yield from self.blocks

    def close(self) -> None: ...


ONE = Block(0, 512, memoryview(b"\1" * 512))
TWO = Block(512, 512, memoryview(b"\2" * 512))


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([ONE], id="one missing"),
        pytest.param([ONE, ONE], id="one twice, one missing"),
        pytest.param([ONE, TWO, ONE], id="one too many"),
        pytest.param([ONE, TWO, Block(1024, 512, None)], id="outside"),
        pytest.param([Block(0, 2048, None)], id="past the end"),
        pytest.param([Block(0, 1024, memoryview(bytes(512)))], id="length and data differ"),
    ],
)
@pytest.mark.parametrize("interval_bytes", [1, MIB])
def test_a_reader_that_hands_over_other_bytes_is_caught(
    memory_writer: Make, blocks: list[Block], interval_bytes: int
) -> None:
    writer = memory_writer(b"\xff" * 4096)
    with pytest.raises(ReaderFault):
        pump(Answers(*blocks), writer, Extents.whole(1024), stop=threading.Event(), interval_bytes=interval_bytes)
    assert writer.stable[1024:] == b"\xff" * 3072


def test_a_pump_that_was_stopped_before_writes_nothing(memory_reader: Make, memory_writer: Make) -> None:
    stop, writer = threading.Event(), memory_writer(bytes(MIB))
    stop.set()
    with pytest.raises(Stopped):
        pump(memory_reader(b"\1" * MIB), writer, Extents.whole(MIB), stop=stop)
    assert writer.written == 0


def test_a_throttled_pump_stops_within_a_second(memory_reader: Make, memory_writer: Make) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        pump(
            memory_reader(b"\1" * MIB), memory_writer(bytes(MIB)), Extents.whole(MIB), stop=stop,
            limiter=RateLimiter(1000),
        )  # fmt: skip
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize("length", [512, 4096, 4608, 64 * KIB, 64 * KIB + 512, 2 * MIB])
def test_blocks_of_zeros_are_one_hole_whatever_their_length(length: int) -> None:
    assert zero_runs(memoryview(bytes(length))) == [(0, length)]
    for place in (0, length // 2, length - 1):
        block = bytearray(length)
        block[place] = 1
        assert all(end <= place or start > place for start, end in zero_runs(memoryview(block)))


def test_only_long_runs_of_zeros_become_holes() -> None:
    short, long = bytes(60 * KIB), bytes(64 * KIB)
    block = b"\1" * 4096 + short + b"\1" * 4096 + long + b"\1" * 512
    assert zero_runs(memoryview(block)) == [(68 * KIB, 132 * KIB)]


def test_a_copy_into_a_file_equals_the_source_and_is_sparse(memory_reader: Make, tmp_path: Path) -> None:
    disk = random.Random(1).randbytes(MIB) + bytes(14 * MIB) + random.Random(2).randbytes(MIB) + bytes(512)
    image = tmp_path / "disk.0"
    image.write_bytes(b"\xaa" * (17 * MIB))
    writer = RawFileWriter(image, len(disk))
    pump(memory_reader(disk, 512 * KIB), writer, Extents.whole(len(disk)), stop=threading.Event())
    writer.close()
    assert image.read_bytes() == disk
    assert image.stat().st_blocks * 512 < 3 * MIB
