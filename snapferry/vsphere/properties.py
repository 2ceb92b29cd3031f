"""Reading many properties of many objects in few calls (`RetrievePropertiesEx`).

Reading them off pyVmomi's objects costs one hidden call each.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pyVmomi import vim, vmodl

from snapferry.errors import SourceError
from snapferry.vsphere.errors import InventoryIncomplete

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

PAGE_OBJECTS = 500
"""Objects in one answer."""

Wanted = Mapping[Any, Iterable[str]]
"""Property paths by managed type."""


class Found(NamedTuple):
    """One object and those of its properties that are set and may be read."""

    obj: Any
    values: dict[str, Any]

    @property
    def moref(self) -> str:
        return str(self.obj._moId)


def read_objects(session: "Session", what: str, objects: Iterable[Any], wanted: Wanted) -> list[Found]:
    """The wanted properties of these objects (each once).

    Raises:
        VmGone, SnapshotGone, SourceError: one of them is no longer there.
    """
    spec = vmodl.query.PropertyCollector.ObjectSpec
    unique = {one._moId: one for one in objects}
    return _retrieve(session, what, [spec(obj=one) for one in unique.values()], wanted) if unique else []


def read_object(session: "Session", what: str, kind: Any, moref: str, paths: Iterable[str]) -> dict[str, Any]:
    """Those of the wanted properties of one object that are set and may be read.

    Raises:
        VmGone, SnapshotGone, SourceError: it is no longer there.
        InventoryIncomplete: vCenter tells nothing of it.
    """
    for found in read_objects(session, what, [session.bind(kind, moref)], {kind: paths}):
        return found.values
    raise InventoryIncomplete(
        f"vCenter couldn't {what}: it tells nothing of {moref}.", "See whether the user has System.Read on it."
    )


def read_inventory(session: "Session", what: str, wanted: Wanted) -> list[Found]:
    """The wanted properties of every object of these types below the root folder."""
    query = vmodl.query.PropertyCollector
    manager, root = session.content.viewManager, session.content.rootFolder

    def read() -> list[Found]:
        view = session.call(what, lambda: manager.CreateContainerView(root, list(wanted), True), repeatable=True)
        through = query.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
        found = _retrieve(session, what, [query.ObjectSpec(obj=view, skip=True, selectSet=[through])], wanted)
        session.call("end a view", view.DestroyView)
        return found

    return _in_one_login(session, read)


def read_with_ancestors(session: "Session", what: str, vm: Any, wanted: Iterable[str]) -> list[Found]:
    """The wanted properties of a VM, and name and parent of all that it stands in, up to the root folder."""
    query = vmodl.query.PropertyCollector
    traversal, again = query.TraversalSpec, [query.SelectionSpec(name="up"), query.SelectionSpec(name="app")]
    steps = [
        traversal(name="up", type=vim.ManagedEntity, path="parent", skip=False, selectSet=again),
        traversal(name="in", type=vim.VirtualMachine, path="parentVApp", skip=False, selectSet=again),
        traversal(name="app", type=vim.VirtualApp, path="parentFolder", skip=False, selectSet=again),
    ]
    start = query.ObjectSpec(obj=vm, skip=False, selectSet=steps)
    paths = {
        vim.ManagedEntity: ("name", "parent"),
        vim.VirtualApp: ("parentFolder",),
        vim.VirtualMachine: ("name", "parent", "parentVApp", *wanted),
    }
    return _retrieve(session, what, [start], paths)


def _retrieve(session: "Session", what: str, objects: list[Any], wanted: Wanted) -> list[Found]:
    query = vmodl.query.PropertyCollector
    collector = session.content.propertyCollector
    properties = [query.PropertySpec(type=kind, pathSet=list(paths)) for kind, paths in wanted.items()]
    filters = [query.FilterSpec(objectSet=objects, propSet=properties)]
    options = query.RetrieveOptions(maxObjects=PAGE_OBJECTS)

    def pages() -> list[Found]:
        found: list[Found] = []
        page = collector.RetrievePropertiesEx(filters, options)
        while page is not None:
            for content in page.objects:
                values = {one.name: one.val for one in content.propSet or ()}
                found.append(Found(content.obj, values))
            page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
        return found

    return _in_one_login(session, lambda: session.call(what, pages, repeatable=True))


def _in_one_login(session: "Session", read: Callable[[], list[Found]]) -> list[Found]:
    """Reads again where the login was renewed in the middle: views and page tokens end with their login."""
    key = session.key
    try:
        return read()
    except SourceError:
        if session.key == key:
            raise
        return read()
