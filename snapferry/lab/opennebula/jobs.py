"""What the frontend does by itself a moment later: one clock, a few workers."""

import heapq
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Condition, Thread
from time import monotonic

_log = logging.getLogger(__name__)


class Jobs:
    """Runs actions after a delay, each in a worker thread. An action that raises is kept in `failures`."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._change = Condition()
        self._ended = False
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="one-job")
        self._clock = Thread(target=self._run, name="one-clock", daemon=True)

    def start(self) -> None:
        self._clock.start()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        with self._change:
            heapq.heappush(self._due, (monotonic() + seconds, next(self._number), action))
            self._change.notify()

    def stop(self) -> None:
        """Forgets what isn't due yet and waits for what runs."""
        with self._change:
            self._ended = True
            self._due.clear()
            self._change.notify()
        if self._clock.is_alive():
            self._clock.join()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        with self._change:
            while not self._ended:
                if not self._due:
                    self._change.wait()
                elif (left := self._due[0][0] - monotonic()) > 0:
                    self._change.wait(left)
                else:
                    self._workers.submit(self._guarded, heapq.heappop(self._due)[2])

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 -- kept for Frontend.stop to raise
            _log.exception("the simulated OpenNebula failed by itself")
            self.failures.append(error)
