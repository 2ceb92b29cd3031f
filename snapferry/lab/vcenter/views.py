"""Views: lists of objects that a client collects properties over."""

from typing import Any, NamedTuple

from pyVmomi import VmomiSupport, vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.faults import invalid_argument
from snapferry.lab.vcenter.inventory import children
from snapferry.lab.vcenter.store import Store

_CONTAINERS = (vim.Folder, vim.Datacenter, vim.ComputeResource, vim.ResourcePool, vim.HostSystem)


class View(NamedTuple):
    """A view of a session."""

    mo: Any


def _contents(store: Store, container: Any, kinds: list[Any], recursive: bool) -> Any:
    """What is in a container now, in the order of the inventory."""
    found: list[Any] = []
    seen: set[str] = set()
    work = children(store, container)[::-1]
    while work:
        mo = work.pop()
        if mo._moId in seen:
            continue
        seen.add(mo._moId)
        if not kinds or isinstance(mo, tuple(kinds)):
            found.append(mo)
        if recursive:
            work += children(store, mo)[::-1]
    return VmomiSupport.ManagedObject.Array(found)


@answers("CreateContainerView")
def _create_container_view(call: Call) -> Any:
    store, container = call.vcenter.store, call.arguments["container"]
    kinds, recursive = call.get("type", []), call.get("recursive", False)
    if not isinstance(container, _CONTAINERS):
        raise invalid_argument("container")
    store.names(container)  # raises ManagedObjectNotFound
    mo = vim.view.ContainerView(f"session[{call.user.key}]{store.next_id('view')}")
    call.user.owned[mo._moId] = View(mo)
    return store.add(
        mo,
        container=container,
        type=kinds,
        recursive=recursive,
        view=lambda: _contents(store, container, kinds, recursive),
    )


@answers("CreateListView")
def _create_list_view(call: Call) -> Any:
    store = call.vcenter.store
    mo = vim.view.ListView(f"session[{call.user.key}]{store.next_id('view')}")
    call.user.owned[mo._moId] = View(mo)
    return store.add(mo, view=VmomiSupport.ManagedObject.Array(call.get("obj", [])))


@answers("DestroyView")
def _destroy_view(call: Call) -> None:
    call.user.owned.pop(call.this._moId, None)
    call.vcenter.store.remove(call.this)
