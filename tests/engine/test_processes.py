"""A process is known by more than its number, and only what certainly ended counts as gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from snapferry import processes

TELL = "from snapferry import processes; print(processes.this_process(), flush=True); input()"


@pytest.fixture
def other() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process that waits, and its name."""
    command = [sys.executable, "-c", TELL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_process_that_runs_or_is_stopped_isnt_gone(other: tuple["subprocess.Popen[str]", str]) -> None:
    process, name = other
    assert processes.is_here(name) and not processes.is_gone(name)
    process.send_signal(signal.SIGSTOP)
    assert not processes.is_gone(name)
    assert processes.end(name)
    assert processes.is_gone(name)  # nobody has waited for it yet
    assert process.wait() == -signal.SIGKILL
    assert processes.is_gone(name)


def test_who_has_a_dead_process_number_now_is_left_alone(other: tuple["subprocess.Popen[str]", str]) -> None:
    process, name = other
    earlier = f"{name.rpartition(':')[0]}:1"
    assert processes.is_gone(earlier)
    assert processes.end(earlier)
    assert process.poll() is None


def test_of_a_process_elsewhere_nothing_is_known_and_this_one_is_never_ended() -> None:
    mine = processes.this_process()
    for name in ("", f"another-boot:1:{os.getpid()}:1"):
        assert not processes.is_here(name) and not processes.is_gone(name) and not processes.end(name)
    assert not processes.end(mine)
