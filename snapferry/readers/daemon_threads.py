"""Threads for calls that may never return: one that hangs in a dead mount can't be ended, only left behind."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final, ParamSpec, TypeVar

from snapferry.errors import Stopped
from snapferry.readers.errors import DatastoreSilent

ANSWER_SECONDS: Final = 300.0
"""How long a datastore may give no answer. HTTPS gives it up after some 190 s by itself; a mount never does."""
_LOOK_SECONDS: Final = 0.2

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads:
    """Some threads that do what they are given, in its order. None of them holds up the process's exit.

    `ThreadPoolExecutor` waits at exit for every thread that it ever started, also for one that hangs in the kernel.

    Args:
        count: how many calls run at once.
        name: of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended = False
        for number in range(count):
            Thread(target=self._run, name=f"{name}_{number}", daemon=True).start()

    def submit(self, act: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> "Future[T]":
        """Calls `act` on one of the threads, as soon as one is free."""
        future: Future[T] = Future()

        def work() -> None:
            if self._ended or not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(act(*args, **keywords))
            except BaseException as error:  # noqa: BLE001 -- whoever asks for the result is told
                future.set_exception(error)

        self._work.put(work)
        return future

    def end(self, *, drop: bool) -> None:
        """Lets the threads end behind what was given to them; waits for none.

        Args:
            drop: whether what hasn't begun is left undone.
        """
        self._ended = drop
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while work := self._work.get():
            work()


def call_bounded(
    act: Callable[P, T], stop: Event, answers: Callable[[], int], *args: P.args, **keywords: P.kwargs
) -> T:
    """What `act` gives, called on a thread of its own, which is left behind where the datastore falls silent.

    Args:
        answers: as `Folder.answers`.

    Raises:
        Stopped: `stop` was set.
        DatastoreSilent: it didn't end, and for `ANSWER_SECONDS` there was no answer.
    """
    threads = DaemonThreads(1, getattr(act, "__name__", "call"))
    future = threads.submit(act, *args, **keywords)
    threads.end(drop=False)
    return result_of(future, stop, answers, ANSWER_SECONDS)


def result_of(future: "Future[T]", stop: Event, answers: Callable[[], int], within_seconds: float) -> T:
    """What the future gives; it may take as long as the datastore still answers.

    Args:
        answers: as `Folder.answers`.
        within_seconds: how long there may be none.

    Raises:
        Stopped: `stop` was set first.
        DatastoreSilent: there was no answer within that time.
    """
    seen, late = answers(), time.monotonic() + within_seconds
    while not stop.is_set():
        if wait([future], _LOOK_SECONDS).done:
            return future.result()
        if answers() != seen:
            seen, late = answers(), time.monotonic() + within_seconds
        elif time.monotonic() > late:
            raise DatastoreSilent(
                f"The datastore gave no answer within {within_seconds:.0f} s.",
                "Look at its mount (kernel log) or its server.",
            )
    raise Stopped("The read was told to stop.")
