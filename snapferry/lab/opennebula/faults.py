"""Faults that a test can set; each strikes `times` times (for ever where `times` is None).

| name | arguments | what happens |
|---|---|---|
| `image_stuck` | `times` | a new image stays LOCKED without SOURCE for good, as after a killed frontend |
| `image_error` | `times`, `message` | a new image ends in ERROR |
| `prolog` | `times`, `message` | a VM's start fails in PROLOG |
| `boot` | `times`, `message` | a VM's start fails in BOOT |
| `unknown_state` | `times`, `lcm_state` | a VM that starts shows this LCM_STATE (70) between BOOT and RUNNING |
| `refuse` | `times`, `method`, `code`, `message` | the method (`image.update`; any by default) answers this failure |
| `drop` | `times`, `method` | the connection is cut before the call is done |
| `drop_answer` | `times`, `method` | the call is done, then the connection is cut |
| `slow` | `times`, `method`, `seconds` | the answer comes that much later |
"""

from dataclasses import dataclass
from threading import Lock
from typing import Any

_KNOWN = {"image_stuck", "image_error", "prolog", "boot", "unknown_state", "refuse", "drop", "drop_answer", "slow"}


@dataclass
class _Fault:
    left: int | None
    arguments: dict[str, Any]


class Faults:
    """The faults that are set; thread-safe."""

    def __init__(self) -> None:
        self._set: dict[str, _Fault] = {}
        self._lock = Lock()

    def set(self, name: str, *, times: int | None = 1, **arguments: Any) -> None:
        """Raises ValueError where there is no such fault."""
        if name not in _KNOWN:
            raise ValueError(f"{name!r} is no fault; there are: {', '.join(sorted(_KNOWN))}")
        with self._lock:
            self._set[name] = _Fault(times, arguments)

    def clear(self) -> None:
        with self._lock:
            self._set.clear()

    def strikes(self, name: str, method: str | None = None) -> dict[str, Any] | None:
        """The fault's arguments (there may be none) if it strikes now, and counts it; None otherwise."""
        with self._lock:
            fault = self._set.get(name)
            if not fault or fault.left == 0 or fault.arguments.get("method", method) != method:
                return None
            if fault.left is not None:
                fault.left -= 1
            return fault.arguments
