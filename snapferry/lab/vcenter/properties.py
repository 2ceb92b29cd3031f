"""The property collector's questions: which objects a specification selects, and their properties."""

from collections.abc import Iterator
from typing import Any

from pyVmomi import VmomiSupport, vmodl

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.faults import invalid_argument
from snapferry.lab.vcenter.store import Store

PC = vmodl.query.PropertyCollector

PAGE_OBJECTS = 100
"""Objects in one page of RetrievePropertiesEx, whatever a client asks for; so that every client has to turn pages."""


def select(store: Store, wanted: Any) -> Iterator[Any]:
    """The objects that an ObjectSpec selects, each once."""
    named: dict[str, Any] = {}
    _collect_names(wanted.selectSet, named)
    seen: set[str] = set()
    followed: set[tuple[str, int]] = set()
    work: list[tuple[Any, Any, Any]] = [(wanted.obj, wanted.skip, wanted.selectSet)]
    while work:
        mo, skip, specs = work.pop()
        moref = mo._moId
        if not skip and moref not in seen:
            seen.add(moref)
            yield mo
        for spec in specs:
            traversal = spec if isinstance(spec, PC.TraversalSpec) else named.get(spec.name)
            if traversal is None:
                raise invalid_argument("specSet.objectSet.selectSet")
            if not isinstance(mo, traversal.type) or (moref, id(traversal)) in followed:
                continue
            followed.add((moref, id(traversal)))
            work += [(found, traversal.skip, traversal.selectSet) for found in _follow(store, mo, traversal.path)]


def _collect_names(specs: Any, named: dict[str, Any]) -> None:
    for spec in specs:
        if isinstance(spec, PC.TraversalSpec):
            if spec.name:
                named[spec.name] = spec
            _collect_names(spec.selectSet, named)


def _follow(store: Store, mo: Any, path: str) -> list[Any]:
    value = store.read(mo, path)
    found = value if isinstance(value, list) else [value]
    return [one for one in found if isinstance(one, VmomiSupport.ManagedObject) and store.find(one._moId)][::-1]


def paths_of(store: Store, mo: Any, wanted: Any) -> list[str]:
    """The property paths that a filter's specs name for an object; raises InvalidProperty."""
    paths: dict[str, None] = {}
    for spec in wanted.propSet:
        if isinstance(mo, spec.type):
            paths |= dict.fromkeys(store.names(mo) if spec.all else spec.pathSet)
    return list(paths)


def read_object(store: Store, mo: Any, wanted: Any) -> Any:
    """The properties of one object, those that are set."""
    content = PC.ObjectContent(obj=mo)
    for path in paths_of(store, mo, wanted):
        value = store.read(mo, path)
        if value is not None:
            content.propSet.append(vmodl.DynamicProperty(name=path, val=value))
    return content


def _retrieve(call: Call) -> list[Any]:
    store = call.vcenter.store
    found = []
    for wanted in call.arguments["specSet"]:
        for spec in wanted.objectSet:
            if store.find(spec.obj._moId) is None:
                if spec.skip or wanted.reportMissingObjectsInResults:
                    continue
                store.get(spec.obj, "name")  # raises ManagedObjectNotFound
            for mo in select(store, spec):
                if any(isinstance(mo, one.type) for one in wanted.propSet) and store.find(mo._moId):
                    found.append(read_object(store, mo, wanted))
    return found


@answers("RetrieveProperties")
def _retrieve_all(call: Call) -> Any:
    return PC.ObjectContent.Array(_retrieve(call))


@answers("RetrievePropertiesEx")
def _retrieve_first_page(call: Call) -> Any:
    options = call.get("options")
    size = min(PAGE_OBJECTS, (options and options.maxObjects) or PAGE_OBJECTS)
    return _page(call, _retrieve(call), size)


@answers("ContinueRetrievePropertiesEx")
def _retrieve_next_page(call: Call) -> Any:
    pages = call.user.pages.pop(call.arguments["token"], None)
    if pages is None:
        raise invalid_argument("token")
    return _page(call, *pages)


@answers("CancelRetrievePropertiesEx")
def _forget_pages(call: Call) -> None:
    if call.user.pages.pop(call.arguments["token"], None) is None:
        raise invalid_argument("token")


def _page(call: Call, objects: list[Any], size: int) -> Any:
    """One page; nothing at all where nothing was found, as vCenter does."""
    if not objects:
        return None
    page = PC.RetrieveResult(objects=objects[:size])
    if len(objects) > size:
        page.token = call.vcenter.store.next_id("page")
        call.user.pages[page.token] = (objects[size:], size)
    return page


@answers("Fetch")
def _fetch(call: Call) -> Any:
    name = call.arguments["prop"]
    if call.this._moId == "SessionManager" and name == "currentSession":
        return call.session and call.session.describe()
    return call.vcenter.store.read(call.this, name)
