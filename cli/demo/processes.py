"""The demo's processes: each carries the demo's folder in its environment, by which it is found and ended.

So nothing outlives the demo, whoever started it: a flow run's process is a child of the worker, not of the demo.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from snapferry.errors import SnapferryError

MARK = "SNAPFERRY_DEMO"
TERM_SECONDS = 10.0
KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.2


class DemoFailed(SnapferryError):
    """A part of the demo didn't start."""


class Processes:
    """Starts the demo's processes, and ends all of them when the context does.

    A guard, a process that waits on a pipe from this one, does so where this process is killed.

    Args:
        folder: the demo's folder; logs lie in it.
        environment: for every process; `SNAPFERRY_DEMO` is added.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, MARK: str(folder)}
        self._guard: subprocess.Popen[bytes] | None = None
        self._kept = False
        self.one_ended = Event()
        """Set where a process ended that should run as long as the demo."""
        self.ended: list[str] = []
        """Names of those that ended."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "snapferry.cli.demo.guard", str(self._folder)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._guard is not None
        self._guard.communicate(b"keep" if self._kept else b"", timeout=TERM_SECONDS + KILL_SECONDS + 5)

    def keep(self) -> None:
        """Lets everything stay up at the end."""
        self._kept = True

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Starts a process of this Python's environment; its output goes to `<name>.log`."""
        log = os.open(self._folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo alone
            )
        Thread(target=self._watch, args=(name, process), daemon=True).start()
        return process

    def _watch(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        self.ended.append(name)
        self.one_ended.set()

    def wait_for(self, name: str, process: "subprocess.Popen[bytes]", ready: Callable[[], bool], seconds: int) -> None:
        """Waits until `ready`.

        Raises:
            DemoFailed: the process ended, or wasn't ready in time.
        """
        for _ in range(round(seconds / _LOOK_SECONDS)):
            if ready():
                return
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(_LOOK_SECONDS)
                raise DemoFailed(f"The {name} ended with status {status}.", f"See {self._folder / name}.log.")
        raise DemoFailed(f"The {name} wasn't ready in {seconds} s.", f"See {self._folder / name}.log.")


def answers(url: str) -> bool:
    """Whether an address on loopback answers with 200."""
    try:
        with urlopen(url, timeout=2) as reply:  # noqa: S310 - the demo's own server
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def end_all(folder: Path) -> int:
    """Ends every process of the demo in this folder; returns how many there were.

    Raises:
        DemoFailed: one of them can't be ended.
    """
    ended = 0
    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        found = find_all(folder)
        ended = max(ended, len(found))
        for handle in found.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
        _wait_ended(list(found.values()), seconds)
    left = find_all(folder)
    _close(list(left.values()))
    if left:
        raise DemoFailed(f"Processes {', '.join(map(str, left))} can't be ended.", "End them by hand.")
    return ended


def find_all(folder: Path) -> dict[int, int]:
    """A handle (pidfd) of each process that carries the demo's mark, by process id; the caller closes them."""
    mark = f"{MARK}={folder}\0".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            handle = os.pidfd_open(int(entry.name))
        except OSError:
            continue  # it has ended
        try:
            ours = mark in (entry / "environ").read_bytes()
        except OSError:
            ours = False  # it has ended, or is another user's
        if ours:
            found[int(entry.name)] = handle
        else:
            os.close(handle)
    return found


def _wait_ended(handles: list[int], seconds: float) -> None:
    """Waits until every process has ended, or the time is over; closes the handles."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    left = set(handles)
    while left:
        ended = poll.poll(seconds * 1000)
        if not ended:
            break
        for handle, _ in ended:
            poll.unregister(handle)
            left.discard(handle)
    _close(handles)


def _close(handles: list[int]) -> None:
    for handle in handles:
        os.close(handle)
