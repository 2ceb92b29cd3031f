"""On which host, in which system datastore: the scheduler's choice, and what a driver allows."""

import re

from snapferry.lab.opennebula.datastores import SYSTEM
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Datastore, Host, Machine
from snapferry.lab.opennebula.world import World

_TERM = re.compile(r'\s*\(?\s*"?(\w+)"?\s*=\s*"?([^")]+?)"?\s*\)?\s*')


def choose(world: World, machine: Machine) -> tuple[Host, Datastore] | None:
    """What fits SCHED_REQUIREMENTS and SCHED_DS_REQUIREMENTS (terms `NAME = VALUE` joined by `&`), if anything."""
    common = {"HYPERVISOR": "kvm", "CLUSTER_ID": "0"}
    hosts = [
        host for host in world.hosts
        if _fits(machine, "SCHED_REQUIREMENTS", common | {"ID": str(host.id), "NAME": host.name})
    ]  # fmt: skip
    stores = [
        store for store in world.datastores
        if store.type == SYSTEM and refusal(machine, store) is None
        and _fits(machine, "SCHED_DS_REQUIREMENTS", {"ID": str(store.id), "NAME": store.name})
    ]  # fmt: skip
    if not hosts or not stores:
        return None
    return min(hosts, key=lambda it: len(it.vms)), min(stores, key=lambda it: _strangers(machine, it))


def pick_datastore(world: World, machine: Machine, datastore_id: int) -> Datastore:
    """The system datastore of a deploy; -1 takes the one whose driver fits best.

    Raises:
        OneError: NO_EXISTS, or ACTION where a disk's driver can't be used there.
    """
    if datastore_id == -1:
        found = choose(world, machine)
        if found:
            return found[1]
    store = world.datastores.get(max(datastore_id, 0))
    problem = refusal(machine, store)
    if problem:
        raise OneError(Code.ACTION, problem)
    return store


def refusal(machine: Machine, store: Datastore) -> str | None:
    """Why the VM's disks can't be used in that system datastore."""
    for disk in machine.disks:
        tm = disk.get("TM_MAD", store.tm)
        if tm != store.tm and not (tm == "shared" and store.tm == "local"):
            return f"Image Datastore does not support transfer mode: {store.tm}"
    return None


def _strangers(machine: Machine, store: Datastore) -> int:
    return sum(disk.get("TM_MAD", store.tm) != store.tm for disk in machine.disks)


def _fits(machine: Machine, name: str, values: dict[str, str]) -> bool:
    wanted = machine.attributes.get(name)
    if not wanted:
        return True
    terms = [_TERM.fullmatch(term) for term in wanted.split("&")]
    return all(term is not None and values.get(term[1].upper()) == term[2].strip() for term in terms)
