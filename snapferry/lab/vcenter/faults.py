"""Faults on demand, and the host's errors as vSphere names them."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from snapferry.lab.host.errors import HostError

_CALL = {"method", "times", "skip"}
_VM = {"vm", "times", "skip"}


@dataclass
class _Armed:
    name: str
    arguments: Mapping[str, Any]
    left: int
    skip: int


class Faults:
    """What shall go wrong at vCenter.

    | name | arguments | what happens |
    |---|---|---|
    | `method` | `method`, `fault` (`FileFault`), `message` | the call fails at once |
    | `task` | `method`, `vm`, `fault`, `message` | the method's task ends with the fault |
    | `slow_task` | `method`, `vm`, `seconds` | the method's task takes longer |
    | `slow` | `method`, `seconds` | the answer comes later |
    | `drop` | `method`, `when` (`before`, `after`) | the connection closes, before the call is carried out or after |
    | `session` | `method` | the caller's session has expired |
    | `consolidation` | `vm` | a snapshot's removal leaves its files behind |
    | `lease_slow` | `vm`, `seconds` | an export lease takes so long to get ready |
    | `lease_fails` | `vm`, `fault`, `message` | an export lease ends with the fault instead of getting ready |
    | `lease_expires` | `vm` | an export lease has timed out when its holder reports progress |
    | `lease_star` | `vm` | an export lease's addresses have `*` for the host's name, as a lone host gives them |
    | `folder_session` | | the session of a request below `/folder` has expired |
    | `folder_status` | `status` (503) | a request below `/folder` is answered with this status |
    | `folder_cut` | `after_bytes` | an answer of over 100 kB below `/folder` ends early |
    | `folder_stall` | `seconds` (60) | an answer below `/folder` pauses behind its head |
    | `shutdown_hangs` | `vm` | the guest ignores the request to shut down |

    Quiescing that fails, missing Tools, a task in progress, a datastore without room for a snapshot are `task` and
    `method` with `ApplicationQuiesceFault`, `ToolsUnavailable`, `TaskInProgress`, `NoDiskSpace`. What somebody else
    does to a VM is in `acts.py`; an act with a `method` waits here until that is called.

    Each happens `times` times (1 unless said), after it has let `skip` occasions pass; an argument that isn't given
    matches everything.
    """

    ARGUMENTS: Mapping[str, set[str]] = {
        "method": _CALL | {"fault", "message"},
        "task": _CALL | {"vm", "fault", "message"},
        "slow_task": _CALL | {"vm", "seconds"},
        "slow": _CALL | {"seconds"},
        "drop": _CALL | {"when"},
        "session": _CALL,
        "consolidation": _VM,
        "lease_slow": _VM | {"seconds"},
        "lease_fails": _VM | {"fault", "message"},
        "lease_expires": _VM,
        "lease_star": _VM,
        "folder_session": {"times", "skip"},
        "folder_status": {"times", "skip", "status"},
        "folder_cut": {"times", "skip", "after_bytes"},
        "folder_stall": {"times", "skip", "seconds"},
        "shutdown_hangs": _VM,
    }

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self.happened: Counter[str] = Counter()
        """By name; acts that happened when they were set aren't counted."""
        self._lock = threading.Lock()

    def set(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Raises ValueError for an argument that the fault doesn't have."""
        unknown = set(arguments) - self.ARGUMENTS.get(name, set(arguments))
        if unknown:
            raise ValueError(f"the fault {name} has no {', '.join(sorted(unknown))}")
        armed = _Armed(name, arguments, int(arguments.get("times", 1)), int(arguments.get("skip", 0)))
        with self._lock:
            self._armed.append(armed)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def take(self, fault: str, **where: str) -> Mapping[str, Any] | None:
        """The arguments of an armed fault that matches, used up by this; None if there is none."""
        with self._lock:
            for armed in self._armed:
                fits = all(armed.arguments.get(key, value) == value for key, value in where.items())
                if armed.name != fault or not fits:
                    continue
                if armed.skip:
                    armed.skip -= 1
                    continue
                armed.left -= 1
                self.happened[fault] += 1
                if armed.left <= 0:
                    self._armed.remove(armed)
                return armed.arguments
        return None


def make_fault(name: str, message: str) -> Any:
    """A vSphere fault by its name, such as `TaskInProgress`."""
    for module in (vim.fault, vmodl.fault):
        kind = getattr(module, name, None)
        if kind is not None:
            return kind(msg=message or f"The operation failed: {name}.")
    raise ValueError(f"there is no vSphere fault {name!r}")


def invalid_argument(name: str) -> Any:
    """InvalidArgument as vCenter words it."""
    return vmodl.fault.InvalidArgument(invalidProperty=name, msg=f"A specified parameter was not correct: {name}")


def fault_of_host(error: HostError) -> Any:
    """The vSphere fault for what a host reported."""
    if error.kind == "file_fault":
        return vim.fault.FileFault(file=error.cause, msg=f"Error caused by file {error.cause}")
    if error.kind == "invalid_device_key":
        return invalid_argument("deviceKey")
    if error.kind == "invalid_start":
        return invalid_argument("startOffset")
    return vmodl.fault.SystemError(reason=error.cause, msg=f"A general system error occurred: {error.cause}")
