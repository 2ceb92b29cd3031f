"""Which process it is that holds something: told from every other one, also from one that gets its number later."""

import os
import select
import signal
from pathlib import Path
from typing import NamedTuple

END_SECONDS = 20.0
"""How long a killed process may take to end: a write that hangs in the storage holds it up."""


class _Seen(NamedTuple):
    """What /proc/<pid>/stat says; see proc_pid_stat(5)."""

    state: str
    threads: int
    started: int
    """Clock ticks after the boot."""


def this_process() -> str:
    """A name of this process that no other one on any machine ever has: boot, PID namespace, number, start."""
    seen = _look(os.getpid())
    assert seen is not None
    return f"{_system()}:{os.getpid()}:{seen.started}"


def is_here(name: str) -> bool:
    """Whether the name is of a process of this machine, of this boot and PID namespace."""
    return _number_here(name) is not None


def is_gone(name: str) -> bool:
    """Whether the process of that name has ended for certain; False wherever this machine can't know it."""
    number = _number_here(name)
    return number is not None and not _is_it(number, name)


def end(name: str) -> bool:
    """Kills the process of that name and sees it ended, if it is one of this machine and not this one.

    Returns:
        Whether it is gone; False for one of another machine, of another user, or that hangs in the storage.
    """
    number = _number_here(name)
    if number is None or number == os.getpid():
        return False
    try:
        handle = os.pidfd_open(number)
    except ProcessLookupError:
        return True
    try:
        if _is_it(number, name):  # the handle stays with the process that was looked at, whoever gets its number
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], END_SECONDS)
    except PermissionError:
        return False
    finally:
        os.close(handle)
    return is_gone(name)


def _number_here(name: str) -> int | None:
    """The process's number, if it is one of this boot and PID namespace."""
    system, _, rest = name.rpartition(":")[0].rpartition(":")
    return int(rest) if rest.isdigit() and system == _system() else None


def _is_it(number: int, name: str) -> bool:
    """Whether the process of that number is the named one, or may be."""
    seen = _look(number)
    if seen is not None:
        dead = seen.state in "ZX" and seen.threads <= 1  # nobody has waited for it
        return str(seen.started) == name.rpartition(":")[2] and not dead
    try:
        os.kill(number, 0)  # /proc may be mounted so that it hides others' processes
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _look(number: int) -> _Seen | None:
    """What is known of a process; None where there is none, or it is hidden."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text.rpartition(")")[2].split()
    return _Seen(fields[0], int(fields[17]), int(fields[19]))


def _system() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
