"""`one.system.*`."""

from snapferry.lab.opennebula.access import Call
from snapferry.lab.opennebula.attributes import cdata
from snapferry.lab.opennebula.registry import Method, Methods

VERSION = "7.4.0"


def _version(call: Call) -> str:
    return VERSION


def _config(call: Call) -> str:
    if not call.is_admin:
        raise call.refuse("The oned configuration can only be retrieved by users in the oneadmin group")
    values = {
        "DATASTORE_CAPACITY_CHECK": "YES",
        "DATASTORE_LOCATION": f"{call.world.folder}//datastores",
        "DEFAULT_DEVICE_PREFIX": "sd",
        "DEFAULT_UMASK": "177",
        "MAC_PREFIX": "02:00",
    }
    inner = "".join(cdata(tag, value) for tag, value in values.items())
    return f"<OPENNEBULA_CONFIGURATION>{inner}</OPENNEBULA_CONFIGURATION>"


METHODS: Methods = {
    "system.version": Method("", 0, _version),
    "system.config": Method("", 0, _config),
}
