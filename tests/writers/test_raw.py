"""The raw file writer on real files."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from snapferry.writers import FlushFailed, ImageBusy, NoSpace, RawFileWriter, WriteFailed, WrongImage, linux

KIB, MIB = 1 << 10, 1 << 20
MakeImage = Callable[[int], Path]


def no_holes(monkeypatch: pytest.MonkeyPatch, number: int = errno.EOPNOTSUPP) -> None:
    """The C library's fallocate answers as it does on a file system without holes."""

    def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(linux._libc, "fallocate", fallocate)


def test_bytes_land_where_they_belong(image: MakeImage) -> None:
    path = image(MIB)
    writer = RawFileWriter(path, MIB)
    writer.write(1000, memoryview(b"hello"))
    writer.zero(5000, 100_000)
    writer.flush()
    writer.close()
    expected = bytearray(b"\xaa" * MIB)
    expected[1000:1005] = b"hello"
    expected[5000:105_000] = bytes(100_000)
    assert path.read_bytes() == expected


def test_an_image_of_whole_mebibytes_is_made_exactly_as_long_as_the_disk(image: MakeImage) -> None:
    path = image(2 * MIB)
    RawFileWriter(path, MIB + 512).close()
    assert path.stat().st_size == MIB + 512
    RawFileWriter(path, MIB + 512).close()
    assert path.read_bytes() == b"\xaa" * (MIB + 512)


def test_an_empty_file_takes_any_disk(image: MakeImage) -> None:
    path = image(0)
    RawFileWriter(path, 3 * MIB).close()
    assert path.read_bytes() == bytes(3 * MIB)


@pytest.mark.parametrize("length", [MIB, 4 * MIB])
def test_a_file_of_another_size_is_refused_untouched(image: MakeImage, length: int) -> None:
    path = image(length)
    with pytest.raises(WrongImage, match=f"{length} bytes"):
        RawFileWriter(path, 2 * MIB)
    assert path.read_bytes() == b"\xaa" * length


