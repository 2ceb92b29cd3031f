"""The property collector's waits: filters, and what changed since a version."""

import time
from collections.abc import Iterator
from typing import Any

from pyVmomi import vmodl

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.properties import PC, paths_of, select
from snapferry.lab.vcenter.sessions import Session
from snapferry.lab.vcenter.store import Store


class Filter:
    """One PropertyFilter, and what it has told so far."""

    def __init__(self, mo: Any, spec: Any) -> None:
        self.mo = mo
        self.spec = spec
        self._told: dict[str, tuple[Any, int | None, dict[str, str]]] = {}

    def forget(self) -> None:
        """The next update tells everything again."""
        self._told.clear()

    def updates(self, store: Store) -> list[Any]:
        """Objects that came, changed or went since the last call."""
        found: list[Any] = []
        present = {mo._moId: mo for spec in self.spec.objectSet for mo in self._selected(store, spec)}
        for moref, mo in present.items():
            found += self._changes(store, moref, mo)
        for moref in [m for m in self._told if m not in present]:
            found.append(PC.ObjectUpdate(kind="leave", obj=self._told.pop(moref)[0]))
        return found

    def _selected(self, store: Store, spec: Any) -> Iterator[Any]:
        if store.find(spec.obj._moId) is None:
            return iter(())
        return (mo for mo in select(store, spec) if any(isinstance(mo, p.type) for p in self.spec.propSet))

    def _changes(self, store: Store, moref: str, mo: Any) -> Iterator[Any]:
        _, told_version, told = self._told.get(moref, (mo, None, {}))
        version = store.version_of(mo)
        if version is None or version == told_version:
            return
        now = {path: store.read(mo, path) for path in paths_of(store, mo, self.spec)}
        prints = {path: repr(value) for path, value in now.items() if value is not None}
        changes = [
            PC.Change(name=path, op="assign", val=now.get(path))
            for path in {**told, **prints}
            if prints.get(path) != told.get(path)
        ]
        self._told[moref] = (mo, version, prints)
        if changes or told_version is None:
            yield PC.ObjectUpdate(kind="enter" if told_version is None else "modify", obj=mo, changeSet=changes)


class Collector:
    """One property collector of a session with its filters."""

    def __init__(self, mo: Any) -> None:
        self.mo = mo
        self.filters: dict[str, Filter] = {}
        self.version = 0
        self.cancelled = 0

    def next_update(self, store: Store, version: str) -> Any | None:
        """What changed since `version`; an older version than the last one is told everything. None: nothing."""
        if version != str(self.version):
            for one in list(self.filters.values()):
                one.forget()
        updates = []
        for one in list(self.filters.values()):
            objects = one.updates(store)
            if objects:
                updates.append(PC.FilterUpdate(filter=one.mo, objectSet=objects))
        if not updates:
            return None
        self.version += 1
        return PC.UpdateSet(version=str(self.version), filterSet=updates, truncated=False)


def _collector(session: Session, mo: Any) -> Collector:
    """The session's collector of that id; each session has a default one behind the one name that all use."""
    owned = session.owned.get(mo._moId)
    if isinstance(owned, Collector):
        return owned
    if session.default_collector is None:
        session.default_collector = Collector(mo)
    default: Collector = session.default_collector
    return default


@answers("CreatePropertyCollector")
def _create_collector(call: Call) -> Any:
    store = call.vcenter.store
    mo = PC(f"session[{call.user.key}]{store.next_id('collector')}")
    call.user.owned[mo._moId] = Collector(mo)
    return store.add(mo)


@answers("DestroyPropertyCollector")
def _destroy_collector(call: Call) -> None:
    for one in _collector(call.user, call.this).filters.values():
        call.vcenter.store.remove(one.mo)
    call.user.owned.pop(call.this._moId)
    call.vcenter.store.remove(call.this)


@answers("CreateFilter")
def _create_filter(call: Call) -> Any:
    store, spec = call.vcenter.store, call.arguments["spec"]
    for wanted in spec.objectSet:
        store.names(wanted.obj)  # raises ManagedObjectNotFound
    mo = PC.Filter(f"session[{call.user.key}]{store.next_id('filter')}")
    made = Filter(mo, spec)
    _collector(call.user, call.this).filters[mo._moId] = made
    call.user.owned[mo._moId] = made
    return store.add(mo, spec=spec, partialUpdates=call.get("partialUpdates", False))


@answers("DestroyPropertyFilter")
def _destroy_filter(call: Call) -> None:
    for owned in [call.user.default_collector, *call.user.owned.values()]:
        if isinstance(owned, Collector):
            owned.filters.pop(call.this._moId, None)
    call.user.owned.pop(call.this._moId, None)
    call.vcenter.store.remove(call.this)


@answers("WaitForUpdatesEx")
def _wait_bounded(call: Call) -> Any:
    options = call.get("options")
    return _wait(call, options.maxWaitSeconds if options else None)


@answers("WaitForUpdates")
def _wait_for_ever(call: Call) -> Any:
    return _wait(call, None)


@answers("CheckForUpdates")
def _check(call: Call) -> Any:
    return _wait(call, 0)


@answers("CancelWaitForUpdates")
def _cancel(call: Call) -> None:
    _collector(call.user, call.this).cancelled += 1
    with call.vcenter.store.condition:
        call.vcenter.store.condition.notify_all()


def _wait(call: Call, seconds: float | None) -> Any:
    """Waits for an update, at most `seconds`; without a bound until the session or the lab ends."""
    store, collector = call.vcenter.store, _collector(call.user, call.this)
    version = call.get("version", "")
    if version and not version.isdecimal():
        raise vmodl.query.InvalidCollectorVersion(msg=f"Invalid version: {version}")
    cancelled = collector.cancelled
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        seen = store.version
        update = collector.next_update(store, version)
        if update is not None:
            return update
        version = str(collector.version)
        with store.condition:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            while store.version == seen and not _over(call, collector, cancelled):
                if not store.condition.wait(left):
                    break
                left = None if deadline is None else deadline - time.monotonic()
        if _over(call, collector, cancelled):
            raise vmodl.fault.RequestCanceled(msg="The task was canceled by a user.")
        call.user.last_active = time.monotonic()


def _over(call: Call, collector: Collector, cancelled: int) -> bool:
    return call.user.ended or call.vcenter.stopping or collector.cancelled != cancelled
