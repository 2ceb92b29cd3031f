"""The marks that a migrated VM keeps at the source: its name, a note, and NICs that don't connect. All repeatable."""

from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.errors import SourceError
from snapferry.vsphere.inventory import plain_name
from snapferry.vsphere.models import SourceVm
from snapferry.vsphere.properties import read_object
from snapferry.vsphere.waits import run_task

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

RECONFIGURE_SECONDS = 10 * 60


def set_nics_start_connected(session: "Session", vm: SourceVm, connected: dict[int, bool]) -> None:
    """Sets "connect at power on" of network cards, by key; those that are so already are left alone.

    Raises:
        SourceError: the VM has no card of that key, or it couldn't be changed.
    """
    cards = _cards(session, vm)
    missing = [key for key in connected if key not in cards]
    if missing:
        raise SourceError(f"{vm.name} has no network card {missing[0]} any more.", "Read the VM again.")
    changes = []
    for key, start_connected in connected.items():
        card = cards[key]
        if card.connectable is None:
            card.connectable = vim.vm.device.VirtualDevice.ConnectInfo(connected=False, allowGuestControl=True)
        if card.connectable.startConnected is not start_connected:
            card.connectable.startConnected = start_connected
            changes.append(vim.vm.device.VirtualDeviceSpec(operation="edit", device=card))
    if changes:
        _reconfigure(session, vm, f"change the network cards of {vm.name}", vim.vm.ConfigSpec(deviceChange=changes))


def connect_nics(session: "Session", vm: SourceVm, keys: list[int]) -> None:
    """Connects network cards of a running VM, by key; those that are connected already are left alone.

    Raises:
        SourceError: they couldn't be connected.
    """
    changes = []
    for card in (one for key, one in _cards(session, vm).items() if key in keys):
        if card.connectable is not None and not card.connectable.connected:
            card.connectable.connected = True
            changes.append(vim.vm.device.VirtualDeviceSpec(operation="edit", device=card))
    if changes:
        _reconfigure(session, vm, f"connect the network cards of {vm.name}", vim.vm.ConfigSpec(deviceChange=changes))


def rename(session: "Session", vm: SourceVm, new_name: str) -> None:
    """Renames the VM in the inventory; its files keep their names. Raises Refused where the name is taken."""
    if plain_name(_read(session, vm, "name") or "") != new_name:
        _reconfigure(session, vm, f"rename {vm.name} to {new_name}", vim.vm.ConfigSpec(name=new_name))


def annotate(session: "Session", vm: SourceVm, note: str) -> None:
    """Adds a line to the VM's notes, once."""
    notes = _read(session, vm, "config.annotation") or ""
    if note not in notes:
        text = f"{notes.rstrip()}\n{note}".lstrip()
        _reconfigure(session, vm, f"add a note to {vm.name}", vim.vm.ConfigSpec(annotation=text))


def mark_migrated(session: "Session", vm: SourceVm, new_name: str, note: str) -> None:
    """Renames the VM and adds a note, so that nobody takes it for the one in service."""
    annotate(session, vm, note)
    rename(session, vm, new_name)


def _cards(session: "Session", vm: SourceVm) -> dict[int, Any]:
    """The VM's network cards as they are now, by key."""
    devices = _read(session, vm, "config.hardware.device") or ()
    return {one.key: one for one in devices if isinstance(one, vim.vm.device.VirtualEthernetCard)}


def _read(session: "Session", vm: SourceVm, path: str) -> Any:
    return read_object(session, f"read the VM {vm.name}", vim.VirtualMachine, vm.moref, (path,)).get(path)


def _reconfigure(session: "Session", vm: SourceVm, what: str, spec: Any) -> None:
    bound = session.bind(vim.VirtualMachine, vm.moref)
    run_task(session, what, lambda: bound.ReconfigVM_Task(spec), RECONFIGURE_SECONDS)
