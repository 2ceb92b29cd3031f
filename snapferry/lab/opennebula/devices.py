"""What TEMPLATE says of a VM's disks, NICs and context once the frontend has expanded them."""

from string import ascii_lowercase

from snapferry.lab.opennebula.attributes import Vector
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.leases import address
from snapferry.lab.opennebula.objects import AddressRange, Image, Machine, Network
from snapferry.lab.opennebula.world import World

_ETH = {
    "DNS": "DNS", "EXTERNAL": "", "GATEWAY": "GATEWAY", "IP": "", "IP6": "", "IP6_GATEWAY": "", "IP6_METHOD": "",
    "IP6_METRIC": "", "IP6_PREFIX_LENGTH": "", "IP6_ULA": "", "MAC": "", "MASK": "NETWORK_MASK", "METHOD": "METHOD",
    "METRIC": "METRIC", "MTU": "GUEST_MTU", "NETWORK": "NETWORK_ADDRESS", "ROUTES": "",
    "SEARCH_DOMAIN": "SEARCH_DOMAIN", "VLAN_ID": "", "VROUTER_IP": "", "VROUTER_IP6": "", "VROUTER_MANAGEMENT": "",
}  # fmt: skip
"""Each ETHx_ variable and the network attribute that it comes from."""


def disk_vector(world: World, machine: Machine, given: Vector, image: Image | None) -> Vector:
    """One DISK; `image` is None for a volatile disk."""
    prefix = given.get("DEV_PREFIX") or (image.attributes.get("DEV_PREFIX") if image else None) or "sd"
    number = max([int(disk["DISK_ID"]) for disk in machine.disks] + _context_id(machine), default=-1) + 1
    made = {
        **given, "DISK_ID": str(number), "DEV_PREFIX": prefix,
        "TARGET": given.get("TARGET") or _target(machine, prefix), "CLUSTER_ID": "0", "DISK_SNAPSHOT_TOTAL_SIZE": "0",
    }  # fmt: skip
    if image is None:
        return made | {"TYPE": given.get("TYPE", "fs"), "FORMAT": given.get("FORMAT", "raw")}
    datastore = world.datastores.get(image.datastore_id)
    for name in ("ALLOW_ORPHANS", "CLONE_TARGET", "LN_TARGET", "PERSISTENT_SNAPSHOTS"):
        made[name] = datastore.attributes.get(name) or ""
    made |= {
        "CLONE": "NO" if image.persistent else "YES", "DATASTORE": datastore.name, "DATASTORE_ID": str(datastore.id),
        "DISK_TYPE": "FILE", "DRIVER": given.get("DRIVER") or image.format, "FORMAT": image.format, "IMAGE": image.name,
        "IMAGE_ID": str(image.id), "IMAGE_STATE": str(int(image.state)), "ORIGINAL_SIZE": str(image.size),
        "READONLY": "NO", "SAVE": "YES" if image.persistent else "NO", "SIZE": str(image.size), "SOURCE": image.source,
        "TM_MAD": datastore.tm, "TYPE": "FILE",
    }  # fmt: skip
    return made | ({"PERSISTENT": "YES"} if image.persistent else {})


def refresh_disk(disk: Vector, image: Image) -> None:
    """What changes in a DISK once its image has been made."""
    disk |= {"SOURCE": image.source, "IMAGE_STATE": str(int(image.state))}


def nic_vector(
    machine: Machine, given: Vector, network: Network | None, taken: tuple[AddressRange, int] | None
) -> Vector:
    """One NIC, with what its network and its lease say."""
    number = max((int(nic["NIC_ID"]) for nic in machine.nics), default=-1) + 1
    made = {**given, "NIC_ID": str(number), "NAME": given.get("NAME") or f"NIC{number}"}
    if network is None or taken is None:
        return made
    ip, mac = address(*taken)
    get = network.attributes.get
    made |= {
        "AR_ID": str(taken[0].id), "BRIDGE": get("BRIDGE") or "", "BRIDGE_TYPE": "linux", "CLUSTER_ID": "0", "MAC": mac,
        "NETWORK": network.name, "NETWORK_ID": str(network.id), "SECURITY_GROUPS": "0",
        "TARGET": f"one-{machine.id}-{number}", "VN_MAD": get("VN_MAD") or "",
    }  # fmt: skip
    made |= {name: value for name in ("DNS", "GATEWAY") if (value := get(name))}
    return made | ({"IP": ip} if ip else {})


def context_vector(world: World, machine: Machine, given: Vector | None) -> Vector | None:
    """CONTEXT with the variables of each NIC; `$…` references to what isn't set become empty."""
    if given is None:
        return None
    made = {name: "" if value.startswith("$") else value for name, value in given.items()}
    if made.get("NETWORK", "").upper() == "YES":
        for nic in machine.nics:
            made |= _eth(world, nic)
    number = max((int(disk["DISK_ID"]) for disk in machine.disks), default=-1) + 1
    return {"DISK_ID": str(number), "TARGET": _target(machine, "sd"), **made}


def order_devices(machine: Machine) -> None:
    """ORDER of disks and NICs from OS/BOOT (`disk0,nic0`). Raises OneError (INTERNAL) for one that isn't there."""
    for device in machine.disks + machine.nics:
        device.pop("ORDER", None)
    boot = (machine.template.vector("OS") or {}).get("BOOT", "")
    for place, word in enumerate(filter(None, boot.replace(" ", "").split(",")), start=1):
        kind, number = word.rstrip("0123456789"), word.lstrip(ascii_lowercase)
        devices, key = (machine.disks, "DISK_ID") if kind == "disk" else (machine.nics, "NIC_ID")
        found = next((device for device in devices if device[key] == number and kind in ("disk", "nic")), None)
        if found is None:
            raise OneError(Code.INTERNAL, f"Wrong OS.BOOT value, {word} is not in the VM")
        found["ORDER"] = str(place)


def _eth(world: World, nic: Vector) -> Vector:
    network = world.networks.find(int(nic.get("NETWORK_ID", "-1")))
    made = {name: (network.attributes.get(source) or "") if network and source else "" for name, source in _ETH.items()}
    made |= {"IP": nic.get("IP", ""), "MAC": nic.get("MAC", "")}
    return {f"ETH{nic['NIC_ID']}_{name}": value for name, value in made.items()}


def _context_id(machine: Machine) -> list[int]:
    return [int(machine.context["DISK_ID"])] if machine.context else []


def _target(machine: Machine, prefix: str) -> str:
    used = {disk["TARGET"] for disk in machine.disks} | {(machine.context or {}).get("TARGET", "")}
    free = (f"{prefix}{letter}" for letter in ascii_lowercase if f"{prefix}{letter}" not in used)
    return next(free, f"{prefix}aa")
