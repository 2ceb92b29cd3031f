"""Address ranges and who has which address of them."""

import re
from ipaddress import IPv4Address

from snapferry.lab.opennebula.attributes import Vector
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import AddressRange, Network

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_OWN = {"AR_ID", "TYPE", "IP", "MAC", "SIZE", "NEXT_INDEX", "SHARED", "ALLOCATED"}

ON_HOLD = -1


def address(it: AddressRange, index: int) -> tuple[str | None, str]:
    """The IP (None in an ETHER range) and the MAC at that place."""
    ip = str(IPv4Address(it.first_ip) + index) if it.first_ip else None
    return ip, _mac(int(it.first_mac.replace(":", ""), 16) + index)


def range_ends(it: AddressRange) -> dict[str, str]:
    """MAC_END and IP_END."""
    ip, mac = address(it, it.size - 1)
    return {"MAC_END": mac, **({"IP_END": ip} if ip else {})}


def new_range(range_id: int, vector: Vector) -> AddressRange:
    """A range from its vector; overlaps aren't looked for.

    Raises:
        OneError: INTERNAL, for a bad TYPE, SIZE, IP or MAC.
    """
    kind = vector.get("TYPE", "").upper()
    if kind not in ("IP4", "ETHER"):
        raise OneError(Code.INTERNAL, "Wrong or missing TYPE for address range")
    size = vector.get("SIZE", "")
    if not size.isdigit() or not int(size):
        raise OneError(Code.INTERNAL, "Wrong SIZE for address range")
    first_ip = None
    if kind == "IP4":
        try:
            first_ip = str(IPv4Address(vector.get("IP", "")))
        except ValueError as error:
            raise OneError(Code.INTERNAL, "Wrong or empty IP attribute") from error
    mac = vector.get("MAC", "").lower()
    if mac and not _MAC.fullmatch(mac):
        raise OneError(Code.INTERNAL, "Wrong MAC attribute")
    number = int(IPv4Address(first_ip)) if first_ip else 0xC0000000 + range_id * 0x10000
    extra = {name: value for name, value in vector.items() if name not in _OWN}
    return AddressRange(range_id, kind, first_ip, mac or _mac((0x0200 << 32) + number), int(size), extra)


def lease(network: Network, vm_id: int, nic: Vector) -> tuple[AddressRange, int]:
    """Takes an address for a NIC: the one that it names by IP or MAC, else the first free one.

    Raises:
        OneError: INTERNAL: it names more than one of IP, IP6 and MAC, or one that is outside every range or in use.
    """
    named = [key for key in ("IP", "IP6", "MAC") if nic.get(key)]
    if len(named) < 2:
        for one in network.ranges:
            index = find(one, nic) if named else _first_free(one)
            if index is not None and index not in one.leases:
                one.leases[index] = vm_id
                return one, index
    raise OneError(Code.INTERNAL, f"Cannot get IP/MAC lease from virtual network {network.id}.")


def release(network: Network, vm_id: int, mac: str) -> None:
    """Gives back what this VM has under that MAC."""
    for one in network.ranges:
        for index, holder in list(one.leases.items()):
            if holder == vm_id and address(one, index)[1] == mac:
                del one.leases[index]


def find(it: AddressRange, wanted: Vector) -> int | None:
    """The place of the IP or MAC that `wanted` names, in use or not; None outside the range."""
    if wanted.get("IP"):
        try:
            index = int(IPv4Address(wanted["IP"])) - int(IPv4Address(it.first_ip)) if it.first_ip else -1
        except ValueError:
            return None
    elif _MAC.fullmatch(wanted.get("MAC", "").lower()):
        index = int(wanted["MAC"].replace(":", ""), 16) - int(it.first_mac.replace(":", ""), 16)
    else:
        return None
    return index if 0 <= index < it.size else None


def _first_free(it: AddressRange) -> int | None:
    return next((index for index in range(it.size) if index not in it.leases), None)


def _mac(number: int) -> str:
    text = f"{number & 0xFFFFFFFFFFFF:012x}"
    return ":".join(text[at : at + 2] for at in range(0, 12, 2))
