"""`one.vn.*`: virtual networks with their ranges."""

from snapferry.lab.opennebula import leases, render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes, Vector
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Kind, Network
from snapferry.lab.opennebula.pools import select
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.shared import changed, check_free, check_name, shared_methods
from snapferry.lab.opennebula.world import World

READY, LOCK_CREATE = 1, 2
_NOT_OURS = "Address is not part of the address range or in use."


def found(world: World) -> None:
    """Makes the lab's networks, READY from the start."""
    for one in world.config.networks:
        first = one.first_ip.rsplit(".", 1)[0]
        values = {
            "NAME": one.name,
            "VN_MAD": "bridge",
            "BRIDGE": f"br-{one.name}"[:15],
            "NETWORK_ADDRESS": f"{first}.0",
            "NETWORK_MASK": "255.255.255.0",
            "GATEWAY": f"{first}.1",
            "DNS": f"{first}.1",
        }
        given = Attributes(list(values.items()))
        if one.match is not None:
            given.add("VCENTER_NETWORK_MATCH", one.match)
        given.add("AR", {"TYPE": "IP4", "IP": one.first_ip, "SIZE": str(one.size)})
        _add(world, given, 0, 0).state = READY


def _add(world: World, given: Attributes, uid: int, gid: int) -> Network:
    number, ranges = world.networks.next_id(), given.vectors("AR")
    attributes = given.without_empty()
    attributes.remove("NAME", "AR")
    for name, value in (("SECURITY_GROUPS", "0"), ("BRIDGE_TYPE", "linux")):
        if attributes.get(name) is None:
            attributes.set(name, value)
    for name in ("OUTER_VLAN_ID", "PHYDEV", "VLAN_ID"):
        if attributes.get(name) is None:
            attributes.set(name, "")
    made = [leases.new_range(place, vector) for place, vector in enumerate(ranges)]
    return world.networks.add(
        Network(
            id=number, uid=uid, gid=gid, name=given.get("NAME") or "", attributes=attributes, ranges=made,
            next_range=len(made), state=LOCK_CREATE,
        )
    )  # fmt: skip


def _allocate(call: Call, text: str, cluster_id: int = -1) -> int:
    given = Attributes.parse(text)
    if not call.is_admin:
        raise call.refuse("Not authorized to perform CREATE NET; Not authorized to perform ADMIN CLUSTER [0]")
    if not given.get("VN_MAD"):
        raise OneError(Code.INTERNAL, "No VN_MAD in template for Virtual Network.")
    name = given.get("NAME") or ""
    check_name(name)
    check_free(call.world.pool(Kind.NET), name, call.user.id)
    network = _add(call.world, given, call.user.id, call.user.gid)
    call.world.jobs.after(call.world.delay(call.world.config.step_delay), lambda: _ready(call.world, network))
    return network.id


def _ready(world: World, network: Network) -> None:
    with world.lock:
        network.state = READY


def _get(call: Call, network_id: int, op: Op) -> Network:
    network = call.world.networks.get(network_id)
    call.need(op, network)
    return network


def _info(call: Call, network_id: int, decrypt: bool = False) -> str:
    return render.network(call.world, _get(call, network_id, Op.READ))


def _pool(call: Call, who: int, first: int, last: int) -> str:
    chosen = select(call, call.world.networks, who, first, last)
    return f"<VNET_POOL>{''.join(render.network(call.world, it, in_pool=True) for it in chosen)}</VNET_POOL>"


def _update(call: Call, network_id: int, text: str, mode: int = 0) -> int:
    network = _get(call, network_id, Op.MANAGE)
    network.attributes = changed(network.attributes, text, mode)
    return network_id


def _delete(call: Call, network_id: int) -> int:
    network = _get(call, network_id, Op.MANAGE)
    used = sum(len(one.leases) for one in network.ranges)
    if used:
        message = f"Cannot delete virtual network. Can not remove a virtual network with leases in use: {used}"
        raise OneError(Code.ACTION, message)
    call.world.networks.drop(network_id)
    return network_id


def _add_ar(call: Call, network_id: int, text: str) -> int:
    network = _get(call, network_id, Op.ADMIN)
    vectors = Attributes.parse(text).vectors("AR")
    if not vectors:
        raise OneError(Code.INTERNAL, "Wrong AR format")
    for vector in vectors:
        network.ranges.append(leases.new_range(network.next_range, vector))
        network.next_range += 1
    return network_id


def _rm_ar(call: Call, network_id: int, range_id: int, force: bool = False) -> int:
    network = _get(call, network_id, Op.ADMIN)
    found = next((one for one in network.ranges if one.id == range_id), None)
    if found is None:
        raise OneError(Code.INTERNAL, "Address Range does not exist")
    if found.leases and not force:
        raise OneError(Code.INTERNAL, "Address Range has leases in use")
    network.ranges.remove(found)
    return network_id


def _leases(text: str) -> Vector:
    vector = Attributes.parse(text).vector("LEASES")
    if not vector or not (vector.get("IP") or vector.get("MAC")):
        raise OneError(Code.INTERNAL, "Missing LEASES attribute, or it names no IP and no MAC")
    return vector


def _hold(call: Call, network_id: int, text: str) -> int:
    network, wanted = _get(call, network_id, Op.MANAGE), _leases(text)
    for one in network.ranges:
        index = leases.find(one, wanted)
        if index is not None and index not in one.leases:
            one.leases[index] = leases.ON_HOLD
            return network_id
    raise OneError(Code.INTERNAL, _NOT_OURS)


def _release(call: Call, network_id: int, text: str) -> int:
    network, wanted = _get(call, network_id, Op.MANAGE), _leases(text)
    for one in network.ranges:
        index = leases.find(one, wanted)
        if index is not None and one.leases.get(index) == leases.ON_HOLD:
            del one.leases[index]
            return network_id
    raise OneError(Code.INTERNAL, "Address is not part of the address range or not in hold.")


METHODS: Methods = {
    "vn.allocate": Method("si", 1, _allocate),
    "vn.info": Method("ib", 1, _info),
    "vnpool.info": Method("iii", 3, _pool),
    "vn.update": Method("isi", 2, _update),
    "vn.delete": Method("i", 1, _delete),
    "vn.add_ar": Method("is", 2, _add_ar),
    "vn.rm_ar": Method("iib", 2, _rm_ar),
    "vn.hold": Method("is", 2, _hold),
    "vn.release": Method("is", 2, _release),
} | shared_methods("vn", Kind.NET)
