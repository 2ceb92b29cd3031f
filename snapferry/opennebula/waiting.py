"""Bounded waits for what the frontend does by itself."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from snapferry.errors import Stopped
from snapferry.opennebula.errors import Unreachable

T = TypeVar("T")

FIRST_SECONDS = 0.05
MOST_SECONDS = 1.0


def wait_until(
    read: Callable[[], T], done: Callable[[T], bool], timeout_seconds: float, stop: Event | None = None
) -> tuple[T, bool]:
    """Reads again and again until it is done or the time is over; a frontend that is away meanwhile is waited for.

    Returns:
        What was read last, and whether it is done.

    Raises:
        Stopped: `stop` was set; within a second.
        Unreachable: the frontend didn't answer when the time was over.
    """
    stop = stop or Event()
    deadline = time.monotonic() + timeout_seconds
    pause = FIRST_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            last = read()
        except Unreachable:
            if left <= 0:
                raise
        else:
            if done(last) or left <= 0:
                return last, done(last)
        if stop.wait(min(pause, max(left, 0.01))):
            raise Stopped("The wait for OpenNebula was stopped.", "Start again; what was begun goes on there.")
        pause = min(pause * 2, MOST_SECONDS)
