"""Tickets for the hosts' NFC service on port 902.

`NfcService` isn't in the public WSDL, so it is registered here on pyVmomi's type system. Facts: published protocol
notes made against vCenter and ESXi 8.0.
"""

import logging
from typing import TYPE_CHECKING, Any

from pyVmomi import VmomiSupport, vim, vmodl

from snapferry.errors import SourceError
from snapferry.vsphere.models import NfcTicket

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

VERSION = "vim.version.version1"
TICKET = "vim.HostServiceTicket"
VCENTER_SERVICE = "nfcService"
HOST_SERVICE = "ha-nfc-service"
"""moref of the service on a lone ESXi host."""


def _parameter(name: str, kind: str, flags: int = 0) -> tuple[Any, ...]:
    return (name, kind, VERSION, flags, None)


VmomiSupport.CreateManagedType(
    "vim.NfcService",
    "NfcService",
    "vmodl.ManagedObject",
    VERSION,
    None,
    [
        (
            "getVmFiles",
            "NfcGetVmFiles",
            VERSION,
            (_parameter("vm", "vim.VirtualMachine"),),
            (0, TICKET, TICKET),
            "VirtualMachine.Provisioning.GetVmFiles",
            None,
        ),
        (
            "randomAccessOpenReadonly",
            "NfcRandomAccessOpenReadonly",
            VERSION,
            (
                _parameter("vm", "vim.VirtualMachine"),
                _parameter("diskDeviceKey", "int"),
                _parameter("hostForAccess", "vim.HostSystem", VmomiSupport.F_OPTIONAL),
            ),
            (0, TICKET, TICKET),
            "VirtualMachine.Provisioning.DiskRandomRead",
            None,
        ),
    ],
)


class _InternalContent(vmodl.DynamicData):
    """What `RetrieveInternalContent` returns: a reference per property, most of them to types that nobody outside
    VMware knows; so every one is read as text."""

    @classmethod
    def _GetPropertyInfo(cls, name: str) -> Any:
        return VmomiSupport.Object(name=name, type=str, version=VERSION, flags=VmomiSupport.F_OPTIONAL)


_RETRIEVE_INTERNAL_CONTENT = VmomiSupport.Object(
    name="retrieveInternalContent",
    wsdlName="RetrieveInternalContent",
    type=vim.ServiceInstance,
    version=VERSION,
    params=(),
    isTask=False,
    resultFlags=0,
    result=_InternalContent,
    methodResult=_InternalContent,
)


def nfc_service(session: "Session") -> str:
    """moref of the NFC service: as `RetrieveInternalContent` says, else the one that is known for such a server."""
    known = VCENTER_SERVICE if session.about.apiType == "VirtualCenter" else HOST_SERVICE
    instance = session.bind(vim.ServiceInstance, "ServiceInstance")

    def ask() -> str:
        try:
            content = instance._stub.InvokeMethod(instance, _RETRIEVE_INTERNAL_CONTENT, ())
        except (vmodl.MethodFault, TypeError, KeyError) as error:
            log.debug("RetrieveInternalContent isn't understood: %s", type(error).__name__)
            return known
        return str(getattr(content, "nfcService", None) or known)

    return session.call("name its NFC service", ask, repeatable=True)


def nfc_ticket(session: "Session", vm_moref: str, disk_key: int) -> NfcTicket:
    """A read-only ticket for one NFC connection to one disk of the VM, by any number of threads.

    Raises:
        MissingPrivilege, VmGone, SourceError: vCenter gives none.
    """
    service = session.bind(VmomiSupport.GetVmodlType("vim.NfcService"), session.remembered("nfc", nfc_service))
    vm = session.bind(vim.VirtualMachine, vm_moref)

    def ask() -> Any:
        try:
            return service.RandomAccessOpenReadonly(vm, disk_key, None)
        except (vmodl.fault.MethodNotFound, vmodl.fault.NotSupported):
            return service.GetVmFiles(vm)

    ticket = session.call(f"give a ticket for disk {disk_key} of {vm_moref}", ask, repeatable=True)
    if not ticket.sslThumbprint:
        raise SourceError(
            f"vCenter's ticket for {vm_moref} has no thumbprint of the host's certificate.",
            "Without it the host can't be known; see whether the host is connected properly.",
        )
    return NfcTicket(
        host=ticket.host or session.login.host,
        port=ticket.port or 902,
        ssl_thumbprint=ticket.sslThumbprint,
        service=ticket.service,
        session_id=ticket.sessionId,
    )
