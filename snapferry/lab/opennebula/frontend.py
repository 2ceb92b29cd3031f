"""The simulated frontend as the lab starts it."""

from dataclasses import asdict
from pathlib import Path
from ssl import SSLContext
from typing import Any

from snapferry.lab.config import LabOpenNebula
from snapferry.lab.opennebula import datastores, networks
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.objects import Group, Host, Image, Machine, Network, Template, Thing, User, VmState
from snapferry.lab.opennebula.server import Server
from snapferry.lab.opennebula.world import ADMIN_UID, ONEADMIN_GID, USERS_GID, World, now


class Frontend:
    """An OpenNebula frontend with its hosts; everything but the datastores' files is in memory.

    Args:
        config: datastores, networks, hosts, the files' owner.
        folder: the datastores are made at `<folder>/datastores/<id>`; BASE_PATH has the double slash of a real one.
        seed: of delays and names; the same seed names the same files.
        user, password: the administrator.

    Example:
        frontend = Frontend(LabOpenNebula(), tmp_path, seed=1, user="oneadmin", password="secret")
        endpoint = frontend.start(ssl_context)
        frontend.stop()
    """

    def __init__(self, config: LabOpenNebula, folder: Path, *, seed: int, user: str, password: str) -> None:
        self._world = world = World(config, folder.resolve(), seed)
        self._server: Server | None = None
        world.store.folder(world.folder)
        world.store.folder(world.folder / "datastores")
        world.groups.add(Group(id=ONEADMIN_GID, name="oneadmin"))
        world.groups.add(Group(id=USERS_GID, name="users"))
        world.users.add(User(id=ADMIN_UID, name=user, password=password))
        for number, name in enumerate(config.hosts):
            values: list[tuple[str, Any]] = [("HYPERVISOR", "kvm"), ("HOSTNAME", name), ("ARCH", "x86_64")]
            world.hosts.add(Host(id=number, name=name, attributes=Attributes(values), regtime=now()))
        datastores.found(world)
        networks.found(world)

    def start(self, ssl_context: SSLContext) -> str:
        """Listens on 127.0.0.1 and returns the endpoint, `https://localhost:<port>/RPC2`."""
        self._server = Server(self._world, ssl_context)
        self._server.start()
        self._world.jobs.start()
        return f"https://localhost:{self._server.port}/RPC2"

    def stop(self) -> None:
        """Ends the server and what runs by itself.

        Raises:
            RuntimeError: something that the frontend did by itself had failed; the first failure is its cause.
        """
        if self._server:
            self._server.stop()
            self._server = None
        self._world.jobs.stop()
        if self._world.jobs.failures:
            raise RuntimeError("the simulated OpenNebula failed by itself") from self._world.jobs.failures[0]

    def set_fault(self, name: str, **arguments: Any) -> None:
        """Sets a fault of `faults.py`. Raises ValueError where there is none such."""
        self._world.faults.set(name, **arguments)

    def faults(self) -> dict[str, int]:
        """How often each fault happened, by the name that `LabControl.set_fault` takes."""
        return {f"one_{name}": count for name, count in dict(self._world.faults.happened).items()}

    def clear_faults(self) -> None:
        self._world.faults.clear()

    def calls(self) -> dict[str, int]:
        """How often each method was called."""
        return dict(self._server.calls) if self._server else {}

    def state(self) -> dict[str, Any]:
        """What there is now, as plain values, to be compared with another time; finished VMs are left out."""
        world = self._world
        with world.lock:
            machines = [it for it in world.machines if it.state is not VmState.DONE]
            locked: list[Thing] = [
                it for it in (*world.images, *world.templates, *machines, *world.networks) if it.lock
            ]
            return {
                "images": [_image(it) for it in world.images],
                "templates": [_template(it) for it in world.templates],
                "machines": [_machine(it) for it in machines],
                "networks": [_network(it) for it in world.networks],
                "locks": [
                    {"kind": it.kind.auth, "id": it.id} | asdict(it.lock) for it in locked if it.lock
                ],
                "files": {str(it.id): world.store.files(Path(it.base_path)) for it in world.datastores},
            }  # fmt: skip


def _image(it: Image) -> dict[str, Any]:
    return {
        "id": it.id, "name": it.name, "uid": it.uid, "state": it.state.name, "type": it.type, "size": it.size,
        "format": it.format, "persistent": it.persistent, "source": it.source, "datastore_id": it.datastore_id,
        "vms": list(it.vms), "attributes": it.attributes.plain(),
    }  # fmt: skip


def _template(it: Template) -> dict[str, Any]:
    return {"id": it.id, "name": it.name, "uid": it.uid, "attributes": it.attributes.plain()}


def _machine(it: Machine) -> dict[str, Any]:
    return {
        "id": it.id, "name": it.name, "uid": it.uid, "state": it.state.name, "lcm_state": int(it.lcm),
        "host": it.history[-1].host_name if it.history else None,
        "disks": [dict(disk) for disk in it.disks], "nics": [dict(nic) for nic in it.nics],
        "context": dict(it.context) if it.context else None, "template": it.template.plain(),
        "attributes": it.attributes.plain(),
    }  # fmt: skip


def _network(it: Network) -> dict[str, Any]:
    return {
        "id": it.id, "name": it.name, "attributes": it.attributes.plain(),
        "ranges": [
            {"id": one.id, "type": one.type, "ip": one.first_ip, "mac": one.first_mac, "size": one.size,
             "attributes": dict(one.extra), "leases": {str(index): vm for index, vm in sorted(one.leases.items())}}
            for one in it.ranges
        ],
    }  # fmt: skip
