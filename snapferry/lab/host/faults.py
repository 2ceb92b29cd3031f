"""Faults that a test asks a host for, and the figures that it counts."""

import threading
from collections import Counter
from typing import Any

from snapferry.lab.host.answers import CounterValues
from snapferry.lab.host.errors import HostError

FAULTS = {
    "nfc_allocation": {"times"},  # the next sessions or reads that fail for want of memory
    "nfc_cut": {"after_bytes", "times"},  # connections that are cut once they have sent so many bytes of data
    "nfc_delay": {"seconds"},  # how long each read waits
}


class Faults:
    """The faults that are set. A fault with `times` is spent one by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: dict[str, dict[str, float]] = {}

    def set(self, name: str, arguments: dict[str, Any]) -> None:
        """Sets a fault in place of an earlier one of that name; without `times` it happens once.

        Raises:
            HostError: bad_request: there is no such fault or argument.
        """
        unknown = set(arguments) - FAULTS.get(name, set())
        if name not in FAULTS or unknown:
            raise HostError("bad_request", f"There is no fault {name} with {sorted(arguments)}.")
        with self._lock:
            self._set[name] = {"times": 1, **{key: float(value) for key, value in arguments.items()}}

    def clear(self) -> None:
        with self._lock:
            self._set.clear()

    def take(self, name: str) -> dict[str, float] | None:
        """The fault's arguments if it shall happen now; one of its times is spent."""
        with self._lock:
            fault = self._set.get(name)
            if fault is None or fault["times"] < 1:
                return None
            fault["times"] -= 1
            return fault

    def value(self, name: str, argument: str) -> float:
        """An argument of a fault that stays until it is cleared; 0 where it isn't set."""
        with self._lock:
            return self._set.get(name, {}).get(argument, 0)


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

    def values(self) -> CounterValues:
        with self._lock:
            return {"nfc_bytes": dict(self._bytes), "connections": self._connections, "requests": self._requests}
