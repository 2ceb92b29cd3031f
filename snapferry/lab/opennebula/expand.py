"""A VM from a template's attributes: what is checked, what is taken, and what the frontend adds to TEMPLATE."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from snapferry.lab.opennebula import image_life, leases
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes, Vector
from snapferry.lab.opennebula.devices import context_vector, disk_vector, nic_vector, order_devices
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Image, ImageStates, Machine, Network, VmState
from snapferry.lab.opennebula.world import World, now

_VM_NAMES = {
    "CPU", "VCPU", "MEMORY", "OS", "FEATURES", "GRAPHICS", "RAW", "TOPOLOGY", "CPU_MODEL", "INPUT", "VIDEO",
    "TM_MAD_SYSTEM", "NIC_DEFAULT", "EMULATOR", "CPU_COST", "MEMORY_COST", "DISK_COST", "MEMORY_SLOTS", "MEMORY_MAX",
    "VCPU_MAX", "MEMORY_RESIZE_MODE", "PCI", "NUMA_NODE", "BACKUP_CONFIG", "TPM",
}  # fmt: skip
_RESTRICTED = {"NIC": {"MAC", "VLAN_ID", "BRIDGE"}, "DISK": {"SOURCE"}, "CONTEXT": {"FILES"}}


class Request(NamedTuple):
    """What a VM is made from."""

    attributes: Attributes
    name: str
    hold: bool
    template_id: int | None = None
    template_name: str = ""


def check_restricted(call: Call, attributes: Attributes) -> None:
    """Raises OneError (AUTHORIZATION) where a plain user names what only administrators may."""
    if call.is_admin:
        return
    for vector_name, names in _RESTRICTED.items():
        for vector in attributes.vectors(vector_name):
            bad = next((name for name in vector if name in names), None)
            if bad:
                raise call.refuse(f"VM Template includes a restricted attribute {bad}")


def named_image(call: Call, disk: Vector) -> Image | None:
    """The image that a disk names by ID or name; None for a volatile disk.

    Raises:
        OneError: INTERNAL, there is none.
    """
    if disk.get("IMAGE_ID"):
        image = call.world.images.find(_number(disk["IMAGE_ID"]))
        if image is None:
            raise OneError(Code.INTERNAL, f"Image with ID: {disk['IMAGE_ID']} does not exist")
        return image
    if not disk.get("IMAGE"):
        return None
    uid = _owner(call, disk.get("IMAGE_UID"), disk.get("IMAGE_UNAME"))
    image = call.world.images.named(disk["IMAGE"], uid)
    if image is None:
        advice = "Set IMAGE_UNAME or IMAGE_UID of owner in DISK."
        raise OneError(Code.INTERNAL, f"User {uid} does not own an image with name: {disk['IMAGE']} . {advice}")
    return image


def named_network(call: Call, nic: Vector) -> Network | None:
    """The network that a NIC names by ID or name; None where it names none. Raises OneError (INTERNAL)."""
    if nic.get("NETWORK_ID"):
        network = call.world.networks.find(_number(nic["NETWORK_ID"]))
        if network is None:
            raise OneError(Code.INTERNAL, f"Virtual network with ID: {nic['NETWORK_ID']} does not exist")
        return network
    if not nic.get("NETWORK"):
        return None
    uid = _owner(call, nic.get("NETWORK_UID"), nic.get("NETWORK_UNAME"))
    network = call.world.networks.named(nic["NETWORK"], uid)
    if network is None:
        advice = "Set NETWORK_UNAME or NETWORK_UID of owner in NIC."
        raise OneError(Code.INTERNAL, f"User {uid} does not own a network with name: {nic['NETWORK']} . {advice}")
    return network


def build_machine(call: Call, request: Request) -> Machine:
    """Makes the VM, with its leases and images taken; its life hasn't begun yet.

    Raises:
        OneError: AUTHORIZATION, or INTERNAL with the reason; nothing is taken then.
    """
    world, given = call.world, request.attributes.without_empty()
    _check_capacity(given)
    check_uses(call, given)
    number = world.machines.next_id()
    name = request.name or given.get("NAME") or f"{request.template_name or 'one'}-{number}"
    machine = Machine(
        id=number, uid=call.user.id, gid=call.user.gid, name=name.replace("%i", str(number)), regtime=now(),
        hold=request.hold, attributes=_user_template(given), template=_vm_template(world, given, number, request),
    )  # fmt: skip
    try:
        for nic in given.vectors("NIC"):
            take_nic(call, machine, nic)
        for place, disk in enumerate(given.vectors("DISK")):
            _numbered(place, lambda disk=disk: take_disk(call, machine, disk))  # type: ignore[misc]
        machine.context = context_vector(world, machine, given.vector("CONTEXT"))
        order_devices(machine)
    except OneError:
        release_devices(world, machine)
        raise
    if any(nic.get("NETWORK_ID") for nic in machine.nics):
        add_security_rules(machine)
    return world.machines.add(machine)


def take_nic(call: Call, machine: Machine, nic: Vector) -> Vector:
    """Adds a NIC with its lease. Raises OneError (INTERNAL)."""
    network = named_network(call, nic)
    taken = leases.lease(network, machine.id, nic) if network else None
    machine.nics.append(nic_vector(machine, nic, network, taken))
    return machine.nics[-1]


def take_disk(call: Call, machine: Machine, disk: Vector, *, attach: bool = False) -> Vector:
    """Adds a disk with its image. Raises OneError (INTERNAL)."""
    image = named_image(call, disk)
    if image:
        image_life.acquire(image, machine.id, attach=attach)
    machine.disks.append(disk_vector(call.world, machine, disk, image))
    return machine.disks[-1]


def release_devices(world: World, machine: Machine, *, failed: bool = False) -> None:
    """Gives back every lease and every image."""
    for nic in machine.nics:
        network = world.networks.find(_number(nic.get("NETWORK_ID", "-1")))
        if network:
            leases.release(network, machine.id, nic.get("MAC", ""))
    for disk in machine.disks:
        image = world.images.find(_number(disk.get("IMAGE_ID", "-1")))
        if image:
            image_life.release(image, machine.id, failed=failed)


def add_security_rules(machine: Machine) -> None:
    """The two rules of the default security group, which every NIC of a network brings."""
    for direction in ("OUTBOUND", "INBOUND"):
        rule = {"PROTOCOL": "ALL", "RULE_TYPE": direction, "SECURITY_GROUP_ID": "0", "SECURITY_GROUP_NAME": "default"}
        if rule not in machine.template.vectors("SECURITY_GROUP_RULE"):
            machine.template.add("SECURITY_GROUP_RULE", rule)


def waits_for_image(world: World, machine: Machine) -> bool:
    locked = (ImageStates.LOCKED_USED, ImageStates.LOCKED_USED_PERS)
    return any(image.state in locked and machine.id in image.vms for image in world.images)


def initial_state(world: World, machine: Machine) -> VmState:
    if waits_for_image(world, machine):
        return VmState.CLONING
    return VmState.HOLD if machine.hold else VmState.PENDING


def _check_capacity(given: Attributes) -> None:
    if not _is_number(given.get("MEMORY"), int):
        raise OneError(Code.INTERNAL, "MEMORY attribute must be a positive integer value.")
    if not _is_number(given.get("CPU"), float):
        raise OneError(Code.INTERNAL, "CPU attribute must be a positive float or integer value.")
    if given.get("VCPU") is not None and not _is_number(given.get("VCPU"), int):
        raise OneError(Code.INTERNAL, "VCPU attribute must be a positive integer value.")
    topology = given.vector("TOPOLOGY")
    if topology:
        threads = 1
        for name in ("SOCKETS", "CORES", "THREADS"):
            threads *= _number(topology.get(name, "1"))
        if threads != _number(given.get("VCPU") or "1"):
            raise OneError(Code.INTERNAL, "Total threads per core and socket needs to match VCPU")


def check_uses(call: Call, given: Attributes) -> None:
    """Permissions and locks of all images and networks, before anything is taken; missing ones come up later."""
    for finder, name in ((named_image, "DISK"), (named_network, "NIC")):
        for vector in given.vectors(name):
            try:
                thing = finder(call, vector)
            except OneError:
                continue
            if thing:
                call.need(Op.USE, thing)


def _user_template(given: Attributes) -> Attributes:
    own = _VM_NAMES | {"NAME", "DISK", "NIC", "CONTEXT", "TEMPLATE_ID", "TEMPLATE_NAME", "AR"}
    return Attributes([(name, value) for name, value in given if name not in own])


def _vm_template(world: World, given: Attributes, number: int, request: Request) -> Attributes:
    made = Attributes([(name, value) for name, value in given if name in _VM_NAMES])
    made.set("AUTOMATIC_DS_REQUIREMENTS", '("CLUSTERS/ID" @> 0)')
    made.set("AUTOMATIC_NIC_REQUIREMENTS", '("CLUSTERS/ID" @> 0)')
    made.set("AUTOMATIC_REQUIREMENTS", "(CLUSTER_ID = 0) & !(PIN_POLICY = PINNED)")
    uuid = str(UUID(int=world.random.getrandbits(128), version=4))
    made.set("OS", {"MACHINE": "q35", "UUID": uuid, **(given.vector("OS") or {})})
    for name, change in _NORMALISED.items():
        vector = made.vector(name)
        if vector:
            made.set(name, change(vector))
    if request.hold:
        made.set("SUBMIT_ON_HOLD", "YES")
    if request.template_id is not None:
        made.set("TEMPLATE_ID", str(request.template_id))
    made.set("VMID", str(number))
    return made


_NORMALISED: dict[str, Callable[[Vector], Vector]] = {
    "FEATURES": lambda it: {k: v.upper() if v.lower() in ("yes", "no") else v for k, v in it.items()},
    "TOPOLOGY": lambda it: {"PIN_POLICY": "NONE", **it},
}


def _numbered(place: int, take: Callable[[], object]) -> None:
    try:
        take()
    except OneError as error:
        raise OneError(error.code, f"DISK {place}: {error.message}") from error


def _owner(call: Call, uid: str | None, user_name: str | None) -> int:
    if uid:
        return _number(uid)
    if user_name:
        return next((user.id for user in call.world.users if user.name == user_name), -1)
    return call.user.id


def _number(text: str) -> int:
    return int(text) if text.isdigit() else -1


def _is_number(text: str | None, kind: type[int] | type[float]) -> bool:
    try:
        return kind(text or "") > 0
    except ValueError:
        return False
