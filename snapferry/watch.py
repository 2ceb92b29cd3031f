"""How long work tells of itself, and how it is told to stop."""

import time
from collections.abc import Callable
from threading import Event, Lock

from snapferry.plan import Frozen

UPDATE_SECONDS = 0.5


class DiskProgress(Frozen):
    """How far the copy of one disk is."""

    key: int
    label: str
    done_bytes: int
    total_bytes: int
    bytes_per_second: float
    seconds_left: float | None
    """None while there is no rate yet."""


class Watch:
    """What the engine calls while it works.

    Args:
        stop: set by anybody who wants the work to end; the engine then raises `Stopped` within a second.
        on_step: gets each step's name and a detail.
        on_disk: gets each disk's progress, at most every half second and once at its end.
    """

    def __init__(
        self,
        stop: Event | None = None,
        on_step: Callable[[str, str], None] | None = None,
        on_disk: Callable[[DiskProgress], None] | None = None,
    ) -> None:
        self.stop = stop or Event()
        self._on_step = on_step
        self._on_disk = on_disk

    def step(self, name: str, detail: str = "") -> None:
        """Says that a step begins."""
        if self._on_step:
            self._on_step(name, detail)

    def until(self, stop: Event) -> "Watch":
        """One that tells the same and ends by an event of its own."""
        return Watch(stop, self._on_step, self._on_disk)

    def disk(self, key: int, label: str, total_bytes: int) -> "DiskMeter":
        """A meter for one disk's copy; call it with each number of bytes done."""
        return DiskMeter(self._on_disk, key, label, total_bytes)


class DiskMeter:
    """Adds bytes up and passes a `DiskProgress` on, at most every half second."""

    def __init__(self, tell: Callable[[DiskProgress], None] | None, key: int, label: str, total_bytes: int) -> None:
        self._tell = tell
        self._key = key
        self._label = label
        self._total = total_bytes
        self._done = 0
        self._started = self._told = time.monotonic()
        self._lock = Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if not self._tell or (now - self._told < UPDATE_SECONDS and self._done < self._total):
                return
            self._told = now
            elapsed = now - self._started
            rate = self._done / elapsed if elapsed > 0 else 0.0
            progress = DiskProgress(
                key=self._key,
                label=self._label,
                done_bytes=self._done,
                total_bytes=self._total,
                bytes_per_second=rate,
                seconds_left=(self._total - self._done) / rate if rate else None,
            )
        self._tell(progress)
