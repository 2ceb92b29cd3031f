"""Whatever ends the demo, nothing of it stays up."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snapferry.cli.demo.processes import DemoFailed, Processes, end_all, find_all

SLEEPER = "import signal; print('up', flush=True); signal.pause()"
FAMILY = (
    "import subprocess, sys, signal\n"
    f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)\n"
    "signal.pause()\n"
)


def write_module(folder: Path, text: str) -> None:
    (folder / "thing.py").write_text(text)


def ups(folder: Path) -> bool:
    return (folder / "thing.log").read_text().count("up") == 1


def ended(handle: int, seconds: float = 20) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def pids(folder: Path) -> set[int]:
    found = find_all(folder)
    for handle in found.values():
        os.close(handle)
    return set(found)


def test_a_grandchild_in_a_session_of_its_own_ends_with_the_demo(tmp_path: Path) -> None:
    write_module(tmp_path, FAMILY)
    with Processes(tmp_path, os.environ) as processes:
        process = processes.start("thing", "thing")
        processes.wait_for("thing", process, lambda: ups(tmp_path), 20)
        assert len(pids(tmp_path)) == 2
    process.wait(20)
    assert pids(tmp_path) == set()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.cli.demo.processes.TERM_SECONDS", 0.3)
    write_module(tmp_path, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}")
    with Processes(tmp_path, os.environ) as processes:
        process = processes.start("thing", "thing")
        processes.wait_for("thing", process, lambda: ups(tmp_path), 20)
        assert end_all(tmp_path) == 1
        assert process.wait(20) == -signal.SIGKILL


def test_what_is_kept_stays_up_until_it_is_stopped(tmp_path: Path) -> None:
    write_module(tmp_path, SLEEPER)
    with Processes(tmp_path, os.environ) as processes:
        process = processes.start("thing", "thing")
        processes.wait_for("thing", process, lambda: ups(tmp_path), 20)
        processes.keep()
    assert process.poll() is None
    assert end_all(tmp_path) == 1
    assert process.wait(20) == -signal.SIGTERM
    assert end_all(tmp_path) == 0


def test_another_folders_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write_module(tmp_path / "one", SLEEPER)
    with Processes(tmp_path / "one", os.environ) as processes:
        process = processes.start("thing", "thing")
        processes.wait_for("thing", process, lambda: ups(tmp_path / "one"), 20)
        assert end_all(tmp_path) == 0
        assert process.poll() is None


def test_everything_ends_when_the_demo_itself_is_killed(tmp_path: Path) -> None:
    write_module(tmp_path, FAMILY)
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from snapferry.cli.demo.processes import Processes\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with Processes(folder, os.environ) as processes:\n"
        "    process = processes.start('thing', 'thing')\n"
        "    processes.wait_for('thing', process, lambda: 'up' in (folder / 'thing.log').read_text(), 20)\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert demo.stdout and demo.stdout.readline() == b"ready\n"
    handles = find_all(tmp_path)
    assert len(handles) == 2
    demo.kill()
    demo.wait(20)
    assert all(ended(handle) for handle in handles.values())
    for handle in handles.values():
        os.close(handle)


def test_a_part_that_ends_at_once_is_named_with_its_log(tmp_path: Path) -> None:
    write_module(tmp_path, "raise SystemExit(7)")
    with Processes(tmp_path, os.environ) as processes:
        process = processes.start("thing", "thing")
        with pytest.raises(DemoFailed, match=r"status 7.*thing\.log"):
            processes.wait_for("thing", process, lambda: False, 20)


def test_logs_are_for_their_owner_alone(tmp_path: Path) -> None:
    write_module(tmp_path, "")
    with Processes(tmp_path, os.environ) as processes:
        processes.start("thing", "thing").wait(20)
    assert (tmp_path / "thing.log").stat().st_mode & 0o777 == 0o600
