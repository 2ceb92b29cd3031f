"""The NFC service: tickets for reads of a VM's disks on its host."""

import uuid
from typing import Any

from pyVmomi import vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.faults import invalid_argument
from snapferry.lab.vcenter.hardware import disks_of

NFC_LIBRARY_VERSION = 11
"""What ESXi 8 answers."""


def _ticket(call: Call, key: int | None) -> Any:
    machine = call.vcenter.machine(call.arguments["vm"])
    session_id = "52" + str(uuid.uuid4())[2:]
    machine.host.client.open_ticket(session_id, machine.moref, key)
    return vim.HostServiceTicket(
        host="127.0.0.1",
        port=machine.host.nfc_port,
        sslThumbprint=machine.host.thumbprint,
        service="vpxa-nfc",
        serviceVersion="1.1",
        sessionId=session_id,
    )


@answers("NfcGetVmFiles")
def _ticket_for_all_disks(call: Call) -> Any:
    return _ticket(call, None)


@answers("NfcRandomAccessOpenReadonly")
def _ticket_for_one_disk(call: Call) -> Any:
    key = call.arguments["diskDeviceKey"]
    config = call.vcenter.store.get(call.arguments["vm"], "config")
    if key not in [disk.key for disk in disks_of(config)]:
        raise invalid_argument("diskDeviceKey")
    return _ticket(call, key)


@answers("NfcGetServerNfcLibVersion")
def _library_version(_call: Call) -> int:
    return NFC_LIBRARY_VERSION


@answers("RetrieveInternalContent")
def _internal_content(_call: Call) -> None:
    return None  # written by hand, see soap.render_internal_content
