"""One rate for several copies."""

import time
from threading import Event, Lock

from snapferry.errors import Stopped


class RateLimiter:
    """A token bucket that several pumps share; it holds a tenth of a second's bytes.

    Args:
        bytes_per_second: what all of them together may take.
    """

    def __init__(self, bytes_per_second: float) -> None:
        if bytes_per_second <= 0:
            raise ValueError(f"a rate of {bytes_per_second} bytes a second moves nothing")
        self._rate = bytes_per_second
        self._most = bytes_per_second / 10
        self._lock = Lock()
        self._tokens = self._most
        self._filled_at = time.monotonic()

    def take(self, length: int, stop: Event) -> None:
        """Waits until `length` bytes may pass. A block larger than the bucket passes too, and is paid for after it.

        Raises:
            Stopped: `stop` was set, before or while waiting.
        """
        while True:
            if stop.is_set():
                raise Stopped("The copy was told to stop.", "Run it again: it goes on where it was.")
            seconds = self._seconds_to_wait(length)
            if seconds <= 0:
                return
            stop.wait(seconds)

    def _seconds_to_wait(self, length: int) -> float:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now
            if self._tokens < 0:
                return -self._tokens / self._rate
            self._tokens -= length
            return 0.0
