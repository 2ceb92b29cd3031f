"""Faults that a test can set; from `LabControl.set_fault` and lab.yaml their names begin with `one_`.

| name | arguments | what happens |
|---|---|---|
| `image_stuck` | | a new image stays LOCKED without SOURCE for good, as after a killed frontend |
| `image_error` | `message` | a new image ends in ERROR |
| `prolog` | `message` | a VM's start fails in PROLOG |
| `boot` | `message` | a VM's start fails in BOOT |
| `guest_writes` | `bytes` | a VM that boots writes so much to each of its disks, however the boot ends |
| `unknown_state` | `lcm_state` | a VM that starts shows this LCM_STATE (70) between BOOT and RUNNING |
| `refuse` | `method`, `code`, `message` | the method (`image.update`; any by default) answers this failure |
| `drop` | `method` | the connection is cut before the call is done |
| `drop_answer` | `method` | the call is done, then the connection is cut |
| `slow` | `method`, `seconds` | the answer comes that much later |
| `down` | `seconds` | the frontend answers nothing for so long, from now on |
| `record_wiped` | `vm`, `method` | somebody deletes our attributes at the VM's template, right before the call |
| `record_edited` | `vm`, `method` | somebody puts nonsense into our attributes at its images, right before the call |

Each strikes `times` times (1 unless said, for ever where it is None), after it has let `skip` occasions pass.
"""

import time
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import Any

_KNOWN = {
    "image_stuck", "image_error", "prolog", "boot", "guest_writes", "unknown_state", "refuse", "drop", "drop_answer",
    "slow", "down", "record_wiped", "record_edited",
}  # fmt: skip


@dataclass
class _Fault:
    left: int | None
    skip: int
    arguments: dict[str, Any]


class Faults:
    """The faults that are set; thread-safe."""

    def __init__(self) -> None:
        self._set: dict[str, _Fault] = {}
        self._down_until = 0.0
        self._lock = Lock()
        self.happened: Counter[str] = Counter()
        """By name."""

    def set(self, name: str, *, times: int | None = 1, skip: int = 0, **arguments: Any) -> None:
        """Raises ValueError where there is no such fault."""
        if name not in _KNOWN:
            raise ValueError(f"{name!r} is no fault; there are: {', '.join(sorted(_KNOWN))}")
        with self._lock:
            if name == "down":
                self._down_until = time.monotonic() + float(arguments["seconds"])
            else:
                self._set[name] = _Fault(times, skip, arguments)

    def clear(self) -> None:
        with self._lock:
            self._set.clear()
            self._down_until = 0.0

    @property
    def down(self) -> bool:
        return time.monotonic() < self._down_until

    def strikes(self, name: str, method: str | None = None) -> dict[str, Any] | None:
        """The fault's arguments (there may be none) if it strikes now, and counts it; None otherwise."""
        with self._lock:
            fault = self._set.get(name)
            if not fault or fault.left == 0 or fault.arguments.get("method", method) != method:
                return None
            if fault.skip:
                fault.skip -= 1
                return None
            if fault.left is not None:
                fault.left -= 1
            self.happened[name] += 1
            return fault.arguments
