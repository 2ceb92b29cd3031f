"""The frontend's XML as models. A number that isn't there or isn't one never crashes a reader."""

from xml.etree.ElementTree import Element

from snapferry.opennebula.attributes import Found, read_attributes
from snapferry.opennebula.models import (
    AddressRange,
    Datastore,
    Image,
    ImageState,
    Lease,
    Lock,
    Machine,
    Network,
    Template,
)


def image(element: Element) -> Image:
    """An IMAGE element."""
    return Image(
        id=_number(element, "ID"),
        name=_text(element, "NAME"),
        state=ImageState(_number(element, "STATE")),
        source=_text(element, "SOURCE"),
        size_mib=_number(element, "SIZE"),
        type=_number(element, "TYPE"),
        format=_text(element, "FORMAT"),
        persistent=_text(element, "PERSISTENT") == "1",
        datastore_id=_number(element, "DATASTORE_ID"),
        vms=tuple(_int(one.text) for one in element.iterfind("VMS/ID")),
        attributes=_flat(element),
        lock=_lock(element),
    )


def datastore(element: Element) -> Datastore:
    """A DATASTORE element."""
    return Datastore(
        id=_number(element, "ID"),
        name=_text(element, "NAME"),
        kind=_number(element, "TYPE"),
        ds_mad=_text(element, "DS_MAD"),
        tm_mad=_text(element, "TM_MAD"),
        base_path=_text(element, "BASE_PATH"),
        free_mib=_number(element, "FREE_MB", 0),
        total_mib=_number(element, "TOTAL_MB", 0),
        attributes=_flat(element),
    )


def network(element: Element) -> Network:
    """A VNET element; ranges have leases only where the network was asked for by itself."""
    return Network(
        id=_number(element, "ID"),
        name=_text(element, "NAME"),
        attributes=_flat(element),
        ranges=tuple(_range(one) for one in element.iterfind("AR_POOL/AR")),
    )


def template(element: Element) -> Template:
    """A VMTEMPLATE element."""
    return Template(
        id=_number(element, "ID"),
        name=_text(element, "NAME"),
        attributes=read_attributes(element.find("TEMPLATE")),
        lock=_lock(element),
    )


def machine(element: Element) -> Machine:
    """A VM element of `vm.info` or `vmpool.infoextended`."""
    user = read_attributes(element.find("USER_TEMPLATE"))
    error = user.get("ERROR", "")
    template_id = element.findtext("TEMPLATE/TEMPLATE_ID")
    hosts = [_text(one, "HOSTNAME") for one in element.iterfind("HISTORY_RECORDS/HISTORY")]
    return Machine(
        id=_number(element, "ID"),
        name=_text(element, "NAME"),
        state=_number(element, "STATE"),
        lcm_state=_number(element, "LCM_STATE"),
        template_id=_int(template_id) if template_id else None,
        error=error if isinstance(error, str) else "",
        disks=tuple(_vector(one) for one in element.iterfind("TEMPLATE/DISK")),
        nics=tuple(_vector(one) for one in element.iterfind("TEMPLATE/NIC")),
        attributes=user,
        host=hosts[-1] if hosts else "",
    )


def _range(element: Element) -> AddressRange:
    leases = tuple(
        Lease(ip=_text(one, "IP") or None, mac=_text(one, "MAC").lower(), vm=_number(one, "VM"))
        for one in element.iterfind("LEASES/LEASE")
    )
    return AddressRange(
        id=_number(element, "AR_ID"),
        kind=_text(element, "TYPE"),
        first_ip=_text(element, "IP") or None,
        first_mac=_text(element, "MAC").lower(),
        size=_number(element, "SIZE", 0),
        leased_ips=tuple(one.ip for one in leases if one.ip),
        leased_macs=tuple(one.mac for one in leases if one.mac),
        leases=leases,
        attributes={part.tag: part.text or "" for part in element if not len(part)},
    )


def _lock(element: Element) -> Lock | None:
    found = element.find("LOCK")
    if found is None or not found.findtext("LOCKED"):
        return None
    return Lock(level=_number(found, "LOCKED"), owner=_number(found, "OWNER"), time=_number(found, "TIME", 0))


def _flat(element: Element) -> dict[str, str | dict[str, str]]:
    """Attributes where no name is meant to repeat: the last one counts."""
    found: Found = read_attributes(element.find("TEMPLATE"))
    return {name: value[-1] if isinstance(value, list) else value for name, value in found.items()}


def _vector(element: Element) -> dict[str, str]:
    return {part.tag: part.text or "" for part in element}


def _text(element: Element, path: str) -> str:
    return element.findtext(path) or ""


def _number(element: Element, path: str, default: int = -1) -> int:
    return _int(element.findtext(path), default)


def _int(text: str | None, default: int = -1) -> int:
    try:
        return int(text or default)
    except ValueError:
        return default
