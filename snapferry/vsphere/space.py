"""What a VM's snapshots cost its datastores, as vCenter sums it up."""

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pyVmomi import vim

from snapferry.vsphere.models import SourceVm
from snapferry.vsphere.properties import read_object, read_objects

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

_DELTA: Final = re.compile(r"-\d{6}-(?:delta|sesparse)\.vmdk")
"""How the extent of a disk's delta is named: `web01-000001-sesparse.vmdk`."""


class Space(NamedTuple):
    """Bytes of a datastore."""

    free_bytes: int
    capacity_bytes: int

    @property
    def free_share(self) -> float:
        """From 0 to 1."""
        return self.free_bytes / self.capacity_bytes if self.capacity_bytes else 0.0


def datastore_space(session: "Session", vm: SourceVm) -> dict[str, Space]:
    """The space, by name, of every datastore that holds one of the VM's disks."""
    what = f"read the datastores of {vm.name}"
    stores = read_object(session, what, vim.VirtualMachine, vm.moref, ("datastore",)).get("datastore", ())
    wanted = ("name", "summary.freeSpace", "summary.capacity")
    found = [one.values for one in read_objects(session, what, stores, {vim.Datastore: wanted})]
    used = {disk.datastore for disk in vm.disks}
    return {
        one["name"]: Space(int(one.get("summary.freeSpace", 0)), int(one.get("summary.capacity", 0)))
        for one in found
        if one.get("name") in used
    }


def delta_bytes(session: "Session", vm: SourceVm) -> int:
    """What the files occupy that the guest writes to while snapshots are there; of every snapshot, ours or not.

    A host tells vCenter of a file's growth from time to time, not at once.
    """
    what = f"read the files of {vm.name}"
    layout = read_object(session, what, vim.VirtualMachine, vm.moref, ("layoutEx",)).get("layoutEx")
    return sum(one.size for one in (layout.file if layout else ()) if _DELTA.search(one.name))
