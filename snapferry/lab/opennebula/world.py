"""Everything that the frontend knows, behind one lock."""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import RLock
from typing import Any, Generic, TypeVar

from snapferry.lab.config import LabOpenNebula
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.faults import Faults
from snapferry.lab.opennebula.jobs import Jobs
from snapferry.lab.opennebula.objects import (
    Datastore,
    Group,
    Host,
    Image,
    Kind,
    Machine,
    Network,
    Template,
    Thing,
    User,
)
from snapferry.lab.opennebula.store import Store

T = TypeVar("T", bound=Thing)

ADMIN_UID = 0
ONEADMIN_GID = 0
USERS_GID = 1


class Pool(Generic[T]):
    """The objects of one kind by ID; IDs are never given again."""

    def __init__(self, kind: Kind, first_id: int = 0) -> None:
        self.kind = kind
        self._things: dict[int, T] = {}
        self._next = first_id

    def __iter__(self) -> Iterator[T]:
        return iter([self._things[key] for key in sorted(self._things)])

    def next_id(self) -> int:
        """The ID that the next object should be added with."""
        return self._next

    def add(self, thing: T) -> T:
        self._things[thing.id] = thing
        self._next = max(self._next, thing.id + 1)
        return thing

    def find(self, thing_id: int) -> T | None:
        return self._things.get(thing_id)

    def get(self, thing_id: int) -> T:
        """Raises OneError (NO_EXISTS) with the ID."""
        thing = self._things.get(thing_id)
        if thing is None:
            raise OneError(Code.NO_EXISTS, f"Error getting {self.kind.label} [{thing_id}].", thing_id)
        return thing

    def named(self, name: str, uid: int) -> T | None:
        return next((thing for thing in self if thing.name == name and thing.uid == uid), None)

    def drop(self, thing_id: int) -> None:
        self._things.pop(thing_id, None)


class World:
    """Pools, files, jobs and faults of one frontend. Hold `lock` while reading or changing objects."""

    def __init__(self, config: LabOpenNebula, folder: Path, seed: int) -> None:
        self.config = config
        self.folder = folder
        self.seed = seed
        self.lock = RLock()
        self.random = Random(f"opennebula-{seed}")
        self.jobs = Jobs()
        self.faults = Faults()
        self.store = Store(config.owner)
        self.groups: Pool[Group] = Pool(Kind.GROUP)
        self.users: Pool[User] = Pool(Kind.USER)
        self.hosts: Pool[Host] = Pool(Kind.HOST)
        self.datastores: Pool[Datastore] = Pool(Kind.DATASTORE)
        self.images: Pool[Image] = Pool(Kind.IMAGE)
        self.templates: Pool[Template] = Pool(Kind.TEMPLATE)
        self.networks: Pool[Network] = Pool(Kind.NET)
        self.machines: Pool[Machine] = Pool(Kind.VM)

    def pool(self, kind: Kind) -> Pool[Thing]:
        pools: dict[Kind, Pool[Any]] = {
            Kind.GROUP: self.groups,
            Kind.USER: self.users,
            Kind.HOST: self.hosts,
            Kind.DATASTORE: self.datastores,
            Kind.IMAGE: self.images,
            Kind.TEMPLATE: self.templates,
            Kind.NET: self.networks,
            Kind.VM: self.machines,
        }
        return pools[kind]

    def delay(self, span: tuple[float, float]) -> float:
        """Seconds somewhere in the span, seeded."""
        return self.random.uniform(*span)

    def owner(self, thing: Thing) -> tuple[str, str]:
        """Names of its user and group."""
        user, group = self.users.find(thing.uid), self.groups.find(thing.gid)
        return (user.name if user else "", group.name if group else "")


def now() -> int:
    return int(time.time())


def log_time() -> str:
    """A time as messages carry it: `Sun Nov 22 19:12:09 2026`."""
    return time.strftime("%a %b %d %H:%M:%S %Y")
