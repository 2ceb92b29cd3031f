"""Events, and the queries for them."""

import threading
from datetime import UTC, datetime
from typing import Any

from pyVmomi import VmomiSupport, vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.soap import complete
from snapferry.lab.vcenter.store import Store

QUERY_LIMIT = 1000
"""QueryEvents gives no more; collectors page through everything."""


class Events:
    """Everything that happened, oldest first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._events: list[Any] = []
        self._lock = threading.Lock()

    def post(self, kind: Any, user: str, text: str, vm: Any | None = None, **fields: Any) -> None:
        """Adds an event of a type such as `vim.event.VmPoweredOnEvent`; `vm` is its subject."""
        event = kind(createdTime=datetime.now(UTC), userName=user, fullFormattedMessage=text, **fields)
        if vm is not None:
            host = self._store.get(vm, "runtime").host
            event.vm = vim.event.VmEventArgument(vm=vm, name=self._store.get(vm, "name"))
            event.host = vim.event.HostEventArgument(host=host, name=self._store.get(host, "name"))
        with self._lock:
            event.key = event.chainId = len(self._events) + 1
            self._events.append(complete(event))

    def latest(self) -> Any | None:
        return self._events[-1] if self._events else None

    def matching(self, wanted: Any) -> list[Any]:
        """The events that fit an EventFilterSpec, oldest first."""
        return [event for event in list(self._events) if self._fits(event, wanted)]

    def _fits(self, event: Any, wanted: Any) -> bool:
        begin = wanted.time and wanted.time.beginTime
        end = wanted.time and wanted.time.endTime
        if (begin and event.createdTime < begin) or (end and event.createdTime > end):
            return False
        if wanted.eventTypeId and not _is_of_type(event, wanted.eventTypeId):
            return False
        if wanted.type and not isinstance(event, tuple(wanted.type)):
            return False
        if wanted.eventChainId and event.chainId != wanted.eventChainId:
            return False
        if wanted.userName and wanted.userName.userList and event.userName not in wanted.userName.userList:
            return False
        return wanted.entity is None or self._concerns(event, wanted.entity)

    def _concerns(self, event: Any, by_entity: Any) -> bool:
        subject = event.vm.vm if event.vm else None
        if by_entity.recursion == "self":
            return bool(subject == by_entity.entity)
        while subject is not None and self._store.find(subject._moId):
            subject = self._store.get(subject, "parent")
            if subject == by_entity.entity:
                return True
        return bool(by_entity.recursion == "all" and event.vm and event.vm.vm == by_entity.entity)


def _is_of_type(event: Any, names: list[str]) -> bool:
    ids = {VmomiSupport.GetWsdlName(kind) for kind in type(event).__mro__ if issubclass(kind, vim.event.Event)}
    return bool({name.removeprefix("vim.event.") for name in names} & ids)


class EventCollector:
    """One EventHistoryCollector: a place in the events that fit."""

    def __init__(self, mo: Any, events: Events, wanted: Any) -> None:
        self.mo = mo
        self.page_size = 10
        self._events = events
        self._wanted = wanted
        self._place: int | None = None
        """Index of the next event to read forward; None: behind the newest, where a new collector stands."""

    def latest_page(self) -> Any:
        newest = self._events.matching(self._wanted)[-self.page_size :]
        return vim.event.Event.Array(newest[::-1])

    def rewind(self) -> None:
        self._place = 0

    def reset(self) -> None:
        self._place = None

    def read(self, count: int, backwards: bool) -> Any:
        found = self._events.matching(self._wanted)
        place = len(found) if self._place is None else self._place
        if backwards:
            start = max(0, place - count)
            self._place = start
            return vim.event.Event.Array(found[start:place][::-1])
        self._place = min(len(found), place + count)
        return vim.event.Event.Array(found[place : self._place])


@answers("QueryEvents")
def _query_events(call: Call) -> Any:
    found = call.vcenter.events.matching(call.arguments["filter"])
    return vim.event.Event.Array(found[-(call.arguments["filter"].maxCount or QUERY_LIMIT) :])


@answers("CreateCollectorForEvents")
def _create_collector(call: Call) -> Any:
    store = call.vcenter.store
    mo = vim.event.EventHistoryCollector(f"session[{call.user.key}]{store.next_id('events')}")
    collector = EventCollector(mo, call.vcenter.events, call.arguments["filter"])
    call.user.owned[mo._moId] = collector
    return store.add(mo, filter=call.arguments["filter"], latestPage=collector.latest_page)


def _collector(call: Call) -> EventCollector:
    owned = call.user.owned[call.this._moId]
    assert isinstance(owned, EventCollector)
    return owned


@answers("ReadNextEvents")
def _read_next(call: Call) -> Any:
    return _collector(call).read(call.arguments["maxCount"], backwards=False)


@answers("ReadPreviousEvents")
def _read_previous(call: Call) -> Any:
    return _collector(call).read(call.arguments["maxCount"], backwards=True)


@answers("RewindCollector")
def _rewind(call: Call) -> None:
    _collector(call).rewind()


@answers("ResetCollector")
def _reset(call: Call) -> None:
    _collector(call).reset()


@answers("SetCollectorPageSize")
def _set_page_size(call: Call) -> None:
    _collector(call).page_size = call.arguments["maxCount"]


@answers("DestroyCollector")
def _destroy_collector(call: Call) -> None:
    call.user.owned.pop(call.this._moId)
    call.vcenter.store.remove(call.this)
