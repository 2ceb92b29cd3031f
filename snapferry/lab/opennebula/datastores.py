"""`one.datastore.*`, and the datastores that a lab starts with."""

from pathlib import Path

from snapferry.lab.opennebula import render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.objects import Datastore
from snapferry.lab.opennebula.pools import ALL, select
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.world import World

IMAGE, SYSTEM, FILE = 0, 1, 2

_COMMON = {
    "ALLOW_ORPHANS": "FORMAT",
    "PERSISTENT_SNAPSHOTS": "YES",
    "RESTRICTED_DIRS": "/",
    "SAFE_DIRS": "/var/tmp",  # noqa: S108 -- what a real frontend says
}
_IMAGE_OR_FILE = {"DS_MAD": "fs", "CLONE_TARGET": "SYSTEM", "LN_TARGET": "SYSTEM"}
_SHARED_IMAGE = {
    "LN_TARGET": "NONE",
    "TM_MAD_SYSTEM": "ssh",
    "LN_TARGET_SSH": "SYSTEM",
    "CLONE_TARGET_SSH": "SYSTEM",
    "DISK_TYPE_SSH": "FILE",
}
_SYSTEM = {"DISK_TYPE": "FILE", "DS_LIVE_MIGRATE": "YES", "DS_MIGRATE": "YES", "DS_MIGRATE_SNAP": "YES"}


def found(world: World) -> None:
    """Makes the lab's datastores: 0 system, 1 the first of the configuration, 2 files, the others from 100.

    Each transfer driver in use gets its system datastore, as deploy asks for. A local one lies on the hosts, so the
    frontend says 0 for its sizes.
    """
    wanted = world.config.datastores
    drivers = list(dict.fromkeys(one.tm for one in wanted)) or ["local"]
    capacity = max((one.capacity_bytes for one in wanted), default=500 << 30)
    _add(world, 0, "system", SYSTEM, drivers[0], capacity)
    for place, one in enumerate(wanted):
        number = 1 if place == 0 else max(world.datastores.next_id(), 100)
        _add(world, number, one.name, IMAGE, one.tm, one.capacity_bytes)
        if place == 0:
            _add(world, 2, "files", FILE, "local", capacity)
    for driver in drivers[1:]:
        _add(world, max(world.datastores.next_id(), 100), f"system-{driver}", SYSTEM, driver, capacity)


def _add(world: World, number: int, name: str, kind: int, tm: str, capacity_bytes: int) -> None:
    values = {**_COMMON, "TM_MAD": tm, "TYPE": ("IMAGE_DS", "SYSTEM_DS", "FILE_DS")[kind]}
    if kind == SYSTEM:
        values |= {**_SYSTEM, "SHARED": "YES" if tm == "shared" else "NO"}
    else:
        values |= _IMAGE_OR_FILE | ({"DISK_TYPE": "FILE"} if kind == IMAGE else {})
        values |= _SHARED_IMAGE if tm == "shared" else {}
    base_path = f"{world.folder}//datastores/{number}"
    world.store.folder(Path(base_path))
    total_mib = 0 if (kind, tm) == (SYSTEM, "local") else capacity_bytes >> 20
    world.datastores.add(
        Datastore(
            id=number, name=name, type=kind, tm=tm, base_path=base_path, total_mib=total_mib,
            permissions=[1, 1, 0, 1, 0, 0, 0, 0, 0], attributes=Attributes(list(values.items())),
        )
    )  # fmt: skip


def used_mib(world: World, datastore: Datastore) -> int:
    """What its files really take: a sparse image counts only what was written to it."""
    if not datastore.total_mib:
        return 0
    return world.store.used_mib(Path(datastore.base_path))


def free_mib(world: World, datastore: Datastore) -> int:
    return max(datastore.total_mib - used_mib(world, datastore), 0)


def _info(call: Call, datastore_id: int, decrypt: bool = False) -> str:
    datastore = call.world.datastores.get(datastore_id)
    call.need(Op.READ, datastore)
    return render.datastore(call.world, datastore, used_mib(call.world, datastore))


def _pool(call: Call) -> str:
    world = call.world
    chosen = select(call, world.datastores, ALL, -1, -1)
    return (
        f"<DATASTORE_POOL>{''.join(render.datastore(world, it, used_mib(world, it)) for it in chosen)}</DATASTORE_POOL>"
    )


METHODS: Methods = {
    "datastore.info": Method("ib", 1, _info),
    "datastorepool.info": Method("", 0, _pool),
}
