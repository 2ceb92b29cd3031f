"""The managed objects of the simulated vCenter and their properties.

A value that has been stored is never changed again: a change stores a changed copy. So a reader needs no lock while it
serialises, and a waiting client is woken by every change.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyVmomi import VmomiSupport, vmodl

from snapferry.lab.vcenter.soap import complete, not_found


class Entry(NamedTuple):
    """One managed object: properties are values, or functions where a value is worked out when it is read."""

    mo: Any
    properties: dict[str, Any]
    version: int


class Store:
    """Every managed object by its id."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.version = 1
        self._entries: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}

    def next_id(self, prefix: str) -> str:
        """A new id such as `task-17`."""
        with self.condition:
            self._numbers[prefix] = self._numbers.get(prefix, 0) + 1
            return f"{prefix}-{self._numbers[prefix]}"

    def add(self, mo: Any, **properties: Any) -> Any:
        """Adds an object; returns it."""
        with self.condition:
            self._entries[mo._moId] = Entry(mo, {}, 0)
            self.change(mo, **properties)
        return mo

    def remove(self, mo: Any) -> None:
        with self.condition:
            self._entries.pop(mo._moId, None)
            self._touch()

    def change(self, mo: Any, **properties: Any) -> None:
        """Sets properties; None unsets one."""
        ready = {name: _ready(mo, name, value) for name, value in properties.items()}
        with self.condition:
            entry = self._entry(mo)
            self._touch()
            kept = {name: value for name, value in (entry.properties | ready).items() if value is not None}
            self._entries[mo._moId] = Entry(mo, kept, self.version)

    def edit(self, mo: Any, name: str, edit: Callable[[Any], None]) -> None:
        """Changes a copy of a property by `edit` and stores it."""
        with self.condition:
            value = copy.deepcopy(self._entry(mo).properties[name])
            edit(value)
            self.change(mo, **{name: value})

    def find(self, moref: str) -> Any | None:
        """The managed object of that id, or None."""
        entry = self._entries.get(moref)
        return entry and entry.mo

    def version_of(self, mo: Any) -> int | None:
        """The store's version when the object changed last; None once it is gone."""
        entry = self._entries.get(mo._moId)
        return entry and entry.version

    def names(self, mo: Any) -> list[str]:
        """The properties that are set."""
        return list(self._entry(mo).properties)

    def get(self, mo: Any, name: str) -> Any:
        """One property's value; None if unset. Raises ManagedObjectNotFound."""
        value = self._entry(mo).properties.get(name)
        return complete(value()) if callable(value) else value

    def read(self, mo: Any, path: str) -> Any:
        """The value at a path such as `config.hardware.device`; None where a part is unset.

        Raises ManagedObjectNotFound, and InvalidProperty for a path that the object's type doesn't have.
        """
        first, *rest = path.split(".")
        try:
            declared = mo._GetPropertyInfo(first)
        except AttributeError:
            raise vmodl.query.InvalidProperty(name=path, msg=f"Invalid property: {path}") from None
        value = self.get(mo, first)
        for part in rest:
            if value is None:
                return None
            try:
                declared = value._GetPropertyInfo(part)
            except AttributeError:
                raise vmodl.query.InvalidProperty(name=path, msg=f"Invalid property: {path}") from None
            value = getattr(value, part)
        if isinstance(value, list) and not isinstance(value, VmomiSupport.Array):
            value = declared.type(value)
        return value

    def every(self, kind: Any) -> Iterator[Any]:
        """Every object of a type, in the order they were added."""
        with self.condition:
            found = [entry.mo for entry in self._entries.values() if isinstance(entry.mo, kind)]
        return iter(found)

    def _entry(self, mo: Any) -> Entry:
        try:
            return self._entries[mo._moId]
        except KeyError:
            raise not_found(mo) from None

    def _touch(self) -> None:
        self.version += 1
        self.condition.notify_all()


def _ready(mo: Any, name: str, value: Any) -> Any:
    """The value as it is stored: complete, and a list typed as the property is declared."""
    if isinstance(value, list) and not isinstance(value, VmomiSupport.Array):
        value = mo._GetPropertyInfo(name).type(value)
    return value if callable(value) else complete(value)
