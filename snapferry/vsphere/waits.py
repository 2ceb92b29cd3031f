"""Waiting for vCenter: told by its property collector, always with an end."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pyVmomi import vim, vmodl

from snapferry.errors import SnapferryError, SourceError, Stopped
from snapferry.vsphere import faults
from snapferry.vsphere.errors import NotInTime, OtherTaskRuns, TaskFailed

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20
"""The longest that one question may stay unanswered; below any proxy's and our own timeout."""
PAUSE_SECONDS = 1.0
"""Before a task is started again that another one was in the way of."""

Values = dict[str, Any]
T = TypeVar("T")


class Watched(NamedTuple):
    """What to watch: properties of one object."""

    kind: Any
    moref: str
    paths: Sequence[str]


def wait_for(
    session: "Session",
    watched: Watched,
    until: Callable[[Values], bool],
    timeout_seconds: float,
    what: str,
    stop: Event | None = None,
) -> Values:
    """Waits until the object's properties are as wanted, and returns them.

    Each wait has a property collector of its own, because updates are handed out once a collector; it is made anew
    where the login was renewed meanwhile.

    Raises:
        NotInTime: they weren't within the time.
        Stopped: `stop` was set; within two seconds.
        VmGone, SnapshotGone, SourceError: the object is gone, or the call failed.
    """
    deadline = time.monotonic() + timeout_seconds
    longest = 1.0 if stop is not None else min(LONG_POLL_SECONDS, session.login.timeout_seconds / 2)
    watch = _Watch(session, watched, what)
    try:
        while True:
            if stop is not None and stop.is_set():
                raise Stopped(f"Told to stop while waiting to {what}.", "Run it again.")
            left = deadline - time.monotonic()
            values = watch.poll(max(0.0, min(longest, left)))
            if values is not None and until(values):
                return values
            if left <= 0:
                raise NotInTime(
                    f"vCenter didn't {what} within {timeout_seconds:g} s.",
                    "It may still do so: look at the object's recent tasks in vCenter.",
                )
    finally:
        watch.close()


def wait_for_task(session: "Session", task: Any, timeout_seconds: float, what: str) -> Any:
    """Waits for a task and returns its result. Raises TaskFailed, NotInTime, OtherTaskRuns, or the named fault."""
    ended = (vim.TaskInfo.State.success, vim.TaskInfo.State.error)
    watched = Watched(vim.Task, task._moId, ["info"])
    values = wait_for(
        session, watched, lambda seen: "info" in seen and seen["info"].state in ended, timeout_seconds, what
    )
    info = values["info"]
    if info.state == vim.TaskInfo.State.error:
        raise faults.named(what, info.error, session.name_of, TaskFailed) from info.error
    return info.result


def run_task(session: "Session", what: str, start: Callable[[], Any], timeout_seconds: float) -> Any:
    """Starts a task and waits for it; where another task works on the object, waits for that one first.

    Args:
        start: makes the call that returns the task; called again only after vCenter said that it did nothing.
    """
    deadline = time.monotonic() + timeout_seconds

    def run() -> Any:
        task = session.call(what, start)
        return wait_for_task(session, task, max(0.0, deadline - time.monotonic()), what)

    return when_free(session, run, timeout_seconds)


def when_free(session: "Session", act: Callable[[], T], timeout_seconds: float) -> T:
    """Acts, and again each time that another task that was in the way has ended.

    Raises:
        OtherTaskRuns: there is still one after the time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return act()
        except OtherTaskRuns as busy:
            if time.monotonic() >= deadline:
                raise
            Event().wait(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
            let_end(session, getattr(busy.__cause__, "task", None), deadline)


def let_end(session: "Session", task: Any, deadline: float) -> None:
    """Waits for somebody else's task, whatever its outcome; `deadline` is of `time.monotonic`. Raises NotInTime."""
    if task is None:
        return
    try:
        wait_for_task(session, task, max(0.0, deadline - time.monotonic()), "end another task")
    except NotInTime:
        raise
    except SourceError as error:
        log.info("Another task ended: %s", error.cause)


class _Watch:
    """A property collector with one filter, made on first use and made again when its login is gone."""

    def __init__(self, session: "Session", watched: Watched, what: str) -> None:
        self._session = session
        self._watched = watched
        self._what = what
        self._collector: Any = None
        self._version = ""
        self._values: Values = {}

    def poll(self, seconds: float) -> Values | None:
        """All values known so far if something changed within the time, else None."""
        return self._session.call(self._what, lambda: self._poll(seconds), repeatable=True)

    def close(self) -> None:
        """Removes the collector; one that is left goes with its login."""
        if self._collector is not None:
            try:
                self._session.call("end a wait", self._collector.DestroyPropertyCollector)
            except SnapferryError as error:
                log.debug("A property collector is left to its login's end: %s", error.cause)

    def _poll(self, seconds: float) -> Values | None:
        try:
            if self._collector is None:
                self._collector = self._collect()
            options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=math.ceil(seconds))
            update = self._collector.WaitForUpdatesEx(self._version, options)
        except (vmodl.query.InvalidCollectorVersion, vmodl.fault.RequestCanceled):
            self._collector, self._version = None, ""
            return None
        except vmodl.fault.ManagedObjectNotFound as fault:
            if fault.obj is not None and fault.obj._moId == self._watched.moref:
                raise
            self._collector, self._version = None, ""
            return None
        return self._take(update) if update is not None and update.filterSet else None

    def _collect(self) -> Any:
        kind, moref, paths = self._watched
        collector = self._session.content.propertyCollector.CreatePropertyCollector()
        query = vmodl.query.PropertyCollector
        collector.CreateFilter(
            query.FilterSpec(
                objectSet=[query.ObjectSpec(obj=self._session.bind(kind, moref))],
                propSet=[query.PropertySpec(type=kind, pathSet=list(paths))],
            ),
            False,
        )
        return collector

    def _take(self, update: Any) -> Values:
        for filtered in update.filterSet:
            for changed in filtered.objectSet or ():
                if changed.kind == "leave":
                    raise vmodl.fault.ManagedObjectNotFound(obj=changed.obj)
                for change in changed.changeSet or ():
                    self._values[change.name] = change.val
        self._version = update.version
        return self._values
