"""Networks: which one takes a NIC, and how the NIC keeps its MAC and IP there.

A NIC may name only one of IP and MAC; the other follows from the address range that holds it (observed on 7.4.0). So
where both shall stay as they are, a range of one address that pairs them is added first, marked as ours. OpenNebula
accepts overlapping ranges silently and would give the address to somebody else from the other one: there it is held.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from snapferry.opennebula import parse
from snapferry.opennebula.attributes import render
from snapferry.opennebula.client import Client
from snapferry.opennebula.errors import AddressTaken, CallFailed, MacTaken, NoSuchObject, UnmappedNetwork
from snapferry.opennebula.models import AddressRange, Network
from snapferry.plan import Frozen, NetworkRule
from snapferry.vsphere.models import SourceNic

MATCH = "VCENTER_NETWORK_MATCH"
MARK = "SNAPFERRY"
HELD = "SNAPFERRY_HOLDS"

_EVERYTHING = (-2, -1, -1)
_NOBODY = -1
_AUTOMATIC = ip_network("169.254.0.0/16")


class NicPlan(Frozen):
    """How one NIC will hang at the target."""

    network_id: int
    network: str
    nic: SourceNic
    keep_ip: bool
    mac: str
    ip: str | None
    """The address that OpenNebula will know for the NIC; None where it knows none (the guest keeps what it has)."""
    vector: dict[str, str]
    """The NIC for the template: the network and one of MAC and IP."""
    range_kind: str | None = None
    """`IP4` or `ETHER` where a range of one address has to be added first."""
    hold: bool = False
    """Whether another range has the IP too, and must not give it away."""
    warnings: tuple[str, ...] = ()
    """What will be other than on the source, in plain words."""


def list_networks(client: Client) -> list[Network]:
    """All networks that the user may use, each with its leases."""
    listed = client.call("vnpool.info", *_EVERYTHING).iterfind("VNET")
    found = []
    for one in listed:
        try:
            found.append(read_network(client, parse.network(one).id))
        except NoSuchObject:
            continue  # deleted since
    return found


def read_network(client: Client, network_id: int) -> Network:
    """One network with its leases. Raises NoSuchObject."""
    return parse.network(client.call("vn.info", network_id, False))


def map_network(networks: Sequence[Network], rules: Sequence[NetworkRule], source_name: str) -> Network:
    """The network that takes the place of a vSphere one.

    The first rule that matches decides; without one, the network whose attribute VCENTER_NETWORK_MATCH is the vSphere
    name.

    Raises:
        UnmappedNetwork: there is none, or several; the message says what to write where.
    """
    rule = next((one for one in rules if _fits(one.source, source_name)), None)
    if rule is None:
        found = [one for one in networks if one.attributes.get(MATCH) == source_name]
        how = f"by the attribute {MATCH}"
    else:
        found = [one for one in networks if one.name == rule.target]
        found = found or [one for one in networks if str(one.id) == str(rule.target)]
        how = f"by the rule {rule.source!r}: {rule.target!r}"
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{one.name} ({one.id})" for one in found)
        step = "Name one by its ID in the plan's `networks`."
        raise UnmappedNetwork(f"Network {source_name!r} could go to several, {how}: {several}.", step)
    known = ", ".join(f"{one.name} ({one.id})" for one in networks) or "none that this user may see"
    reason = f" ({how}: there is no such network)" if rule else ""
    raise UnmappedNetwork(
        f"Network {source_name!r} has no counterpart in OpenNebula{reason}.",
        f"Write in the plan `networks: {{{source_name!r}: NAME}}`, or set {MATCH}={source_name!r} on the OpenNebula "
        f"network. Networks are: {known}.",
    )


def nic_template(
    network: Network, nic: SourceNic, keep_ip: bool, *, mark: str | None = None, model: str = "virtio"
) -> NicPlan:
    """How a NIC keeps its MAC, and its IP where that can be; changes nothing.

    Args:
        network: with its leases.
        nic: the source's; its first IPv4 address is the one that counts.
        keep_ip: whether OpenNebula shall know and give the guest's present address.
        mark: the migration; a lease in a range that bears its mark is its own. Without one, any of our marks is.
        model: `virtio`, `e1000`, …

    Raises:
        MacTaken: a machine of this network has the MAC, or it is held back.
    """
    mac = nic.mac.lower()
    strangers = [lease for one in network.ranges if not _is_ours(one, mark) for lease in one.leases]
    if holder := next((lease for lease in strangers if lease.mac == mac), None):
        by = "held back" if holder.vm == _NOBODY else f"in use by VM {holder.vm}"
        step = "Release it (`onevnet release`)." if holder.vm == _NOBODY else "Remove that NIC: two can't have one MAC."
        raise MacTaken(f"MAC {mac} is {by} in network {network.name} ({network.id}).", step)
    wanted, warnings = _wanted_ip(network, nic, keep_ip)
    other = next((lease for lease in strangers if wanted and lease.ip == wanted and lease.vm != _NOBODY), None)
    if other:
        warnings.append(
            f"{wanted} belongs to VM {other.vm} in network {network.name}: the NIC keeps its MAC only. If the guest "
            "has this address configured, two machines will answer to it."
        )
        wanted = None
    plan = NicPlan(
        network_id=network.id, network=network.name, nic=nic, keep_ip=keep_ip, mac=mac, ip=wanted,
        vector={"NETWORK_ID": str(network.id), "MAC": mac, "MODEL": model}, warnings=tuple(warnings),
    )  # fmt: skip
    return _with_range(network, plan)


def ensure_address(client: Client, plan: NicPlan, mark: str) -> dict[str, str]:
    """Adds the range that a NIC needs, and returns the NIC's vector. Repeatable: it reads the network again first.

    Args:
        client: the frontend.
        plan: what `nic_template` said.
        mark: whose range it is (the migration's ID), so that `remove_addresses` finds it.

    Raises:
        MacTaken: another machine got the MAC meanwhile.
        NotAllowed: the user may add no ranges or hold no addresses; only users of the group oneadmin may.
        CallFailed: the range was added and can't be found.
    """
    network = read_network(client, plan.network_id)
    fresh = nic_template(network, plan.nic, plan.keep_ip, mark=mark, model=plan.vector["MODEL"])
    if fresh.range_kind:
        vector = {"TYPE": fresh.range_kind, "MAC": fresh.mac, "SIZE": "1", MARK: mark}
        if fresh.ip:
            vector["IP"] = fresh.ip
        if fresh.hold:
            vector[HELD] = "YES"
        client.call("vn.add_ar", network.id, render({"AR": vector}))
        network = read_network(client, network.id)
        fresh = nic_template(network, plan.nic, plan.keep_ip, mark=mark, model=plan.vector["MODEL"])
        if fresh.range_kind:
            step = "Look at the network's address ranges."
            raise CallFailed(f"Network {network.name} took a range for {plan.mac} and doesn't show it.", step)
    _hold(client, network, fresh.mac)
    return fresh.vector


def remove_addresses(client: Client, mark: str) -> list[str]:
    """Removes the ranges that bear this mark and lets go what was held for them; done already is fine.

    Returns:
        What was removed, in words.

    Raises:
        AddressTaken: a machine still uses one of them.
    """
    removed = []
    for network in list_networks(client):
        for one in network.ranges:
            if one.attributes.get(MARK) == mark:
                _remove_range(client, network, one)
                removed.append(f"{one.first_ip or one.first_mac} in network {network.name} ({network.id})")
    return removed


def _remove_range(client: Client, network: Network, one: AddressRange) -> None:
    if one.leases:
        raise AddressTaken(
            f"VM {one.leases[0].vm} uses {one.first_ip or one.first_mac} of network {network.name} ({network.id}).",
            "Terminate that machine first.",
        )
    if one.attributes.get(HELD) and one.first_ip and _held_elsewhere(network, one):
        client.call("vn.release", network.id, render({"LEASES": {"IP": one.first_ip}}))
    try:
        client.call("vn.rm_ar", network.id, one.id)
    except CallFailed:
        if any(left.id == one.id for left in read_network(client, network.id).ranges):
            raise


def _hold(client: Client, network: Network, mac: str) -> None:
    """Holds the address in the range that had it before ours, where ours says so: ours is the note of it.

    The frontend holds an address in the first range that has it free, so a range behind ours is left alone.
    """
    for one in network.ranges:
        ip = one.first_ip
        if one.first_mac != mac or not one.attributes.get(HELD) or not ip or _held_elsewhere(network, one):
            continue
        if any(other.id < one.id and other.holds_ip(ip) for other in network.ranges):
            client.call("vn.hold", network.id, render({"LEASES": {"IP": ip}}))


def _held_elsewhere(network: Network, ours: AddressRange) -> bool:
    others = [one for one in network.ranges if one.id != ours.id]
    return any(lease.ip == ours.first_ip for one in others for lease in one.leases)


def _with_range(network: Network, plan: NicPlan) -> NicPlan:
    """Finds the range that has MAC and IP together, or says which one to add."""
    by_mac = next((one for one in network.ranges if one.index_of_mac(plan.mac) is not None), None)
    if by_mac is not None:
        paired = _ip_at(by_mac, by_mac.index_of_mac(plan.mac) or 0)
        if paired and paired == plan.ip:
            alone = sum(one.holds_ip(paired) for one in network.ranges) == 1
            return _naming_ip(plan) if alone and not _is_ours(by_mac, None) else plan
        if paired is None and plan.ip is None:
            return plan
        told = f"OpenNebula pairs {plan.mac} with {paired or 'no address'} in network {plan.network}"
        lost = f", so {plan.ip} isn't kept" if plan.ip else ""
        return plan.model_copy(update={"ip": paired, "warnings": (*plan.warnings, f"{told}{lost}.")})
    if plan.ip is None:
        return plan.model_copy(update={"range_kind": "ETHER"})
    others = [one for one in network.ranges if one.holds_ip(plan.ip)]
    held = any(lease.ip == plan.ip for one in others for lease in one.leases)
    return plan.model_copy(update={"range_kind": "IP4", "hold": bool(others) and not held})


def _naming_ip(plan: NicPlan) -> NicPlan:
    """Names the IP, which users without rights of their own may; the MAC follows."""
    return plan.model_copy(
        update={"vector": {"NETWORK_ID": str(plan.network_id), "IP": plan.ip, "MODEL": plan.vector["MODEL"]}}
    )


def _is_ours(one: AddressRange, mark: str | None) -> bool:
    found = one.attributes.get(MARK)
    return bool(found) if mark is None else found == mark


def _wanted_ip(network: Network, nic: SourceNic, keep_ip: bool) -> tuple[str | None, list[str]]:
    """The IPv4 address to keep, and what has to be said about the others."""
    addresses = [one for one in map(_address, nic.ips) if one]
    v4 = [one for one in addresses if isinstance(one, IPv4Address) and one not in _AUTOMATIC]
    others = [str(one) for one in addresses if one not in v4[:1] and not one.is_link_local]
    warnings = []
    if others:
        warnings.append(
            f"OpenNebula won't know {', '.join(others)} of {nic.mac}; the guest keeps what it has configured."
        )
    if not keep_ip:
        return None, warnings
    if not v4:
        warnings.append(f"No IPv4 address of {nic.mac} is known (do VMware Tools run?): the NIC keeps its MAC only.")
        return None, warnings
    if (subnet := _subnet(network)) and v4[0] not in subnet:
        warnings.append(f"{v4[0]} lies outside network {network.name} ({subnet}): the NIC keeps its MAC only.")
        return None, warnings
    return str(v4[0]), warnings


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _subnet(network: Network) -> IPv4Network | IPv6Network | None:
    address, mask = network.attributes.get("NETWORK_ADDRESS"), network.attributes.get("NETWORK_MASK")
    if not isinstance(address, str) or not isinstance(mask, str) or not address or not mask:
        return None
    try:
        return ip_network(f"{address}/{mask}", strict=False)
    except ValueError:
        return None


def _ip_at(one: AddressRange, index: int) -> str | None:
    return str(ip_address(one.first_ip) + index) if one.first_ip else None


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), name, re.DOTALL) is not None
