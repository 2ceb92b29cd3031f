"""Faults on demand, and the host's errors as vSphere names them."""

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from pyVmomi import vim, vmodl

from snapferry.lab.host.errors import HostError


class _Armed(NamedTuple):
    name: str
    arguments: Mapping[str, Any]


class Faults:
    """What shall go wrong.

    | name | what happens | arguments |
    |---|---|---|
    | `method` | the call fails at once | `method`, `fault` (`FileFault`), `message` |
    | `task` | the method's task ends with the fault | `method`, `fault`, `message` |
    | `slow_task` | the method's task takes longer | `method`, `seconds` |
    | `drop` | the connection closes, before the call is carried out or after | `method`, `when` (`before`, `after`) |
    | `consolidation` | a snapshot's removal leaves its files behind | `vm` |
    | `shutdown_hangs` | the guest ignores the request to shut down | `vm` |

    Each happens `times` times (1 unless said); an argument that isn't given matches everything.
    """

    NAMES = frozenset({"method", "task", "slow_task", "drop", "consolidation", "shutdown_hangs"})

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()

    def set(self, name: str, arguments: Mapping[str, Any]) -> None:
        times = int(arguments.get("times", 1))
        with self._lock:
            self._armed += [_Armed(name, arguments)] * times

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def take(self, fault: str, **where: str) -> Mapping[str, Any] | None:
        """The arguments of an armed fault that matches, used up by this; None if there is none."""
        with self._lock:
            for armed in self._armed:
                fits = all(armed.arguments.get(key, value) == value for key, value in where.items())
                if armed.name == fault and fits:
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