def test_a_file_is_never_created(tmp_path: Path) -> None:
    with pytest.raises(WrongImage, match="No such file"):
        RawFileWriter(tmp_path / "none", MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_refused(image: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image(MIB))
    with pytest.raises(WrongImage, match="symbolic link"):
        RawFileWriter(tmp_path / "link", MIB)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(WrongImage):
            RawFileWriter(path, MIB)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
def test_a_file_of_somebody_elses_is_named(image: MakeImage) -> None:
    path = image(MIB)
    path.chmod(0o400)
    with pytest.raises(WrongImage, match="Permission denied"):
        RawFileWriter(path, MIB)


def test_a_second_writer_in_the_same_process_is_kept_out(image: MakeImage) -> None:
    path = image(MIB)
    first = RawFileWriter(path, MIB)
    with pytest.raises(ImageBusy, match="worker"):
        RawFileWriter(path, MIB)
    first.close()
    RawFileWriter(path, MIB).close()


def test_a_writer_in_another_process_is_kept_out_and_let_in_when_the_first_is_killed(image: MakeImage) -> None:
    path = image(MIB)
    code = (
        "import sys, pathlib; from snapferry.writers import RawFileWriter; "
        "writer = RawFileWriter(pathlib.Path(sys.argv[1]), 1 << 20); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ImageBusy):
            RawFileWriter(path, MIB)
        other.kill()
        other.wait(10)
    RawFileWriter(path, MIB).close()


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-utils")
def test_qemu_and_the_writer_keep_each_other_out(image: MakeImage) -> None:
    path = image(MIB)
    command = ["qemu-io", "-f", "raw", str(path)]
    writer = RawFileWriter(path, MIB)
    refused = subprocess.run([*command, "-c", "write 0 512"], capture_output=True, text=True, timeout=30)
    assert refused.returncode and "lock" in refused.stderr
    writer.close()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdin and qemu.stdout
        qemu.stdin.write("read 0 512\n")
        qemu.stdin.flush()
        assert "read 512/512" in qemu.stdout.readline()
        with pytest.raises(ImageBusy):
            RawFileWriter(path, MIB)
        qemu.stdin.close()
        qemu.wait(10)


def test_a_refused_file_isnt_held(image: MakeImage) -> None:
    path = image(4 * MIB)
    with pytest.raises(WrongImage):
        RawFileWriter(path, MIB)
    RawFileWriter(path, 4 * MIB).close()


def test_zeros_become_holes(image: MakeImage) -> None:
    path = image(8 * MIB)
    writer = RawFileWriter(path, 8 * MIB)
    writer.zero(0, 8 * MIB)
    writer.flush()
    writer.close()
    assert path.read_bytes() == bytes(8 * MIB)
    assert path.stat().st_blocks == 0


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_holes_gets_zeros_written(
    image: MakeImage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    no_holes(monkeypatch, number)
    path = image(4 * MIB)
    writer = RawFileWriter(path, 4 * MIB)
    writer.zero(700, 3 * MIB)
    writer.flush()
    writer.close()
    assert path.read_bytes() == b"\xaa" * 700 + bytes(3 * MIB) + b"\xaa" * (MIB - 700)


def test_a_failing_hole_is_named(image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    no_holes(monkeypatch, errno.EIO)
    writer = RawFileWriter(image(MIB), MIB)
    with pytest.raises(WriteFailed, match="Input/output error"):
        writer.zero(0, MIB)
    writer.close()


def test_a_pristine_image_needs_no_zeros_but_where_it_was_written_to(
    image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_holes(monkeypatch)
    path = image(0)
    writer = RawFileWriter(path, 16 * MIB, pristine=True)
    writer.zero(0, 16 * MIB)
    writer.write(5 * MIB, memoryview(b"\1" * MIB))
    writer.zero(5 * MIB + 1000, 1000)
    writer.zero(8 * MIB, 8 * MIB)
    writer.flush()
    writer.close()
    data = path.read_bytes()
    assert data[5 * MIB : 6 * MIB] == b"\1" * 1000 + bytes(1000) + b"\1" * (MIB - 2000)
    assert not any(data[: 5 * MIB]) and not any(data[6 * MIB :])
    assert path.stat().st_blocks * 512 < 3 * MIB


@pytest.mark.parametrize(("offset", "length"), [(-1, 10), (MIB - 5, 10), (MIB, 1), (0, MIB + 1)])
def test_a_range_that_isnt_on_the_disk_is_refused(image: MakeImage, offset: int, length: int) -> None:
    path = image(MIB)
    writer = RawFileWriter(path, MIB)
    with pytest.raises(WriteFailed, match="aren't on the disk"):
        writer.write(offset, memoryview(bytes(length)))
    with pytest.raises(WriteFailed, match="aren't on the disk"):
        writer.zero(offset, length)
    writer.close()
    assert path.read_bytes() == b"\xaa" * MIB


def test_a_full_file_system_is_named(image: MakeImage) -> None:
    """/dev/full can't be opened as an image, so the descriptor is turned into it behind the writer's back."""
    writer = RawFileWriter(image(MIB), MIB)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, writer._fd)
    os.close(full)
    with pytest.raises(NoSpace, match=r"No space left.*datastore"):
        writer.write(0, memoryview(b"x"))
    writer.close()


def test_a_write_that_the_kernel_refuses_is_named(image: MakeImage, file_size_limit: Callable[[int], None]) -> None:
    writer = RawFileWriter(image(MIB), MIB)
    file_size_limit(64 * KIB)
    with pytest.raises(WriteFailed, match="File too large"):
        writer.write(0, memoryview(b"x" * (128 * KIB)))
    writer.close()


def test_a_flush_that_fails_is_raised(image: MakeImage) -> None:
    """fsync of a pipe fails as that of a broken disk does: with an error number."""
    writer = RawFileWriter(image(MIB), MIB)
    one, other = os.pipe()
    os.dup2(other, writer._fd)
    os.close(one)
    os.close(other)
    with pytest.raises(FlushFailed, match="Invalid argument"):
        writer.flush()
    writer.close()


def test_an_image_that_was_deleted_meanwhile_isnt_taken_for_written(image: MakeImage) -> None:
    path = image(MIB)
    writer = RawFileWriter(path, MIB)
    writer.write(0, memoryview(b"x"))
    path.unlink()
    with pytest.raises(FlushFailed, match="removed"):
        writer.flush()
    writer.close()


@pytest.fixture
def writeback(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """The kernel's answer to a write-back that waits for the device: its call, and what lets it return."""
    called, release = Event(), Event()

    def sync_file_range(fd: int, offset: int, length: int, flags: int) -> int:
        called.set()
        release.wait(30)
        return 0

    monkeypatch.setattr(linux._libc, "sync_file_range", sync_file_range)
    yield called, release
    release.set()


def test_writing_goes_on_while_write_back_waits_and_the_file_isnt_let_go_before(
    image: MakeImage, writeback: tuple[Event, Event]
) -> None:
    path = image(40 * MIB)
    writer = RawFileWriter(path, 40 * MIB)
    for start in range(0, 40 * MIB, MIB):
        writer.write(start, memoryview(b"\x05" * MIB))
    called, release = writeback
    assert called.wait(10)
    writer.flush()
    closing = Thread(target=writer.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()  # its number could be another file's by the time of the call
    with pytest.raises(ImageBusy):
        RawFileWriter(path, 40 * MIB)
    release.set()
    closing.join(10)
    RawFileWriter(path, 40 * MIB).close()
    assert path.read_bytes() == b"\x05" * (40 * MIB)


def test_where_no_thread_can_be_had_the_flush_does_it_all(image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    path = image(9 * MIB)
    writer = RawFileWriter(path, 9 * MIB)
    monkeypatch.setattr(Thread, "start", start)
    writer.write(0, memoryview(b"\x05" * (9 * MIB)))
    writer.flush()
    writer.close()
    assert path.read_bytes() == b"\x05" * (9 * MIB)


def test_closing_twice_is_harmless(image: MakeImage) -> None:
    writer = RawFileWriter(image(MIB), MIB)
    writer.close()
    writer.close()
