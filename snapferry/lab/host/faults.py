"""Faults that a test asks a host for, and the figures that it counts.

| name | arguments | what happens |
|---|---|---|
| `nfc_connect` | | a connection is closed before a word is said |
| `nfc_ticket` | | a ticket is refused, as one that was used or has expired |
| `nfc_allocation` | | a session fails for want of buffer memory |
| `nfc_open` | | a disk isn't opened, as one that somebody holds |
| `nfc_read` | | a read fails |
| `nfc_cut` | `after_bytes` | a connection is cut in mid-fragment once it has sent so many bytes of data |
| `nfc_stall` | `after_bytes`, `seconds` | a connection that has sent so much is silent for so long |
| `nfc_delay` | `seconds` | each read waits; stays |
| `export_denied` | | a download of a lease is refused |
| `export_cut` | `after_bytes` | a download is cut inside a piece once so much was sent |
| `export_stall` | `after_bytes`, `seconds` | a download that has sent so much is silent for so long |
| `export_corrupt` | | a bit of a download's first grain is turned |
| `export_delay` | `seconds` | a download waits before each piece; stays |
| `leaf_busy` | `seconds` | a leaf can't be opened for so long after power-off; stays |
| `false_changes` | `blocks` | each change query names so many blocks too many on each disk, as after unmaps; stays |
| `datastore_full` | `free_bytes` | so much is free from now on; a VM whose deltas have eaten it is paused; stays |

Each strikes `times` times (1 unless said), after it has let `skip` occasions pass; one that stays lasts until the
faults are cleared.
"""

import threading
from collections import Counter
from typing import Any

from snapferry.lab.host.answers import CounterValues
from snapferry.lab.host.errors import HostError

_STRIKING: dict[str, set[str]] = {
    "nfc_connect": set(),
    "nfc_ticket": set(),
    "nfc_allocation": set(),
    "nfc_open": set(),
    "nfc_read": set(),
    "nfc_cut": {"after_bytes"},
    "nfc_stall": {"after_bytes", "seconds"},
    "export_denied": set(),
    "export_cut": {"after_bytes"},
    "export_stall": {"after_bytes", "seconds"},
    "export_corrupt": set(),
}
_STAYING = {
    "nfc_delay": {"seconds"},
    "export_delay": {"seconds"},
    "leaf_busy": {"seconds"},
    "false_changes": {"blocks"},
    "datastore_full": {"free_bytes"},
}
FAULTS = {name: allowed | {"times", "skip"} for name, allowed in _STRIKING.items()} | _STAYING
"""Every fault and its arguments."""


class Faults:
    """The faults that are set. One that strikes is spent one by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: dict[str, dict[str, float]] = {}
        self._happened: Counter[str] = Counter()

    def set(self, name: str, arguments: dict[str, Any]) -> None:
        """Sets a fault in place of an earlier one of that name.

        Raises:
            HostError: bad_request: there is no such fault or argument.
        """
        unknown = set(arguments) - FAULTS.get(name, set())
        if name not in FAULTS or unknown:
            raise HostError("bad_request", f"There is no fault {name} with {sorted(arguments)}.")
        with self._lock:
            self._set[name] = {"times": 1, "skip": 0, **{key: float(value) for key, value in arguments.items()}}

    def clear(self) -> None:
        with self._lock:
            self._set.clear()

    def take(self, name: str) -> dict[str, float] | None:
        """The fault's arguments if it shall happen now; one of its times is spent."""
        with self._lock:
            fault = self._set.get(name)
            if fault is None or fault["times"] < 1:
                return None
            spent = "skip" if fault["skip"] >= 1 else "times"
            fault[spent] -= 1
            if spent == "skip":
                return None
            self._happened[name] += 1
            return fault

    def happened(self) -> dict[str, int]:
        """How often each fault struck; those that stay until they are cleared aren't counted."""
        with self._lock:
            return dict(self._happened)

    def value(self, name: str, argument: str) -> float | None:
        """An argument of a fault that stays until it is cleared; None where it isn't set."""
        with self._lock:
            return self._set.get(name, {}).get(argument)


class Counters:
    """What the host served since it started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()
        self._connections = 0
        self._requests = 0

    def connection(self) -> None:
        with self._lock:
            self._connections += 1

    def request(self) -> None:
        with self._lock:
            self._requests += 1

    def sent(self, label: str, length: int) -> None:
        with self._lock:
            self._bytes[label] += length

    def values(self, faults: dict[str, int]) -> CounterValues:
        """All counts, with how often each fault struck."""
        with self._lock:
            return {
                "nfc_bytes": dict(self._bytes),
                "connections": self._connections,
                "requests": self._requests,
                "faults": faults,
            }
