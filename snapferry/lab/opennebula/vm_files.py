"""A VM's folder in its system datastore, and what the transfer drivers do with the disks.

| image datastore | a persistent image | another |
|---|---|---|
| shared, on a shared system datastore | a symbolic link to the image | a copy |
| local; shared on a local system datastore | a full copy, brought back over the image at the end | a copy |
"""

import os
from pathlib import Path
from typing import NamedTuple

from snapferry.lab.opennebula.objects import Machine
from snapferry.lab.opennebula.store import Store
from snapferry.lab.opennebula.world import World

_GUEST_WRITE_BYTES = 64 << 10


class Transfer(NamedTuple):
    """One disk: where it comes from, where it goes, and how."""

    target: Path
    source: Path | None = None
    linked: bool = False
    returns: bool = False
    size_bytes: int = 0
    text: str | None = None


def machine_folder(world: World, machine: Machine) -> Path:
    """`<system datastore>/<vm id>`."""
    return Path(world.datastores.get(machine.history[-1].datastore_id).base_path) / str(machine.id)


def transfers(world: World, machine: Machine) -> list[Transfer]:
    """What has to be there for the VM to run: `disk.<n>` for each disk, and for the context."""
    folder, system_tm = machine_folder(world, machine), machine.history[-1].tm
    work = []
    for disk in machine.disks:
        target = folder / f"disk.{disk['DISK_ID']}"
        if "IMAGE_ID" not in disk:
            work.append(Transfer(target, size_bytes=int(disk.get("SIZE") or "0") << 20))
            continue
        persistent = disk.get("PERSISTENT") == "YES"
        linked = persistent and disk["TM_MAD"] == "shared" and system_tm == "shared"
        work.append(Transfer(target, Path(disk["SOURCE"]), linked, persistent and not linked))
    if machine.context:
        lines = "".join(f"{name}='{value}'\n" for name, value in sorted(machine.context.items()))
        work.append(Transfer(folder / f"disk.{machine.context['DISK_ID']}", text=lines))
    return work


def provide(store: Store, work: list[Transfer]) -> None:
    """PROLOG: makes every disk, in place of one that an earlier try left. Raises OSError."""
    for one in work:
        store.folder(one.target.parent)
        store.remove(one.target)
        if one.text is not None:
            store.text(one.target, one.text)
        elif one.source is None:
            store.create(one.target, one.size_bytes)
        elif one.linked:
            store.link(one.source.resolve(strict=True), one.target)
        else:
            store.copy(one.source, one.target)


def guest_writes(world: World, work: list[Transfer], count_bytes: int) -> None:
    """The guest writes so much to each of its disks, at seeded places, through whatever link leads to it."""
    for one in (one for one in work if one.text is None):
        with one.target.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            for _ in range(-(-count_bytes // _GUEST_WRITE_BYTES)):
                file.seek(world.random.randrange(max(1, size - _GUEST_WRITE_BYTES)))
                file.write(world.random.randbytes(min(size, _GUEST_WRITE_BYTES)))


def bring_back(store: Store, work: list[Transfer]) -> None:
    """EPILOG: copies what has to return over its image. Raises OSError."""
    for one in work:
        if one.returns and one.source:
            store.copy(one.target, one.source)
